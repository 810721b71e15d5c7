"""How alike repeats are: in their pixels, and in what the other units of the layer make of them. NumPy only.

Vectors here have length 1, so that their products are cosines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Alike:
    """Mean cosines of `responses`; None where there are no two to compare.

    `repeats`: of the peaks of one synthetic image with one another; `images`: with those of the images that began in
    other noise. `photographs`: of the strongest places of different photographs. `both`: of the peaks with those.
    """

    repeats: float | None
    images: float | None
    photographs: float | None
    both: float | None

    @classmethod
    def of(cls, synthetic: Sequence[Vectors], photographs: Vectors) -> Alike:
        """Of the `responses` at the peaks of each synthetic image, and at one place of each photograph."""
        others = [between(one, other) for n, one in enumerate(synthetic) for other in synthetic[n + 1 :]]
        return cls(
            repeats=_mean([among(one) for one in synthetic]),
            images=_mean(others),
            photographs=among(photographs),
            both=_mean([between(one, photographs) for one in synthetic]),
        )


def patches(picture: NDArray[np.uint8], places: NDArray[np.floating], side: int) -> Vectors:
    """Those of side x side pixels around `places` (peaks, 2), y, x in pixels, of a torus (height, width, 3).

    Less their means, so that cosines are Pearson's correlations: (peaks, side * side * 3).
    """
    height, width = picture.shape[:2]
    reach = np.arange(side) - side // 2
    found = [
        picture[(y + reach)[:, None] % height, (x + reach)[None, :] % width].astype(np.float64).ravel()
        for y, x in np.rint(places).astype(int)
    ]
    return _directions(np.array([one - one.mean() for one in found]).reshape(-1, side * side * 3))


def responses(maps: Float32, cells: NDArray[np.int64], channel: int) -> Vectors:
    """What the layer does at `cells` (n, 2) of its maps (channels, grid height, grid width): (n, channels - 1).

    Less the mean over all cells, so that it is what sets a place apart from the rest of its picture, and without the
    unit itself, which is high at all its peaks.
    """
    found = maps[:, cells[:, 0], cells[:, 1]].T - maps.mean((1, 2))
    return _directions(np.delete(found, channel, 1).astype(np.float64))


def among(vectors: Vectors) -> float | None:
    """The mean cosine over all pairs; None for fewer than two, and for vectors of no numbers."""
    count = len(vectors)
    if count < 2 or not vectors.size:
        return None
    cosines = vectors @ vectors.T
    return float((cosines.sum() - np.trace(cosines)) / (count * (count - 1)))


def between(one: Vectors, other: Vectors) -> float | None:
    """The mean cosine over all pairs of which one is of each; None where either has none."""
    return float((one @ other.T).mean()) if one.size and other.size else None


def _directions(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = vectors / np.where(lengths > 0, lengths, 1)
    return found


def _mean(found: Sequence[float | None]) -> float | None:
    there = [value for value in found if value is not None]
    return float(np.mean(there)) if there else None


__all__ = ["Alike", "Vectors", "among", "between", "patches", "responses"]
