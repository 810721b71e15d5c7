"""The labels of an index against the written rule, computed again slowly, and under classes that mean nothing.

    python -m pytest tests/slow/test_labels.py -m slow -s --index INDEX [--units 300]

Compares the areas of random unit-label pairs with scikit-learn's, and labels with the rule of
`patchmine.labels.evidence` written anew with loops and SciPy; deals the classes out at random; simulates how often the
lower bound lies below the true area.
"""

from __future__ import annotations

import math
import random
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from patchmine.index import Index
from patchmine.labels import evidence, of_index
from patchmine.labels.evidence import ALPHA, LEAST, MARGIN, Labels, label_units, lower_bound

pytestmark = pytest.mark.slow

DATA = Path(evidence.__file__).with_name("data")
UNITS, PAIRS, SHUFFLES = 100, 200, 5

CLOSE = 0.01
"""How near to a threshold of the rule, in logarithms of a chance, another way of computing may decide otherwise: the
bound is tried at a list of s, and SciPy finds the best one."""


@cache
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
    from scipy.stats import rankdata

    sets = {images for images in carried.values() if LEAST <= len(images) <= len(known) - LEAST}
    usable = sorted(image for image in known if math.isfinite(column[image]))
    values = [float(column[image]) for image in usable]
    ranks = rankdata(values)
    count = len(usable)
    rank = dict(zip(usable, ranks, strict=True))
    centered = (ranks - (count + 1) / 2) / count
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
        evidence = max(m * best(high, centered), n * best(low, -centered))
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
    from scipy.optimize import minimize_scalar

    def negative(log_s: float) -> float:
        s = math.exp(log_s)
        top = s * points.max()
        return -(s * mean - top - math.log(np.exp(s * points - top).mean()))

    return -float(minimize_scalar(negative, bounds=(math.log(1e-3), math.log(4e3)), method="bounded").fun)


def bound(area: float, m: int, n: int) -> float:
    """Where the area lies 97.5 % deep in a normal distribution around a true area, by its variance there."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = norm.ppf(0.975)

    def gap(a: float) -> float:
        q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
        variance = (a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)
        return area - a - z * math.sqrt(max(variance, 0))

    return float(brentq(gap, 0, area if area < 1 else 1 - 1e-9, xtol=1e-13))


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    pytest.importorskip("scipy", reason="pip install scipy")
    pytest.importorskip("sklearn", reason="pip install scikit-learn")


@pytest.fixture(scope="module")
def labeled(index: Index) -> Index:
    """The index, where it has labels to check. Skips where it has none."""
    if not any(unit.label for unit in index.units()):
        pytest.skip("no unit has a label: give --photographs DIR with several photographs of each class in its folder")
    return index


@pytest.fixture(scope="module")
def again(labeled: Index) -> Any:
    """The labels, computed again."""
    start = perf_counter()
    found = of_index.of_store(labeled.store)
    count = sum(labeled.layers.values())
    print(f"\n{count} units over {len(labeled)} photographs labeled in {perf_counter() - start:.1f} s: {found.about}")
    return found


@pytest.fixture(scope="module")
def classes(labeled: Index) -> list[str | None]:
    """The class of each photograph."""
    return [record.class_name for record in labeled.store.records()]


def units_of(index: Index) -> list[tuple[str, int]]:
    return [(layer, channel) for layer, count in index.layers.items() for channel in range(count)]


def test_the_areas_in_the_index_are_those_computed_again(labeled: Index, again: Any) -> None:
    stored = [labeled.labels.auroc(labeled.unit(f"{layer}:{c}").unit) for layer, c in units_of(labeled)]
    found = [float(area) for _, areas in again.layers.values() for area in areas]
    assert all((s is None and math.isnan(a)) or s == a for s, a in zip(stored, found, strict=True))


def test_areas_are_those_of_scikit_learn(labeled: Index, classes: list[str | None], seed: int) -> None:
    from sklearn.metrics import roc_auc_score

    rng = random.Random(seed)
    carried = photographs_by_label(classes)
    known = sorted({name for name in classes if name})
    code = {name: number for number, name in enumerate(known)}
    codes = np.array([code.get(name or "", -1) for name in classes])
    tried = Labels.of_classes(known).tried(np.bincount(codes[codes >= 0], minlength=len(known)))
    with_class = np.flatnonzero(codes >= 0)
    largest = 0.0
    for _ in range(PAIRS):
        unit = rng.choice(units_of(labeled))
        row = rng.randrange(len(tried.keys))
        column = labeled.store.column(*unit)[0][with_class]
        found = evidence.Separation.of(column, codes[with_class], tried).auroc[row]
        truth = np.array([image in carried[tried.keys[row]] for image in with_class])
        finite = np.isfinite(column)
        largest = max(largest, abs(found - roc_auc_score(truth[finite], column[finite])))
    print(f"\n{PAIRS} unit-label pairs differ from scikit-learn's by at most {largest:.1e}")
    assert largest <= 1e-6


def test_labels_are_those_of_the_rule_written_anew(
    labeled: Index, again: Any, classes: list[str | None], request: pytest.FixtureRequest, seed: int
) -> None:
    carried = photographs_by_label(classes)
    known = {image for image, name in enumerate(classes) if name is not None}
    everything = units_of(labeled)
    sample = random.Random(seed).sample(everything, min(request.config.getoption("--units") or UNITS, len(everything)))
    wrong: list[str] = []
    doubtful: list[str] = []
    for layer, channel in sample:
        key = again.layers[layer][0][channel]
        truth, close = by_the_rule(labeled.store.column(layer, channel)[0].tolist(), carried, known)
        if (None if key is None else carried[key]) != truth:
            (doubtful if close else wrong).append(f"{layer}:{channel} is {key}")
    print(f"\n{len(wrong)} of {len(sample)} labels are not the rule's, {len(doubtful)} more at a threshold: {doubtful}")
    assert wrong == []


@pytest.mark.parametrize("sparse", [False, True], ids=["all units", "units that are 0 in 97 % of photographs"])
def test_classes_dealt_out_at_random_give_hardly_a_label(
    sparse: bool, labeled: Index, classes: list[str | None], seed: int
) -> None:
    names = sorted({name for name in classes if name is not None})
    codes = np.array([-1 if name is None else names.index(name) for name in classes])
    table = np.concatenate([labeled.store.table(layer)[0] for layer in labeled.layers], axis=1)
    values = np.where(table > np.quantile(table, 0.97, axis=0), table, 0) if sparse else table
    rng, every = np.random.default_rng(seed), Labels.of_classes(names)
    found = (label_units([values], rng.permutation(codes), every).label >= 0 for _ in range(SHUFFLES))
    shares = [float(labeled_units.mean()) for labeled_units in found]
    shown = ", ".join(f"{share:.2%}" for share in shares)
    print(f"\nshares of units with a label: {shown}; at most {ALPHA:.0%} allowed")
    assert max(shares) <= ALPHA


def test_the_lower_bound_lies_below_the_true_area_in_95_of_100_cases(seed: int) -> None:
    """Simulated units know all photographs of the label a little (exponential, normal), or some of them well and the
    others not at all."""
    from scipy.stats import norm

    rng = np.random.default_rng(seed)
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
    print(f"\nbelow the true area in {least:.1%} of simulated cases at worst")
    assert least >= 0.95
