"""Quantiles of columns that are too long to sort: selected in two passes, they are those of the sorted column."""

import numpy as np
import pytest

import patchmine
from patchmine.defaults import Wanted
from patchmine.store import writing
from patchmine.store.statistics import QUANTILES, quantiles, selected
from tests.support.activations import datasets

RNG = np.random.default_rng(0)
COLUMNS = {
    "normal": RNG.standard_normal(5000),
    "of one value": np.full(5000, -3.25),
    "mostly zero": np.maximum(RNG.standard_normal(5000) - 2, 0),
    "of all magnitudes": RNG.standard_normal(5000) * 10.0 ** RNG.integers(-44, 38, 5000),
    "with holes": np.where(RNG.random(5000) < 0.3, np.nan, RNG.standard_normal(5000)),
    "with infinities": np.where(RNG.random(5000) < 0.1, -np.inf, RNG.standard_normal(5000)),
    "of nothing": np.full(5000, np.nan),
    "of one finite value": np.where(np.arange(5000) == 77, 2.5, np.inf),
}


@pytest.mark.parametrize("size", [61, 999, 10_000])
def test_selected_quantiles_are_those_of_the_sorted_columns(size):
    table = np.stack(list(COLUMNS.values()), axis=1).astype(np.float32)

    def blocks():
        return (table[start : start + size] for start in range(0, len(table), size))

    found, expected = selected(blocks), quantiles(table)
    assert found.shape == (len(COLUMNS), len(QUANTILES))
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected, equal_nan=True)


def test_an_index_whose_columns_are_too_long_to_sort_is_the_same(tmp_path, monkeypatch):
    wanted = Wanted(model="shapes", shard_size=6, layers=("thing",))
    patchmine.build_index("shapes:20", tmp_path / "sorted.patchmine", wanted)
    monkeypatch.setattr(writing, "_COLUMNS_BYTES", 0)
    monkeypatch.setattr(writing, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(writing, "_SHARDS", 2)
    patchmine.build_index("shapes:20", tmp_path / "selected.patchmine", wanted)
    assert datasets(tmp_path / "selected.patchmine") == datasets(tmp_path / "sorted.patchmine")
