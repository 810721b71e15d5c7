"""Where a photograph lies in the input: preprocessing as numbers, input pixels to source pixels, what a tile shows.

Standard library only: the reading side uses this without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any, Literal, NamedTuple

from patchmine.errors import RequestError
from patchmine.system import digests
from patchmine.units import Box

# Half-width of the resize kernels in output pixels, as in torch's antialiased interpolation.
FILTER_REACH = {"bilinear": 1.0, "bicubic": 2.0}

TRIM = 32
"""Photographs seen whole are trimmed to a multiple of this many input pixels: the stride of common networks. This keeps
the number of different sizes small, and padding that depends on the size modulo the stride is equal in all of them."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the input: resize, crop at the center, normalize.

    `resize` is the length of the short side after resizing, in pixels, or the (height, width) to squash to. `crop` is
    the (height, width) of the input. `mean` and `std` are per channel, for values in 0..1.

    With `view` "pad" the whole photograph is fitted into the input instead, with its aspect ratio kept; the rest is
    filled with the mean. With "whole" the input is the photograph at its own size, trimmed to a multiple of TRIM;
    `crop` is then only the size for which the network is analyzed beforehand.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    view: str = "crop"

    def place(self, width: int, height: int) -> Placement:
        """Where a photograph of this size (after EXIF orientation) lies in the input. Raises RequestError if it is too
        small."""
        if width < 1 or height < 1:
            raise RequestError(f"a photograph of {width}x{height} pixels has no area")
        crop_height, crop_width = self.crop
        if self.view == "whole":
            if min(width, height) < TRIM:
                raise RequestError(f"a photograph of {width}x{height} pixels is smaller than {TRIM} pixels")
            resized = (width, height)
            crop_width, crop_height = (length // TRIM * TRIM for length in resized)
        elif self.view == "pad":
            scale = min(crop_width / width, crop_height / height)
            resized = (max(1, round(width * scale)), max(1, round(height * scale)))
        elif isinstance(self.resize, int):
            # Truncate the long side instead of rounding: torchvision's Resize does so, and every published accuracy
            # with it.
            if width <= height:
                resized = (self.resize, max(1, int(self.resize * height / width)))
            else:
                resized = (max(1, int(self.resize * width / height)), self.resize)
        else:
            resized = (self.resize[1], self.resize[0])
        # round() rounds half to even, as torchvision's CenterCrop does.
        left, top = round((resized[0] - crop_width) / 2), round((resized[1] - crop_height) / 2)
        return Placement(
            source=(width, height),
            resized=resized,
            left=left,
            top=top,
            input=(crop_width, crop_height),
            reach=FILTER_REACH[self.interpolation],
        )

    def as_dict(self) -> dict[str, Any]:
        """Its fields by name; one added after format 1 is left out at its default, as `Job` does it."""
        return digests.described(self, always=("view",))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Preprocessing:
        resize = data["resize"]
        return cls(
            resize=resize if isinstance(resize, int) else (int(resize[0]), int(resize[1])),
            crop=(int(data["crop"][0]), int(data["crop"][1])),
            interpolation=data["interpolation"],
            mean=_three(data["mean"]),
            std=_three(data["std"]),
            view=data["view"],
        )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


class Placement(NamedTuple):
    """How one photograph maps to the input. All pairs are (width, height).

    Input pixel x shows resized pixel x + left; input pixels outside the resized image are padding.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    left: int
    top: int
    input: tuple[int, int]
    reach: float

    @property
    def picture(self) -> Box:
        """The part of the input that shows the photograph, in input pixels."""
        return Box(0, 0, *self.input).intersect(
            Box(-self.left, -self.top, self.resized[0] - self.left, self.resized[1] - self.top)
        )

    def to_source(self, input_box: Box) -> Box:
        """The source pixels that determine the input pixels in `input_box`; parts outside the photograph are clipped.

        Exact for torch's antialiased resize: output pixel i depends on the source pixels [int(c - r + 0.5), int(c + r +
        0.5)) around c = (i + 0.5) * scale, where r is the filter's reach times max(scale, 1).
        """
        inside = input_box.intersect(self.picture)
        if not inside.area:
            return Box(0, 0, 0, 0)
        left, right = self._axis(inside.left + self.left, inside.right + self.left, 0)
        top, bottom = self._axis(inside.top + self.top, inside.bottom + self.top, 1)
        return Box(left, top, right, bottom)

    def to_input(self, source_box: Box) -> tuple[float, float, float, float]:
        """Where source pixels lie in the input: left, top, right, bottom in input pixels, not rounded."""
        across, down = (self.resized[axis] / self.source[axis] for axis in (0, 1))
        left, top, right, bottom = source_box.as_tuple()
        return (
            left * across - self.left,
            top * down - self.top,
            right * across - self.left,
            bottom * down - self.top,
        )

    def _axis(self, start: int, stop: int, axis: int) -> tuple[int, int]:
        scale = self.source[axis] / self.resized[axis]
        reach = self.reach * max(scale, 1.0)
        low = floor((start + 0.5) * scale - reach + 0.5)
        high = floor((stop - 0.5) * scale + reach + 0.5)
        return max(low, 0), min(high, self.source[axis])


class View(NamedTuple):
    """The content of one tile of a sheet, in input pixels.

    `window` is the tile's frame. `shown` is the part of the picture that is drawn; the rest of the frame is padding
    or outside the receptive field. `outlines` are drawn as rectangles; None takes a place, and with it a color, but
    draws nothing. Outside of `lit`, if given, the picture is faded.
    """

    window: Box
    shown: Box
    outlines: tuple[Box | None, ...] = ()
    lit: Box | None = None
