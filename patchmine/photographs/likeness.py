"""Find photographs that are nearly the same: re-encoded, resized or mirrored copies of one another.

This is a difference hash: the photograph is shrunk to 16 rows of 17 grays, and each bit says whether one gray is
lighter than its left neighbor. A copy that is cropped, even by a few percent, is not recognized.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchmine.photographs.upright import upright

SIDE = 16
NEARLY = SIDE * SIDE // 8
"""Maximum number of bits in which two nearly identical photographs differ."""

_DRAFT = 8 * SIDE  # minimum side, in pixels, to which a JPEG is decoded: much faster than full size


@dataclass(frozen=True)
class Likeness:
    """The hash of a photograph and of its mirror image, both bool (SIDE * SIDE,)."""

    bits: NDArray[np.bool_]
    mirrored: NDArray[np.bool_]

    def nearly(self, other: Likeness) -> bool:
        """Whether they are nearly the same photograph, mirrored or not."""
        return min(_differing(self.bits, other.bits), _differing(self.mirrored, other.bits)) <= NEARLY


def likeness(data: bytes) -> Likeness:
    """The hash of a photograph's bytes. Raises PhotographError if they are not a picture."""
    small = upright(data, at_least=_DRAFT).convert("L")
    gray = np.asarray(small.resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.int16)
    return Likeness(_rises(gray), _rises(gray[:, ::-1]))


def _rises(gray: NDArray[np.int16]) -> NDArray[np.bool_]:
    return (gray[:, 1:] > gray[:, :-1]).ravel()


def _differing(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    return int((one != other).sum())
