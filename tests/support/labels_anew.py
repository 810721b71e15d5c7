"""The rule that labels units, written again: with loops, sets of photographs and exact fractions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from patchmine.labels import evidence

DATA = Path(evidence.__file__).with_name("data")


@dataclass(frozen=True)
class Anew:
    """The photographs of the chosen label and its numbers; `close`: a rounding error could decide otherwise."""

    label: frozenset[int]
    hits: Fraction
    of: int
    lift: float
    r: float
    close: bool = False


@cache
def hypernyms() -> dict[str, list[str]]:
    """The parents of each id, read from the tables again."""
    found = {}
    for name in ("imagenet_classes.tsv", "imagenet_hypernyms.tsv"):
        lines = [line.split("\t") for line in (DATA / name).read_text("utf-8").splitlines() if line[0] != "#"]
        for row in lines[1:]:
            found[row[lines[0].index("wnid")]] = [p for p in row[lines[0].index("parents")].split(",") if p]
    return found


def photographs_by_label(classes: Sequence[str | None]) -> dict[str, frozenset[int]]:
    """The photographs that carry each class or noun above one."""
    parents = hypernyms()
    carried: dict[str, set[int]] = {}
    for image, name in enumerate(classes):
        todo = [name] if name is not None else []
        while todo:
            key = todo.pop()
            carried.setdefault(key, set()).add(image)
            todo += parents.get(key, [])
    return {key: frozenset(images) for key, images in carried.items()}


def by_the_rule(column: Sequence[float], classes: Sequence[str | None]) -> Anew | None:
    """The label of one unit; None without one."""
    known = [image for image, name in enumerate(classes) if name is not None and math.isfinite(column[image])]
    n = len(known)
    window = min(25, max(5, n // 8))
    if n <= window:
        return None
    third = math.ceil(Fraction(8 * window, 25))
    carried = photographs_by_label([name if image in set(known) else None for image, name in enumerate(classes)])
    of_classes = {carried[name] for name in classes if name in carried}
    tried = {
        images
        for images in carried.values()
        if len(images) >= max(5, third) and n - len(images) >= 5 and (images in of_classes or 2 * len(images) <= n)
    }
    cut = sorted((column[image] for image in known), reverse=True)[window - 1]
    above = {image for image in known if column[image] > cut}
    at = {image for image in known if column[image] == cut}
    hits = {images: len(images & above) + Fraction(window - len(above), len(at)) * len(images & at) for images in tried}
    factor = 2 if len(above) + len(at) > window else 1
    passed = {
        images
        for images in tried
        if hits[images] >= third and factor * tail(n, len(images), window, int(hits[images])) * len(tried) * 100 <= 1
    }
    mean = math.fsum(column[image] for image in known) / n
    z = {image: max(column[image] - mean, 0.0) ** 2 for image in known}
    total, squares = math.fsum(z.values()), math.fsum(value * value for value in z.values())

    def r(images: frozenset[int]) -> float:
        m = len(images)
        root = math.sqrt(m * (1 - m / n) * max(squares - total * total / n, 0))
        return (math.fsum(z[image] for image in images) - m * total / n) / root if root else 0.0

    rs = {images: r(images) for images in passed}
    able = [images for images in passed if rs[images] > 0]
    if not able:
        return None
    chosen = max(able, key=lambda images: (rs[images], -len(images)))
    close = any(images != chosen and abs(rs[images] - rs[chosen]) < 1e-8 for images in able)
    while below := [images for images in passed if images < chosen and hits[images] == hits[chosen]]:
        chosen = max(below, key=lambda images: (rs[images], -len(images)))
    lift = float(hits[chosen] / window / Fraction(len(chosen), n))
    return Anew(chosen, hits[chosen], window, lift, rs[chosen], close)


@cache
def tail(n: int, m: int, window: int, k: int) -> Fraction:
    """The chance that at least k of `window` photographs drawn from n are among m."""
    ways = sum(math.comb(m, j) * math.comb(n - m, window - j) for j in range(k, min(window, m) + 1))
    return Fraction(ways, math.comb(n, window))


def slow_auroc(column: Mapping[int, float] | Sequence[float], inside: frozenset[int], known: Sequence[int]) -> float:
    """The share of pairs that the unit orders rightly; ties count half."""
    outside = [image for image in known if image not in inside]
    pairs = [(column[a] > column[b]) + 0.5 * (column[a] == column[b]) for a in inside for b in outside]
    return sum(pairs) / len(pairs)
