"""Unit, Position, Box and Patch: the words that every other module speaks.

Boxes are half-open, in the order left, top, right, bottom. A box in *input pixels* lies in the tensor that
the network sees; a box in *source pixels* lies in the original photograph after its EXIF orientation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchmine.errors import PatchmineError, UnitError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, order=True, slots=True)
class Unit:
    """One channel of one layer. `str(unit)` is the canonical `LAYER:CHANNEL`."""

    layer: str
    channel: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}"


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """One cell of a layer's grid."""

    y: int
    x: int


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open rectangle of whole pixels. Which pixels, the name of the variable says."""

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
        """What both hold; of area 0 where they do not meet."""
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
        return {"left": self.left, "top": self.top, "right": self.right, "bottom": self.bottom}


@dataclass(frozen=True)
class Patch:
    """The place in a photograph that drove a unit, with the rank it takes in the answer that holds it.

    `input_box` is the whole receptive field in input pixels and may reach beyond the input. `box` is its part
    inside the picture that the network saw, in source pixels, widened by the reach of the resize filter:
    nothing outside `box` can change `value`. `visible` is the share of the receptive field's area that lay
    inside the input.
    """

    unit: Unit
    rank: int
    value: float
    image: str
    image_id: int
    class_name: str | None
    position: Position
    visible: float
    input_box: Box
    box: Box
    cutter: Callable[[Patch], Image] | None = field(default=None, repr=False, compare=False)

    def crop(self) -> Image:
        """The pixels inside `box`, at the photograph's full resolution, as a Pillow RGB image.

        Raises PhotographError when the photograph can no longer be read.
        """
        if self.cutter is None:
            raise UnitError(f"this patch of {self.image!r} is not attached to an index, so it cannot be cut out")
        return self.cutter(self)

    def as_dict(self) -> dict[str, Any]:
        """The patch as the command line's JSON contract writes it."""
        return {
            "rank": self.rank,
            "value": self.value,
            "image": self.image,
            "image_id": self.image_id,
            "class": self.class_name,
            "position": {"y": self.position.y, "x": self.position.x},
            "visible": round(self.visible, 6),
            "input_box": self.input_box.as_dict(),
            "box": self.box.as_dict(),
        }

    @property
    def caption(self) -> str:
        return f"#{self.rank} · {self.value:.3g}" + (f" · {self.class_name}" if self.class_name else "")

    def _repr_png_(self) -> bytes | None:
        """For notebooks; None, which is no picture, where the photograph cannot be read any more."""
        from io import BytesIO

        buffer = BytesIO()
        try:
            self.crop().save(buffer, "PNG")
        except PatchmineError:
            return None
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        return thumbnail_html(self)


def thumbnail_html(patch: Patch, height_px: int = 128) -> str:
    """A figure element with the crop inlined as a JPEG of twice that height at most, for notebooks.

    Where the photograph cannot be read any more, it says why.
    """
    from html import escape

    from patchmine.system.printable import printable

    try:
        shown = f'<img src="data:image/jpeg;base64,{_thumbnail(patch, 2 * height_px)}" style="height:{height_px}px">'
    except PatchmineError as error:
        reason = escape(printable(str(error)))
        shown = f'<p style="height:{height_px}px;width:{height_px}px;margin:0;overflow:hidden;color:#a00">{reason}</p>'
    title = escape(printable(f"{patch.image} {patch.box.as_tuple()}"), quote=True)
    return (
        f'<figure style="display:inline-block;margin:4px;text-align:center" title="{title}">'
        f"{shown}<figcaption>{escape(printable(patch.caption))}</figcaption></figure>"
    )


def _thumbnail(patch: Patch, height_px: int) -> str:
    """The crop, no higher than that, as a JPEG in base64."""
    from base64 import b64encode
    from io import BytesIO

    crop, buffer = patch.crop(), BytesIO()
    if crop.height > height_px:
        crop = crop.resize((max(1, round(crop.width * height_px / crop.height)), height_px), reducing_gap=3.0)
    crop.save(buffer, "JPEG", quality=90)
    return b64encode(buffer.getvalue()).decode("ascii")
