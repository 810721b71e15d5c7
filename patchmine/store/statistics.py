"""The statistics of units that an index keeps: computed from the shards, and checked when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32

QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
TIED = 25
"""A unit saturates if more photographs than this share its maximum: its top 25 is then arbitrary."""


class Moments:
    """Mean, standard deviation, extremes, and counts of each unit's finite activations, accumulated in float64."""

    def __init__(self, units: int) -> None:
        self.count = np.zeros(units, np.int64)
        self.total = np.zeros(units)
        self.squares = np.zeros(units)
        self.positive = np.zeros(units, np.int64)
        self.minimum = np.full(units, np.inf, np.float32)
        self.maximum = np.full(units, -np.inf, np.float32)
        self.tied = np.zeros(units, np.int64)
        self.non_finite = 0

    def add(self, values: Float32, units: slice) -> None:
        """Add rows of some units."""
        finite = np.isfinite(values)
        self.non_finite += int(values.size - finite.sum())
        zeroed = np.where(finite, values, 0).astype(np.float64)
        self.count[units] += finite.sum(axis=0)
        self.total[units] += zeroed.sum(axis=0)
        self.squares[units] += (zeroed**2).sum(axis=0)
        self.positive[units] += (zeroed > 0).sum(axis=0)
        lowest = np.where(finite, values, np.inf).min(axis=0, initial=np.inf)
        self.minimum[units] = np.minimum(self.minimum[units], lowest)
        highest = np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf).astype(np.float32)
        holders, before = (values == highest).sum(axis=0), self.maximum[units]
        tied = self.tied[units] + np.where(highest == before, holders, 0)
        self.tied[units] = np.where(highest > before, holders, tied)
        self.maximum[units] = np.maximum(before, highest)

    def write(self, group: h5py.Group) -> None:
        """Write them as datasets of the group."""
        count = np.maximum(self.count, 1)
        mean = self.total / count
        variance = np.maximum(self.squares / count - mean**2, 0)
        group.create_dataset("mean", data=mean.astype(np.float32))
        group.create_dataset("std", data=np.sqrt(variance).astype(np.float32))
        group.create_dataset("positive", data=(self.positive / count).astype(np.float32))
        group.create_dataset("minimum", data=self.minimum.astype(np.float32))
        group.create_dataset("maximum", data=self.maximum.astype(np.float32))
        # A unit that never exceeds 0 is tied at 0 because it is dead, not because it saturates.
        tied = np.where(self.maximum == 0, 0, self.tied)
        group.create_dataset("tied", data=tied)
        group["tied"].attrs["meaning"] = "photographs that hold the unit's very maximum"


def quantiles(block: Float32) -> Float32:
    """QUANTILES of the finite values of each column, (columns, quantiles); NaN without any."""
    found = np.full((block.shape[1], len(QUANTILES)), np.nan, np.float32)
    columns = block.T.copy()
    columns[np.isinf(columns)] = np.nan
    columns.sort(axis=1)  # NaN sorts last
    for column, count in enumerate(np.isfinite(columns).sum(axis=1)):
        if count:
            rank = np.round(np.array(QUANTILES) * (count - 1)).astype(np.int64)
            found[column] = columns[column, rank]
    return found


def selected(blocks: Callable[[], Iterable[Float32]]) -> Float32:
    """`quantiles` of columns that come in blocks of rows, twice the same; to the last bit, but for the sign of zeros.

    The first pass counts the values by the upper half of their bits, the second those of the halves that hold a
    quantile by the lower half: a column takes up to 8 MB, however long it is.
    """
    upper: NDArray[np.int64] | None = None
    for block in blocks():
        upper = np.zeros((block.shape[1], 1 << 16), np.int64) if upper is None else upper
        for counts, column in zip(upper, block.T, strict=True):
            counts += np.bincount(_ordered(column) >> 16, minlength=1 << 16)
    assert upper is not None
    found = np.full((len(upper), len(QUANTILES)), np.nan, np.float32)
    sums = upper.cumsum(axis=1)
    ranks = np.round(np.array(QUANTILES) * (sums[:, -1:] - 1)).astype(np.int64)
    halves = [np.searchsorted(total, rank, side="right") for total, rank in zip(sums, ranks, strict=True)]
    lower = [{int(half): np.zeros(1 << 16, np.int64) for half in set(some.tolist())} for some in halves]
    for block in blocks():
        for counted, column in zip(lower, block.T, strict=True):
            keys = _ordered(column)
            for half, counts in counted.items():
                counts += np.bincount(keys[keys >> 16 == half] & 0xFFFF, minlength=1 << 16)
    for number in np.flatnonzero(sums[:, -1]):
        for place, (rank, half) in enumerate(zip(ranks[number], halves[number], strict=True)):
            before = sums[number, half] - upper[number, half]
            low = np.searchsorted(lower[number][int(half)].cumsum(), rank - before, side="right")
            found[number, place] = _of_ordered(np.uint32(int(half) << 16 | int(low)))
    return found


_SIGN = np.uint32(1 << 31)


def _ordered(column: Float32) -> NDArray[np.uint32]:
    """Numbers in the order of the finite values of a column; plus and minus zero are the same."""
    bits = (column[np.isfinite(column)] + np.float32(0)).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _of_ordered(key: np.uint32) -> np.float32:
    """The value of a number of `_ordered`."""
    return np.float32((key ^ _SIGN if key & _SIGN else ~key).view(np.float32))


def wrong(found: Mapping[str, NDArray[Any]], images: int) -> tuple[str, str] | None:
    """Where statistics over so many photographs are wrong, such as `/tied`, and why; None if they can be right."""
    for name in ("mean", "std", "positive"):
        if not np.isfinite(found[name]).all():
            return f"/{name}", "its values are not finite"
    if ((found["positive"] < 0) | (found["positive"] > 1)).any() or (found["std"] < 0).any():
        return "", "a share or a standard deviation is out of range"
    if ((found["tied"] < 0) | (found["tied"] > images)).any():
        return "/tied", f"it counts more than {images} photographs"
    if np.isnan(found["minimum"]).any() or np.isnan(found["maximum"]).any():
        return "", "a minimum or maximum is not a number"
    return None
