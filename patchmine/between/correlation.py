"""Pearson's correlation of every unit of one layer with every unit of another, over photographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32

_ROWS = 4096  # photographs in double precision at once

Float64 = NDArray[np.float64]


def correlations(first: Float32, second: Float32) -> Float64:
    """float64 (units of the first, units of the second); the arguments are (photographs, units).

    A photograph on which either unit is not finite is left out; NaN where a unit never varies on the others.
    """
    middles = [_middle(first), _middle(second)]
    count, product, own, own_square, other, other_square = np.zeros((6, first.shape[1], second.shape[1]))
    for start in range(0, len(first), _ROWS):
        (a, known_a), (b, known_b) = (
            _centered(values[start : start + _ROWS], middle)
            for values, middle in zip((first, second), middles, strict=True)
        )
        product += a.T @ b
        count += known_a.T @ known_b
        own += a.T @ known_b
        own_square += (a**2).T @ known_b
        other += known_a.T @ b
        other_square += known_a.T @ b**2
    with np.errstate(divide="ignore", invalid="ignore"):
        spread, other_spread = own_square - own**2 / count, other_square - other**2 / count
        found = (product - own * other / count) / np.sqrt(spread * other_spread)
        # The spread of a unit that never varies is pure rounding.
        varies = (spread > 1e-12 * own_square) & (other_spread > 1e-12 * other_square)
    return np.where(varies, np.clip(found, -1, 1), np.nan)


def _middle(values: Float32) -> Float64:
    """The mean of each column's finite values: sums of squares of numbers near zero lose nothing to rounding."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    middle: Float64 = total / np.maximum(known.sum(axis=0), 1)
    return middle


def _centered(values: Float32, middle: Float64) -> tuple[Float64, Float64]:
    """The values minus the middle, 0 where they are not finite, and 1 where they are finite; (rows, units).

    Where all are, one column of ones stands for all units.
    """
    known = np.isfinite(values)
    if known.all():
        return values - middle, np.ones((len(values), 1))
    return np.where(known, values - middle, 0), known.astype(np.float64)
