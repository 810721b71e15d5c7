"""A sketch of many distributions at once: counts in bins that are the same for all data.

A value is counted by the upper half of its float32 bits: sign, exponent, and seven bits of the mantissa. So a bin is at
most 2**-7 (0.8 %) of its value wide, and a quantile is off by no more than that. Values nearer to 0 than SMALLEST share
one bin. Counting is commutative and associative: batches and shards in any order give equal sketches.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32, Int64

ERROR = 2.0**-7
"""The largest error of a quantile, as a share of its value; for one nearer to 0 than SMALLEST, SMALLEST itself."""

SMALLEST, LARGEST = 2.0**-16, 2.0**16
"""Values between these, of either sign, have bins of their own; what is beyond LARGEST shares one with its maximum."""

_FIRST, _LAST = (127 - 16) << 7, (127 + 16) << 7  # the upper half of the bits of SMALLEST and LARGEST
_SIDE = _LAST - _FIRST + 1  # bins of one sign, with that beyond LARGEST
_ZERO = _SIDE  # the bin around 0
BINS = 2 * _SIDE + 1

_UNITS = 64  # units whose bins are summed at once: 4 MB


class Sketch:
    """The distributions of `units` units. Its size does not depend on the number of values: 64 kB for each unit."""

    def __init__(self, units: int) -> None:
        self.counts: Int64 = np.zeros((units, BINS), np.int64)
        self.low: Float32 = np.full(units, np.inf, np.float32)
        self.high: Float32 = np.full(units, -np.inf, np.float32)

    def add(self, values: Float32) -> None:
        """Count values, float32 (images, units, cells). Those that are not finite are left out."""
        finite = np.isfinite(values)
        all_finite = bool(finite.all())
        self.low = np.minimum(self.low, values.min((0, 2), initial=np.inf, where=True if all_finite else finite))
        self.high = np.maximum(self.high, values.max((0, 2), initial=-np.inf, where=True if all_finite else finite))
        places = _table()[np.ascontiguousarray(values).view(np.uint32) >> np.uint32(16)]
        places += (np.arange(values.shape[1], dtype=np.int64) * BINS)[:, None]
        counted = places.reshape(-1) if all_finite else places[finite]
        np.add.at(self.counts.reshape(-1), counted, 1)

    def merge(self, other: Sketch) -> None:
        """Add the counts of another sketch of the same units."""
        self.counts += other.counts
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)

    def quantiles(self, levels: NDArray[np.float64]) -> Float32:
        """The quantiles of each unit, float32 (units, levels); NaN for a unit without values.

        As numpy's default, level q lies at rank q * (n - 1) of the n values in ascending order, between two of them if
        that is no whole number. The values of a bin are taken to be evenly spread in it.
        """
        found = np.full((len(self.counts), len(levels)), np.nan, np.float32)
        for start in range(0, len(self.counts), _UNITS):
            upto = self.counts[start : start + _UNITS].cumsum(1)
            for row, counts in enumerate(upto, start):
                if not counts[-1]:
                    continue
                ranks = levels * (counts[-1] - 1)
                below, above = (_at(counts, whole) for whole in (np.floor(ranks), np.ceil(ranks)))
                value = below + (ranks - np.floor(ranks)) * (above - below)
                found[row] = np.clip(value, self.low[row], self.high[row])
        return found


def _at(upto: Int64, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values of these ranks of one unit, whose bins hold `upto` values each with all bins below."""
    at = np.searchsorted(upto, ranks, side="right")
    before = np.where(at > 0, upto[at - 1], 0)
    low, high = _edges()[at], _edges()[at + 1]
    return np.where(at == _ZERO, 0, low + (ranks - before + 0.5) / (upto[at] - before) * (high - low))


@cache
def _table() -> Int64:
    """The bin of each value, by the upper half of its bits; a value that is not finite gets any."""
    upper = np.arange(1 << 16)
    size = np.clip((upper & 0x7FFF) - _FIRST + 1, 0, _SIDE)
    return np.where(upper >> 15, _ZERO - size, _ZERO + size)


@cache
def _edges() -> NDArray[np.float64]:
    """The ascending edges of the bins, (BINS + 1,). The outermost bins end at the largest float32."""
    upper = np.arange(_FIRST, _LAST + 1, dtype=np.uint32) << np.uint32(16)
    positive = np.append(upper.view(np.float32).astype(np.float64), np.finfo(np.float32).max)
    return np.concatenate([np.negative(positive[::-1]), positive])
