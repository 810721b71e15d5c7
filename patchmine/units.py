"""Unit, Position and Box: the vocabulary of every other module.

Boxes are half-open, in the order left, top, right, bottom. A box in *input pixels* lies in the tensor that
the network sees; a box in *source pixels* lies in the original photograph, with its EXIF orientation applied.
"""

from __future__ import annotations

from typing import NamedTuple


class Unit(NamedTuple):
    """One channel of one layer. `str(unit)` is the canonical `LAYER:CHANNEL`."""

    layer: str
    channel: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}"


class Position(NamedTuple):
    """One cell of a layer's grid."""

    y: int
    x: int


class Box(NamedTuple):
    """A half-open rectangle of whole pixels. The name of the variable says in which pixel space."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def area(self) -> int:
        return max(self.width, 0) * max(self.height, 0)

    def intersect(self, other: Box) -> Box:
        """The overlap of both boxes; a box of area 0 if they do not overlap."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        return Box(left, top, max(left, min(self.right, other.right)), max(top, min(self.bottom, other.bottom)))

    def contains(self, other: Box) -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.right >= other.right
            and self.bottom >= other.bottom
        )

    def as_tuple(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.right, self.bottom

    def as_dict(self) -> dict[str, int]:
        return self._asdict()
