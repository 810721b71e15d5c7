"""Peaks of a unit's activation map: positions, number, spacing, and regularity. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32

SHARE = 0.5
"""The share of the map's maximum that a peak must reach."""

APART = 0.25
"""The least distance of two peaks, as a share of the field's side."""


@dataclass(frozen=True)
class Peaks:
    """Local maxima, the highest first: cells int64 (peaks, 2) as y, x, and values float32 (peaks,).

    Cells are whole numbers: a map has no values between them. `wraps` says whether the map is a torus.
    """

    cells: NDArray[np.int64]
    values: Float32
    grid: tuple[int, int]
    wraps: bool

    def __len__(self) -> int:
        return len(self.cells)

    def nearest(self) -> NDArray[np.float64]:
        """The distance from each peak to its nearest neighbor, in cells (peaks,); empty for fewer than two peaks."""
        if len(self) < 2:
            return np.zeros(0)
        apart = np.stack([_distances(cell, self.cells, self.grid, self.wraps) for cell in self.cells])
        np.fill_diagonal(apart, np.inf)
        return apart.min(1)


def peaks(
    activations: Float32, apart: float, *, wraps: bool = False, share: float = SHARE, reference: float | None = None
) -> Peaks:
    """Local maxima of a map (grid height, grid width) that reach `share` of its maximum.

    A peak is no lower than its eight neighbors. Of two peaks closer than `apart` cells the lower is left out; of
    equals, the later one in row order. Returns no peaks if the maximum is not above 0 or stays below `share` of
    `reference`, because the unit is then not driven at all.
    """
    grid = (activations.shape[0], activations.shape[1])
    top = float(activations.max())
    found: list[NDArray[np.int64]] = []
    if np.isfinite(top) and top > 0 and (reference is None or top >= share * reference):
        candidates = np.argwhere(_local_maxima(activations, wraps) & (activations >= share * top))
        order = np.argsort(-activations[candidates[:, 0], candidates[:, 1]], kind="stable")
        for cell in candidates[order]:
            if not found or _distances(cell, np.array(found), grid, wraps).min() >= max(apart, 1.5):
                found.append(cell)
    cells = np.array(found, np.int64).reshape(-1, 2)
    return Peaks(cells, activations[cells[:, 0], cells[:, 1]].astype(np.float32), grid, wraps)


def _local_maxima(activations: Float32, wraps: bool) -> NDArray[np.bool_]:
    around = np.pad(activations, 1, mode="wrap") if wraps else np.pad(activations, 1, constant_values=-np.inf)
    height, width = activations.shape
    shifts = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return np.all([activations >= around[y : y + height, x : x + width] for y, x in shifts], axis=0)


def _distances(
    cell: NDArray[np.int64], others: NDArray[np.int64], grid: tuple[int, int], wraps: bool
) -> NDArray[np.float64]:
    away = np.abs(others - cell)
    if wraps:
        away = np.minimum(away, np.array(grid) - away)
    found: NDArray[np.float64] = np.hypot(away[:, 0], away[:, 1])
    return found


@dataclass(frozen=True)
class Period:
    """The shift at which a map or image is most similar to itself: y, x in cells or pixels, and the similarity (1:
    identical)."""

    shift: tuple[int, int]
    strength: float

    @property
    def length(self) -> float:
        return float(np.hypot(*self.shift))


def period(values: NDArray[np.floating], least: float) -> Period | None:
    """The strongest peak of the autocorrelation of (height, width) at shifts of at least `least`; None if none is above
    0.

    Uses the FFT, which treats the array as a torus: for a synthetic image on another canvas the seam counts too. The
    correlation is Pearson's.
    """
    centered = values - values.mean()
    power = np.abs(np.fft.fft2(centered)) ** 2
    if not power.sum() > 0:
        return None
    correlation = np.fft.ifft2(power).real
    correlation /= correlation[0, 0]
    height, width = correlation.shape
    down = np.minimum(np.arange(height), height - np.arange(height))[:, None]
    across = np.minimum(np.arange(width), width - np.arange(width))[None, :]
    allowed = _local_maxima(correlation.astype(np.float32), True) & (np.hypot(down, across) >= max(least, 1.0))
    if not allowed.any():
        return None
    y, x = np.unravel_index(int(np.where(allowed, correlation, -np.inf).argmax()), correlation.shape)
    strength = float(correlation[y, x])
    signed = (int(y) - height * (y > height // 2), int(x) - width * (x > width // 2))
    return Period((int(signed[0]), int(signed[1])), strength) if strength > 0 else None


def scrambled(values: NDArray[np.floating], generator: np.random.Generator) -> Float32:
    """A map (height, width) with the same power spectrum and mean but random phases: the effect of the spectrum alone.

    A two-dimensional surrogate as in Theiler et al. 1992, "Testing for nonlinearity in time series".
    """
    spectrum = np.fft.rfft2(values)
    noise = np.fft.rfft2(generator.standard_normal(values.shape))
    turned = np.abs(spectrum) * noise / np.maximum(np.abs(noise), 1e-30)
    turned[0, 0] = spectrum[0, 0]
    found: Float32 = np.fft.irfft2(turned, s=values.shape).astype(np.float32)
    return found


__all__ = ["APART", "SHARE", "Peaks", "Period", "peaks", "period", "scrambled"]
