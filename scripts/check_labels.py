"""Check the labels of an index against the written rule, computed again slowly, and under classes that mean nothing.

    python scripts/check_labels.py INDEX [--units 300] [--pairs 200] [--shuffles 5] [--seed 0]

Prints how far the areas of random unit-label pairs are from scikit-learn's, how many of the labels of a sample of units
are those of the rule of `patchmine.labelling` written anew with loops and SciPy, the share of units that get a label
when the classes are dealt out at random, in how many simulated cases the lower bound lies below the true area, and how
long labelling takes. Exits with 1 where something disagrees. Needs scikit-learn and scipy.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from patchmine.labels import evidence, of_index
from patchmine.labels.evidence import ALPHA, LEAST, MARGIN, Labels, label_units, lower_bound
from patchmine.reading.opened import Index, open_index

DATA = Path(evidence.__file__).with_name("data")
CLOSE = 0.01
"""How near to a threshold of the rule, in logarithms of a chance, another way of computing may decide otherwise: the
bound is tried at a list of s, and SciPy finds the best one."""


def hypernyms() -> dict[str, list[str]]:
    """The parents of each id, read from the tables again."""
    found = {}
    for name in ("imagenet_classes.tsv", "imagenet_hypernyms.tsv"):
        lines = [line.split("\t") for line in (DATA / name).read_text("utf-8").splitlines() if line[0] != "#"]
        for row in lines[1:]:
            found[row[lines[0].index("wnid")]] = [p for p in row[lines[0].index("parents")].split(",") if p]
    return found


def photographs_by_label(classes: list[str | None]) -> dict[str, frozenset[int]]:
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


def by_the_rule(column: Any, carried: dict[str, frozenset[int]], known: set[int]) -> tuple[frozenset[int] | None, bool]:
    """The photographs of the unit's label, and whether a threshold of the rule was so close that it may be another."""
    sets = {images for images in carried.values() if LEAST <= len(images) <= len(known) - LEAST}
    usable = sorted(image for image in known if math.isfinite(column[image]))
    values = [float(column[image]) for image in usable]
    ranks = rankdata(values)
    count = len(usable)
    rank = dict(zip(usable, ranks, strict=True))
    centred = (ranks - (count + 1) / 2) / count
    needed = math.log(len(sets) / ALPHA)
    bounds, close = {}, False
    for images in sets:
        inside = [image for image in images if image in rank]
        m, n = len(inside), count - len(inside)
        if m < LEAST or n < LEAST:
            continue
        area = (sum(rank[image] for image in inside) - m * (m + 1) / 2) / (m * n)
        if area <= 0.5:
            continue
        high = n * (area - 0.5) / count
        low = m * (area - 0.5) / count
        evidence = max(m * best(high, centred), n * best(low, -centred))
        close |= abs(evidence - needed) < CLOSE * needed
        if evidence >= needed:
            bounds[images] = bound(area, m, n)
    if not bounds:
        return None, close
    highest = max(bounds.values())
    close |= any(abs(b - (highest - MARGIN)) < 1e-9 for b in bounds.values())
    near = [images for images, b in bounds.items() if b > highest - MARGIN]
    fewest = min(len(images) for images in near)
    return max((images for images in near if len(images) == fewest), key=lambda images: bounds[images]), close


def best(mean: float, points: Any) -> float:
    """The largest s mean - K(s) over s > 0."""

    def negative(log_s: float) -> float:
        s = math.exp(log_s)
        top = s * points.max()
        return -(s * mean - top - math.log(np.exp(s * points - top).mean()))

    return -float(minimize_scalar(negative, bounds=(math.log(1e-3), math.log(4e3)), method="bounded").fun)


def bound(area: float, m: int, n: int) -> float:
    z = norm.ppf(0.975)

    def gap(a: float) -> float:
        q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
        variance = (a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)
        return area - a - z * math.sqrt(max(variance, 0))

    return float(brentq(gap, 0, area if area < 1 else 1 - 1e-9, xtol=1e-13))


def areas(index: Index, carried: dict[str, frozenset[int]], pairs: int, rng: random.Random) -> float:
    """The largest difference from scikit-learn's over random pairs of a unit and a label."""
    records = index.store.records()
    known = sorted({r.class_name for r in records if r.class_name})
    code = {name: number for number, name in enumerate(known)}
    codes = np.array([code.get(r.class_name or "", -1) for r in records])
    tried = Labels.of_classes(known).tried(np.bincount(codes[codes >= 0], minlength=len(known)))
    with_class = np.flatnonzero(codes >= 0)
    largest = 0.0
    for _ in range(pairs):
        unit = rng.choice([(layer, c) for layer, n in index.layers.items() for c in range(n)])
        row = rng.randrange(len(tried.keys))
        column = index.store.column(*unit)[0][with_class]
        found = evidence.Separation.of(column, codes[with_class], tried).auroc[row]
        truth = np.array([image in carried[tried.keys[row]] for image in with_class])
        finite = np.isfinite(column)
        largest = max(largest, abs(found - roc_auc_score(truth[finite], column[finite])))
    return largest


def coverage(rng: np.random.Generator) -> float:
    """The least share of simulated units whose true area is above the bound: units that know all photographs of the
    label a little (exponential, normal) or some of them well and the others not at all."""
    least, cases, outside = 1.0, 2000, 795
    for inside in (5, 10, 30, 100):
        for true in (0.6, 0.8, 0.95):
            uniform = rng.random((cases, inside))
            kinds = (
                uniform ** ((1 - true) / true),
                norm.cdf(rng.normal(norm.ppf(true) * math.sqrt(2), 1, (cases, inside))),
                np.where(rng.random((cases, inside)) < 2 * true - 1, 1.0, uniform),
            )
            for drawn in kinds:
                others = np.sort(rng.random((cases, outside)), axis=1)
                area = np.array([np.searchsorted(o, d).mean() / outside for o, d in zip(others, drawn, strict=True)])
                size = np.full(cases, float(inside))
                least = min(least, float((lower_bound(area, size, np.full(cases, 795.0)) <= true).mean()))
    return least


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("--units", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--shuffles", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    rng = random.Random(words.seed)
    index = open_index(words.index)
    start = perf_counter()
    found = of_index.of_store(index.store)
    took = perf_counter() - start
    units = [(layer, channel) for layer, count in index.layers.items() for channel in range(count)]
    print(f"labels: {found.about}; {len(units)} units over {len(index)} photographs labelled in {took:.1f} s")
    stored = [index.labels.auroc(index.unit(f"{layer}:{c}").unit) for layer, c in units]
    again = [float(area) for _, areas in found.layers.values() for area in areas]
    same = all((s is None and math.isnan(a)) or s == a for s, a in zip(stored, again, strict=True))
    print(f"those in the index are {'the same' if same else 'OTHERS'}")

    classes = [record.class_name for record in index.store.records()]
    carried = photographs_by_label(classes)
    largest = areas(index, carried, words.pairs, rng)
    print(f"areas: {words.pairs} unit-label pairs differ from scikit-learn's by at most {largest:.1e}")

    known = {image for image, name in enumerate(classes) if name is not None}
    wrong = doubtful = 0
    for layer, channel in rng.sample(units, min(words.units, len(units))):
        key = found.layers[layer][0][channel]
        truth, close = by_the_rule(index.store.column(layer, channel)[0].tolist(), carried, known)
        if (None if key is None else carried[key]) != truth:
            doubtful += close
            wrong += not close
            print(
                f"  {layer}:{channel} is {key}, and the slow rule finds another{' (at a threshold)' if close else ''}"
            )
    print(f"rule: {wrong} of {min(words.units, len(units))} labels are not the rule's, {doubtful} more at a threshold")

    names = sorted({name for name in classes if name is not None})
    codes = np.array([-1 if name is None else names.index(name) for name in classes])
    table = np.concatenate([index.store.table(layer)[0] for layer in index.layers], axis=1)
    numbers = np.random.default_rng(words.seed)
    every = Labels.of_classes(names)
    shares = []
    for sparse in (False, True):
        values = np.where(table > np.quantile(table, 0.97, axis=0), table, 0) if sparse else table
        for _ in range(words.shuffles):
            shares.append(float((label_units([values], numbers.permutation(codes), every).label >= 0).mean()))
        what = "units that are 0 in 97 % of photographs" if sparse else "units"
        shown = ", ".join(f"{share:.2%}" for share in shares[-words.shuffles :])
        print(f"shuffled classes: {shown} of the {what} get a label; at most {ALPHA:.0%} may")
    least = coverage(numbers)
    print(f"lower bound: below the true area in {least:.1%} of simulated cases at worst")
    return int(not same or largest > 1e-6 or wrong > 0 or max(shares) > ALPHA or least < 0.95)


if __name__ == "__main__":
    sys.exit(main())
