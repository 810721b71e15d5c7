"""How alike repeats are, in their pixels and in the responses of the layer's other units. NumPy only.

All vectors here have length 1, so their products are cosines.
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
    """Mean cosines of `responses`; None where fewer than two vectors can be compared.

    `repeats` compares the peaks of a synthetic image with one another. `anywhere` compares all places of that image,
    peaks included. `photographs` compares the strongest places of different photographs.
    """

    repeats: float | None
    anywhere: float | None
    photographs: float | None

    @property
    def excess(self) -> float | None:
        """How much more alike the peaks are than any two places of their image."""
        return None if self.repeats is None or self.anywhere is None else self.repeats - self.anywhere

    @classmethod
    def of(cls, peaks: Sequence[Vectors], places: Sequence[Vectors], photographs: Vectors) -> Alike:
        """From the `responses` at the peaks of each image, at all its places, and at one place of each photograph."""
        return cls(_mean([among(one) for one in peaks]), _mean([among(one) for one in places]), among(photographs))


def patches(picture: NDArray[np.uint8], places: NDArray[np.floating], side: int) -> Vectors:
    """Patches of side x side pixels around `places` (peaks, 2), y, x in pixels, on a torus (height, width, 3).

    Each has its mean subtracted, so that cosines are Pearson correlations: (peaks, side * side * 3).
    """
    height, width = picture.shape[:2]
    reach = np.arange(side) - side // 2
    found = [
        picture[(y + reach)[:, None] % height, (x + reach)[None, :] % width].astype(np.float64).ravel()
        for y, x in np.rint(places).astype(int)
    ]
    return _directions(np.array([one - one.mean() for one in found]).reshape(-1, side * side * 3))


def responses(vectors: Float32, center: Float32, channel: int) -> Vectors:
    """The responses of the layer's other units at places: (places, channels - 1). These are the vectors (places,
    channels) minus `center` (channels,), the mean over photographs, without the unit itself, which is high at all its
    peaks."""
    return _directions(np.delete(vectors - center, channel, 1).astype(np.float64))


def among(vectors: Vectors) -> float | None:
    """The mean cosine over all pairs; None for fewer than two vectors, or vectors without components."""
    count = len(vectors)
    if count < 2 or not vectors.size:
        return None
    with_itself = (vectors**2).sum()
    return float(((vectors.sum(0) ** 2).sum() - with_itself) / (count * (count - 1)))


def _directions(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = vectors / np.where(lengths > 0, lengths, 1)
    return found


def _mean(found: Sequence[float | None]) -> float | None:
    there = [value for value in found if value is not None]
    return float(np.mean(there)) if there else None


__all__ = ["Alike", "Vectors", "among", "patches", "responses"]
