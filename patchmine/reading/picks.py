"""Which photographs a question is answered with: by a unit's whole column of activations, one for each photograph."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.errors import RequestError
from patchmine.ranking import Float32, Int64, rank_column

Mask = NDArray[np.bool_]


def preferred(column: Float32, k: int, pick: str, seed: int, among: Mask | None = None) -> Int64:
    """All image ids that may be taken, the ones to be taken first: the first k, unless something else rules some out.

    `column` is float32 (images,); values that are not finite never rank. `among` (images,) restricts the choice before
    anything is counted: a quantile is then one of those photographs. Raises RequestError for a pick that there is not.
    """
    ranked = rank_column(column, descending=pick != "bottom")
    if among is not None:
        ranked = ranked[among[ranked]]
    if pick in ("top", "bottom"):
        return ranked
    if pick == "random":
        order: Int64 = np.random.default_rng(seed).permutation(np.sort(ranked))
        return order
    if pick == "spectrum":
        return ranked[np.linspace(0, len(ranked) - 1, min(k, len(ranked))).round().astype(np.int64)]
    if pick.startswith("quantile:"):
        quantile = _quantile(pick.removeprefix("quantile:"))
        places = np.arange(len(ranked))
        middle = round((1 - quantile) * (len(ranked) - 1))
        # Of two equally far from the middle, the higher activation.
        return ranked[np.lexsort((places, np.abs(places - middle)))]
    raise RequestError(f"there is no pick {pick!r}: choose from {', '.join(defaults.PICKS)}")


def in_order(chosen: Int64, column: Float32, pick: str) -> Int64:
    """What was chosen, as it is shown: by rank, but for a random choice."""
    if pick == "random":
        return chosen
    ranked = rank_column(column[chosen], descending=pick != "bottom")
    return chosen[ranked]


def distinct(preferred: Int64, k: int, alike: Callable[[int, list[int]], bool]) -> Int64:
    """The first k of which none is like one before it: `alike` says so of an image and those taken already."""

    def taken() -> Iterator[int]:
        kept: list[int] = []
        for image in preferred.tolist():
            if len(kept) == k:
                return
            if not alike(image, kept):
                kept.append(image)
                yield image

    return np.array(list(taken()), np.int64)


def medoids(vectors: NDArray[np.floating], k: int) -> Int64:
    """The rows of up to k vectors, each the middle of a group of those that point the same way.

    k-medoids by cosine: begun with the best row and, again and again, the one farthest from all medoids so far; then
    each group's member with the smallest sum of distances within it becomes its medoid, until nothing changes (Park &
    Jun, "A simple and fast algorithm for K-medoids clustering", 2009). `vectors` is (rows, channels), best row first,
    and so are the groups: the one that holds the best row comes first.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    distance = 1 - unit @ unit.T
    chosen = [0]
    while len(chosen) < min(k, len(unit)):
        chosen.append(int(distance[:, chosen].min(1).argmax()))
    while True:
        group = distance[:, chosen].argmin(1)
        moved = []
        for number in range(len(chosen)):
            members = np.flatnonzero(group == number)
            within = distance[np.ix_(members, members)].sum(1)
            moved.append(int(members[within.argmin()]) if len(members) else chosen[number])
        if moved == chosen:
            break
        chosen = moved
    best = [int(np.flatnonzero(group == number).min(initial=len(unit))) for number in range(len(chosen))]
    return np.array([chosen[number] for number in np.argsort(best, kind="stable")], np.int64)


def _quantile(text: str) -> float:
    try:
        quantile = float(text)
    except ValueError:
        quantile = -1.0
    if not 0 <= quantile <= 1:
        raise RequestError(f"{text!r} is no quantile: write a number from 0 to 1, as in --pick quantile:0.9")
    return quantile
