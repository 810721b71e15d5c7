"""How noisy an image is: its power spectrum, its fall with frequency, and the traces of strides.

Photographs have power spectra near 1 / f**2 (Field 1987, "Relations between the statistics of natural images and the
response properties of cortical cells"); white noise has a flat one. Strides of convolutions and pools leave energy at
multiples of 1 / stride cycles per pixel (Odena et al. 2016, "Deconvolution and checkerboard artifacts").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Window = Literal["hann", "none"]
Power = NDArray[np.float64]

STRIDES = (2, 4, 8, 16, 32)
"""Strides of the layers of common networks, in input pixels."""

LOWEST_CYCLES = 4
"""Cycles per side below which no slope is fitted: a window of the image's size mixes neighboring frequencies."""

HIGHEST = 0.4
"""Cycles per pixel above which no slope is fitted: resizing and JPEG remove energy there."""

TARGET, APART = 1, 3
"""Bins up to TARGET away from a stride's frequency belong to it; bins up to APART count as its neighbors."""

_SPREAD = 35 / 18  # of the variance of sums of bins: a Hann window correlates neighboring bins


def power(picture: NDArray[Any], window: Window = "hann", multiple: int = 1) -> Power:
    """The power spectrum of an image, float64 (height, width), frequencies in numpy's order (`fftfreq`).

    The image is uint8, taken as 0..1, or float, (height, width) or (height, width, channels). The result is the mean
    over the channels of |F|**2 / sum(w**2), so that white noise has its variance at every frequency. If the sides are
    not multiples of `multiple` pixels, the image is cropped to its middle.

    `hann` subtracts each channel's window-weighted mean and multiplies by a periodic Hann window along both axes. The
    step between opposite edges then does not leak into all frequencies, and a pure frequency spreads over 3x3 bins.
    `none` suits images without edges, such as those made on a torus.

    Raises ValueError for an image that is smaller than `multiple` or not finite.
    """
    values = _middle(picture, multiple)
    height, width = values.shape[:2]
    weights = np.ones((height, width, 1))
    if window == "hann":
        weights = (_hann(height)[:, None] * _hann(width)[None, :])[..., None]
    values = values - (values * weights).sum((0, 1)) / weights.sum()
    found = np.abs(np.fft.fft2(values * weights, axes=(0, 1))) ** 2 / (weights**2).sum()
    return found.mean(2)


def mean_power(pictures: Iterable[NDArray[Any]], window: Window = "hann", multiple: int = 1) -> Power:
    """The mean of `power` over images of one size. Raises ValueError without images or for different sizes."""
    found = [power(picture, window, multiple) for picture in pictures]
    if len({one.shape for one in found}) != 1:
        raise ValueError(f"all images must have one size, not {sorted({one.shape for one in found})}")
    return np.mean(found, axis=0)


@dataclass(frozen=True)
class Radial:
    """A power spectrum as a function of frequency alone.

    `frequency` (rings,) in cycles per pixel, ascending, up to 0.5; `power` (rings,); `bins` (rings,) is the number of
    bins. Each ring is as wide as one cycle per shorter side; its frequency and power are the means over its bins.
    """

    frequency: NDArray[np.float64]
    power: NDArray[np.float64]
    bins: NDArray[np.int64]


def radial(spectrum: Power) -> Radial:
    """The spectrum averaged over directions, without the mean and the corners above 0.5 cycles per pixel."""
    distance = _distance(spectrum.shape)
    side = min(spectrum.shape)
    ring = np.rint(distance * side).astype(np.int64)
    kept = (ring >= 1) & (distance <= 0.5)
    count = np.bincount(ring[kept])[1:]
    frequency = np.bincount(ring[kept], distance[kept])[1:] / count
    return Radial(frequency, np.bincount(ring[kept], spectrum[kept])[1:] / count, count)


@dataclass(frozen=True)
class Slope:
    """The exponent of a power law: power ~ frequency**`value`, with its standard `error`.

    Fitted to `rings` rings of frequencies `low` to `high`, in cycles per pixel.
    """

    value: float
    error: float
    low: float
    high: float
    rings: int


def slope(
    spectrum: Power, low: float | None = None, high: float = HIGHEST, window: Window = "hann", pictures: int = 1
) -> Slope:
    """The slope of log power against log frequency, by least squares.

    Rings are weighted by 1 / frequency, so that each octave counts equally. `low` and `high` are in cycles per pixel;
    the default of `low` is `LOWEST_CYCLES` per shorter side.

    The standard error is the larger of two. One comes from the residuals, ring by ring (HC3, MacKinnon & White 1985),
    and detects spectra that are not a power law. The other is the error that noise with exactly this spectrum would
    have, as the mean of `pictures` spectra. There a bin's power varies like an exponential variable, and each bin has a
    mirror image. Under a Hann window (`window` is that of the spectrum) sums of neighbors vary by 35/18 more along each
    axis.

    Raises ValueError for fewer than four rings with energy.
    """
    side = min(spectrum.shape)
    rings = radial(spectrum)
    low = LOWEST_CYCLES / side if low is None else low
    kept = (rings.frequency >= low - 0.5 / side) & (rings.frequency <= high) & (rings.power > 0)
    if kept.sum() < 4:
        raise ValueError(f"a slope from {low:.3f} to {high:.3f} cycles per pixel needs four rings, not {kept.sum()}")
    x, y = np.log(rings.frequency[kept]), np.log(rings.power[kept])
    design = np.stack([np.ones_like(x), x], 1)
    weighted = design / rings.frequency[kept][:, None]
    pull = np.linalg.solve(weighted.T @ design, weighted.T)  # (2, rings): the effect of each ring on offset and slope
    fitted = pull @ y
    leverage = np.einsum("ij,ji->i", design, pull)
    spread = _SPREAD if window == "hann" else 1.0
    seen = spread * (pull[1] * (y - design @ fitted) / (1 - leverage)) ** 2
    expected = spread**2 * pull[1] ** 2 * 2 / rings.bins[kept] / pictures
    error = float(np.sqrt(max(seen.sum(), expected.sum())))
    return Slope(float(fitted[1]), error, float(low), float(high), int(kept.sum()))


def stride_share(spectrum: Power, stride: int) -> float:
    """The energy at the frequencies of a stride, relative to the frequencies around them; 1 means no trace of the
    stride.

    The frequencies of a stride are (j, k) / stride cycles per pixel along (y, x), with whole j and k, without those of
    a smaller stride: stride 4 has the multiples of 1/4 except those of 1/2 and the mean. A pattern that repeats every
    `stride` pixels, and no more often, has its energy there.

    Each frequency takes the 3x3 bins around it, as a Hann window spreads it; its neighbors are the bins at a distance
    of two and three. The spectrum is first divided by its own power law, so that the fall of a photograph's spectrum
    does not count. The share scatters around 1, most for small strides, so average over several images.

    NaN if the sides are too short to separate the frequencies: five cycles per side and stride are needed (160 pixels
    for stride 32). Raises ValueError if a side is not a multiple of the stride (`power` crops).
    """
    rows, columns = _bins_of(stride, spectrum.shape)
    if min(spectrum.shape) < 5 * stride:
        return float("nan")
    flat = _flattened(spectrum)
    inner, outer = _offsets()
    return float(_at(flat, rows, columns, inner).mean() / _at(flat, rows, columns, outer).mean())


def stride_energy(spectrum: Power, stride: int) -> float:
    """The share, 0 to 1, of all energy except the mean's that lies at the frequencies of a stride (see `stride_share`).

    Where a spectrum is almost empty beside a peak, as those of gradients are, the peak's size says more than its height
    above its neighbors. NaN and ValueError as in `stride_share`.
    """
    rows, columns = _bins_of(stride, spectrum.shape)
    if min(spectrum.shape) < 5 * stride:
        return float("nan")
    inner, _ = _offsets()
    return float(_at(spectrum, rows, columns, inner).sum() / (spectrum.sum() - spectrum[0, 0]))


def _middle(picture: NDArray[Any], multiple: int) -> NDArray[np.float64]:
    height, width = (side // multiple * multiple for side in picture.shape[:2])
    if not height or not width:
        raise ValueError(f"an image of shape {picture.shape} is smaller than {multiple} pixels")
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    values = np.atleast_3d(picture[top : top + height, left : left + width]).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("an image with values that are not finite has no spectrum")
    return values / 255 if picture.dtype == np.uint8 else values


def _hann(side: int) -> NDArray[np.float64]:
    """A periodic Hann window: an odd number of points without the last one."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side)


def _distance(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The distance of each bin from the mean, in cycles per pixel."""
    return np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :])


def _flattened(spectrum: Power) -> Power:
    """The spectrum divided by its own power law; the mean becomes 0."""
    distance = _distance(spectrum.shape)
    distance[0, 0] = 1.0
    flat = spectrum / distance ** slope(spectrum).value
    flat[0, 0] = 0.0
    return flat


def _offsets() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets (y, x) of the bins that belong to a frequency, and of the bins that it is compared with."""
    around = np.mgrid[-APART : APART + 1, -APART : APART + 1].reshape(2, -1).T
    near = np.abs(around).max(1) <= TARGET
    return around[near], around[~near]


def _bins_of(stride: int, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the frequencies that belong to a stride and to no smaller one."""
    if stride < 2 or any(side % stride for side in shape):
        raise ValueError(f"a spectrum of {shape} has no bins at multiples of 1/{stride}")
    places = np.array([(j, k) for j in range(stride) for k in range(stride) if gcd(gcd(j, k), stride) == 1])
    rows, columns = (places * (np.array(shape) // stride)).T
    return rows, columns


def _at(
    spectrum: Power, rows: NDArray[np.int64], columns: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The power at each of these bins and offsets: (bins, offsets)."""
    down, across = offsets.T
    height, width = spectrum.shape
    found: NDArray[np.float64] = spectrum[(rows[:, None] + down) % height, (columns[:, None] + across) % width]
    return found


__all__ = [
    "HIGHEST",
    "LOWEST_CYCLES",
    "STRIDES",
    "Power",
    "Radial",
    "Slope",
    "Window",
    "mean_power",
    "power",
    "radial",
    "slope",
    "stride_energy",
    "stride_share",
]
