"""The labels of an index against the written rule, computed again slowly, and under classes that mean nothing.

    python -m pytest tests/slow/test_labels.py -m slow -s --index INDEX [--units 300]
    python -m pytest tests/slow/test_labels.py -m slow -s --photographs DIR [--limit 800]

Compares labels with the rule of `patchmine.labels.evidence` written anew, in loops and exact fractions; compares areas
with scikit-learn's; counts hits on the patches themselves; deals the classes out at random; names units on one half of
the photographs and counts their hits on the other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import pytest

from patchmine.index import Index
from patchmine.labels import of_index
from patchmine.labels.candidates import Labels
from patchmine.labels.evidence import ALPHA, Trial, label_units
from tests.support.labels_anew import by_the_rule, photographs_by_label

pytestmark = pytest.mark.slow

UNITS, SHUFFLES, SPLITS = 100, 5, 4


@pytest.fixture(scope="module")
def classes(index: Index) -> list[str | None]:
    """The class of each photograph, or else the one that the network predicts."""
    records = index.store.records()
    known = [record.class_name for record in records]
    return known if any(known) else [record.prediction for record in records]


@pytest.fixture(scope="module")
def found(index: Index) -> of_index.Found:
    """The labels, computed again. Skips if no unit has one."""
    start = perf_counter()
    found = of_index.of_store(index.store)
    count = sum(index.layers.values())
    print(f"\n{count} units over {len(index)} photographs labeled in {perf_counter() - start:.1f} s: {found.about}")
    if not found.about.get("units"):
        pytest.skip("no unit has a label: give --photographs DIR with several photographs of each class in its folder")
    for layer, columns in found.layers.items():
        named = columns.label >= 0
        if named.any():
            hits, lift = np.median(columns.hits[named]), np.median(columns.lift[named])
            print(f"{layer}: {named.mean():.0%} named, median hits {hits:g} of {columns.of.max()}, lift {lift:.1f}")
    return found


def sampled(index: Index, request: pytest.FixtureRequest, seed: int) -> list[tuple[str, int]]:
    """Units drawn at random, half of them with a label."""
    every = [(layer, channel) for layer, count in index.layers.items() for channel in range(count)]
    rng = random.Random(seed)
    wanted = min(int(request.config.getoption("--units") or UNITS), len(every))
    labeled = [unit for unit in every if index.unit(f"{unit[0]}:{unit[1]}").label is not None]
    first = rng.sample(labeled, min(len(labeled), wanted // 2))
    return first + rng.sample([unit for unit in every if unit not in set(first)], wanted - len(first))


def coded(classes: Sequence[str | None]) -> tuple[np.ndarray, Labels]:
    names = sorted({name for name in classes if name is not None})
    row: dict[str | None, int] = {name: number for number, name in enumerate(names)} | {None: -1}
    return np.array([row[name] for name in classes]), Labels.of_classes(names)


def test_labels_are_those_of_the_rule_written_anew(
    index: Index, found: of_index.Found, classes: list[str | None], request: pytest.FixtureRequest, seed: int
) -> None:
    carried = photographs_by_label(classes)
    keys = list(found.words)
    wrong: list[str] = []
    doubtful: list[str] = []
    units = sampled(index, request, seed)
    for layer, channel in units:
        columns = found.layers[layer]
        values = index.store.column(layer, channel)[0]
        truth = by_the_rule(values.tolist(), classes)
        row = int(columns.label[channel])
        finite = frozenset(np.flatnonzero(np.isfinite(values)).tolist())
        same = (row < 0) == (truth is None) and (truth is None or carried[keys[row]] & finite == truth.label)
        if same and truth is not None:
            numbers = (columns.hits[channel], columns.of[channel], columns.lift[channel], columns.r[channel])
            assert numbers == pytest.approx((float(truth.hits), truth.of, truth.lift, truth.r), abs=1e-5, rel=1e-5)
        elif not same:
            close = truth is not None and truth.close
            (doubtful if close else wrong).append(f"{layer}:{channel} is {None if row < 0 else keys[row]}")
    print(f"\n{len(wrong)} of {len(units)} labels are not the rule's, {len(doubtful)} more at a threshold: {doubtful}")
    assert wrong == []


def test_areas_are_those_of_scikit_learn(index: Index, found: of_index.Found, classes: list[str | None]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="pip install scikit-learn")
    carried, keys, largest, count = photographs_by_label(classes), list(found.words), 0.0, 0
    for layer, columns in found.layers.items():
        for channel in np.flatnonzero(columns.label >= 0).tolist():
            values = index.store.column(layer, channel)[0]
            kept = [i for i, name in enumerate(classes) if name is not None and np.isfinite(values[i])]
            truth = [image in carried[keys[columns.label[channel]]] for image in kept]
            largest = max(largest, abs(metrics.roc_auc_score(truth, values[kept]) - float(columns.auroc[channel])))
            count += 1
    print(f"\n{count} areas differ from scikit-learn's by at most {largest:.1e}")
    assert largest <= 1e-6


def test_hits_are_those_counted_on_the_top_patches(
    index: Index, found: of_index.Found, classes: list[str | None]
) -> None:
    if None in classes:
        pytest.skip("some photographs have no class")
    carried, keys, counted = photographs_by_label(classes), list(found.words), 0
    for layer, columns in found.layers.items():
        for channel in np.flatnonzero(columns.label >= 0).tolist():
            of = int(columns.of[channel])
            values, images, _ = index.store.top(layer, channel)
            if of < len(values) and values[of - 1] == values[of]:
                continue
            hits = sum(image in carried[keys[columns.label[channel]]] for image in images[:of].tolist())
            assert hits == columns.hits[channel]
            counted += 1
    print(f"\nhits of {counted} units counted on their top patches")
    assert counted


@pytest.mark.parametrize("sparse", [False, True], ids=["all units", "units that are 0 in 97 % of photographs"])
def test_classes_dealt_out_at_random_give_hardly_a_label(
    sparse: bool, index: Index, found: of_index.Found, classes: list[str | None], seed: int
) -> None:
    codes, labels = coded(classes)
    table = np.concatenate([index.store.table(layer)[0] for layer in found.layers], axis=1)
    values = np.where(table > np.quantile(table, 0.97, axis=0), table, 0) if sparse else table
    rng = np.random.default_rng(seed)
    shares = [float((label_units([values], rng.permutation(codes), labels).label >= 0).mean()) for _ in range(SHUFFLES)]
    print(f"\nunits with a label: {', '.join(f'{share:.2%}' for share in shares)}; at most {ALPHA:.0%} allowed")
    assert max(shares) <= ALPHA


def test_names_from_one_half_of_the_photographs_hold_on_the_other(
    index: Index, found: of_index.Found, classes: list[str | None], seed: int
) -> None:
    codes, labels = coded(classes)
    rng = np.random.default_rng(seed)
    for layer in found.layers:
        table = index.store.table(layer)[0]
        above = []
        for _ in range(SPLITS):
            first = rng.random(len(codes)) < 0.5
            named = label_units([table[first]], codes[first], labels)
            other, of_other = table[~first], codes[~first]
            size = Trial.of(labels, np.bincount(of_other[of_other >= 0], minlength=labels.members.shape[1])).window
            known = np.flatnonzero(of_other >= 0)
            for unit in np.flatnonzero(named.label >= 0).tolist():
                top = known[np.argsort(-other[known, unit], kind="stable")[:size]]
                member = labels.members[named.label[unit]]
                above.append(member[of_other[top]].mean() > member[of_other[known]].mean())
        if above:
            print(f"\n{layer}: {len(above)} names; above chance on the other half: {np.mean(above):.0%}", end="")
            assert np.mean(above) > 0.8 or len(above) < 20
