"""Chooses the photographs that answer a question, from a unit's activations on all photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.errors import PhotographError, RequestError
from patchmine.ranking import CELLS, Float32, Int64, rank_column
from patchmine.store.reading import Store
from patchmine.units import Unit

if TYPE_CHECKING:
    from patchmine.photographs.likeness import Likeness

Mask = NDArray[np.bool_]
Column = tuple[Float32, NDArray[np.integer]]
"""Values float32 and positions of one unit on all photographs, both (images,)."""


class Alike:
    """Whether a photograph of an index is of the class of one of some others, or nearly the same as one of them.

    A photograph that cannot be read is like no other. `photograph` reads the encoded bytes of one by its id.
    """

    def __init__(self, store: Store, photograph: Callable[[int], bytes]) -> None:
        self._store, self._photograph = store, photograph
        self._likenesses: dict[int, Likeness | None] = {}

    def __call__(self, image: int, others: Sequence[int]) -> bool:
        name = self._store.image(image).class_name
        if name is not None and any(name == self._store.image(other).class_name for other in others):
            return True
        mine = self._likeness(image)
        return mine is not None and any(theirs and mine.nearly(theirs) for theirs in map(self._likeness, others))

    def _likeness(self, image: int) -> Likeness | None:
        from patchmine.photographs.likeness import likeness

        if image not in self._likenesses:
            try:
                self._likenesses[image] = likeness(self._photograph(image))
            except PhotographError:
                self._likenesses[image] = None
        return self._likenesses[image]


@dataclass(frozen=True)
class Wish:
    """Which k patches of a unit are asked for: `IndexedUnit.top` explains each field."""

    k: int
    pick: str
    seed: int
    of_class: str | None = None
    not_class: str | None = None
    diverse: bool = False


def picked(
    store: Store,
    unit: Unit,
    wish: Wish,
    alike: Callable[[int, list[int]], bool],
    by_relevance: Column | None = None,
) -> tuple[Float32, Int64, NDArray[np.integer]]:
    """Values, images and places (y * grid width + x) of the patches that the wish chooses, each (patches,).

    `by_relevance` takes the place of the unit's activations.
    """
    among = _among(store, wish.of_class, wish.not_class)
    if wish.pick == "facets":
        if by_relevance is not None:
            raise RequestError(
                "--pick facets groups the patches with the highest activations: leave out --by relevance"
            )
        return _facets(store, unit, wish.k, among)
    column, positions = by_relevance or store.column(unit.layer, unit.channel)
    order = preferred(column, wish.k, wish.pick, wish.seed, among)
    chosen = in_order(distinct(order, wish.k, alike) if wish.diverse else order[: wish.k], column, wish.pick)
    return column[chosen], chosen, positions[chosen].astype(np.int64)


def _among(store: Store, of_class: str | None, not_class: str | None) -> Mask | None:
    """Which photographs may answer (images,); None where all may."""
    if of_class is None and not_class is None:
        return None
    from patchmine.labels.matching import classes_meant

    names, codes = store.class_names, store.class_codes()
    among = np.ones(store.images, np.bool_)
    if of_class is not None:
        among &= (codes >= 0) & np.append(classes_meant(of_class, names), False)[codes]
    if not_class is not None:
        among &= ~((codes >= 0) & np.append(classes_meant(not_class, names, "--not-class"), False)[codes])
    return among


def _facets(store: Store, unit: Unit, k: int, among: Mask | None) -> tuple[Float32, Int64, NDArray[np.integer]]:
    """The middle of each of k groups of the kept top patches, grouped by the cosine of their vectors."""
    values, images, places = store.top(unit.layer, unit.channel)
    if among is not None:
        values, images, places = values[among[images]], images[among[images]], places[among[images]]
    if not len(values):
        return values, images, places
    chosen = medoids(vectors_of(store, unit.layer, images, places), k)
    return values[chosen], images[chosen], places[chosen]


def vectors_of(store: Store, layer: str, images: Int64, places: NDArray[np.integer]) -> Float32:
    """The activation vectors of kept patches of a layer, float32 (patches, channels), in their order."""
    vectors, of_image, of_place = store.vectors(layer)
    rows = np.searchsorted(of_image * CELLS + of_place, images * CELLS + places)
    order = np.argsort(rows)
    found = np.empty((len(rows), vectors.shape[1]), np.float32)
    found[order] = vectors[rows[order].tolist()]
    return found


def preferred(column: Float32, k: int, pick: str, seed: int, among: Mask | None = None) -> Int64:
    """All eligible image ids, in order of preference: take the first k, except those that are ruled out elsewhere.

    `column` is float32 (images,); non-finite values never rank. `among` (images,) restricts the choice before anything
    is counted, so a quantile is one of those photographs. Raises RequestError for an unknown pick.
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
        # Of two equally far from the middle, prefer the higher activation.
        return ranked[np.lexsort((places, np.abs(places - middle)))]
    raise RequestError(f"unknown pick {pick!r}: choose from {', '.join(defaults.PICKS)}")


def in_order(chosen: Int64, column: Float32, pick: str) -> Int64:
    """The chosen photographs in display order: by rank, except for a random choice."""
    if pick == "random":
        return chosen
    ranked = rank_column(column[chosen], descending=pick != "bottom")
    return chosen[ranked]


def distinct(preferred: Int64, k: int, alike: Callable[[int, list[int]], bool]) -> Int64:
    """The first k images of which none resembles an earlier one: `alike` compares an image with those already taken."""

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
    """The rows of up to k vectors, each the medoid of a group of vectors with similar directions.

    k-medoids by cosine distance: starts with the best row and repeatedly adds the row farthest from all medoids so far.
    Then each group's member with the smallest sum of distances within the group becomes its medoid, until nothing
    changes (Park & Jun, "A simple and fast algorithm for K-medoids clustering", 2009). `vectors` is (rows, channels),
    best row first. The groups are ordered alike: the one that holds the best row comes first.
    """
    distance = cosine_distances(vectors)
    chosen = [0]
    while len(chosen) < min(k, len(vectors)):
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
    best = [int(np.flatnonzero(group == number).min(initial=len(vectors))) for number in range(len(chosen))]
    return np.array([chosen[number] for number in np.argsort(best, kind="stable")], np.int64)


def cosine_distances(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """1 minus the cosine of each pair of vectors, (rows, rows)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    distances: NDArray[np.floating] = 1 - unit @ unit.T
    return distances


def _quantile(text: str) -> float:
    try:
        quantile = float(text)
    except ValueError:
        quantile = -1.0
    if not 0 <= quantile <= 1:
        raise RequestError(f"{text!r} is not a valid quantile: write a number from 0 to 1, as in --pick quantile:0.9")
    return quantile
