"""Where things are: preprocessing as numbers, receptive fields as boxes, input pixels to source pixels.

numpy only: the reading side uses this without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import RequestError
from patchmine.system import digests
from patchmine.units import Box, Position

# Half-width of the resize kernels in units of the output pixel, as torch's antialiased interpolation uses them.
FILTER_REACH = {"bilinear": 1.0, "bicubic": 2.0}

TRIM = 32
"""Photographs seen whole are trimmed to a multiple of this many pixels: the stride of the usual networks. So there are
few different sizes, and padding that depends on the size modulo the stride is the same in all of them."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the input: resize, crop at the centre, normalise.

    `resize` is the length of the short side after resizing, in pixels, or (height, width) to squash to.
    `crop` is (height, width) of the input. `mean` and `std` are per channel, for values in 0..1. With `view` "pad" the
    whole photograph is fitted into the input instead, its proportions kept, and the rest is filled with the mean. With
    "whole" the input is the photograph in its own size, but for the edges over a multiple of TRIM; `crop` is then only
    the size at which the network is looked at beforehand.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    view: str = "crop"

    def place(self, width: int, height: int) -> Placement:
        """Where a photograph of this size (after EXIF orientation) comes to lie."""
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
            # The long side is truncated, not rounded: torchvision's Resize does, and every published accuracy with it.
            if width <= height:
                resized = (self.resize, max(1, int(self.resize * height / width)))
            else:
                resized = (max(1, int(self.resize * width / height)), self.resize)
        else:
            resized = (self.resize[1], self.resize[0])
        # round() halves to even, as torchvision's CenterCrop does.
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


@dataclass(frozen=True)
class Placement:
    """One photograph's way into the input. All pairs are (width, height).

    Input pixel x shows resized pixel x + left; where that is outside the resized picture, the input is padding.
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
        """The source pixels that the input pixels in `input_box` are computed from; parts outside are clipped.

        Exact for torch's antialiased resize: output pixel i draws on the source pixels
        [int(c - r + 0.5), int(c + r + 0.5)) around c = (i + 0.5) * scale, where r is the filter's reach times
        max(scale, 1).
        """
        inside = input_box.intersect(self.picture)
        if not inside.area:
            return Box(0, 0, 0, 0)
        left, right = self._axis(inside.left + self.left, inside.right + self.left, 0)
        top, bottom = self._axis(inside.top + self.top, inside.bottom + self.top, 1)
        return Box(left, top, right, bottom)

    def _axis(self, start: int, stop: int, axis: int) -> tuple[int, int]:
        scale = self.source[axis] / self.resized[axis]
        reach = self.reach * max(scale, 1.0)
        low = floor((start + 0.5) * scale - reach + 0.5)
        high = floor((stop - 0.5) * scale + reach + 0.5)
        return max(low, 0), min(high, self.source[axis])


FieldStatus = Literal["exact", "whole_input"]


@dataclass(frozen=True)
class FieldGroup:
    """The receptive fields of a run of channels [start, stop) that share them.

    `rows` is int32 (grid height, 2), `cols` int32 (grid width, 2): for each grid row (column) the half-open
    interval of input rows (columns) that it depends on, exact and clipped to the input. `size`, `stride` and
    `offset`, each (vertical, horizontal) in input pixels, are the regular form before clipping: position y sees
    [offset + y * stride, offset + y * stride + size). They are None where there is no such form.
    """

    channels: tuple[int, int]
    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    size: tuple[int, int] | None
    stride: tuple[int, int] | None
    offset: tuple[int, int] | None

    def seen(self, position: Position) -> Box:
        """What the position depends on, clipped to the input, in input pixels."""
        (top, bottom), (left, right) = self.rows[position.y].tolist(), self.cols[position.x].tolist()
        return Box(left, top, right, bottom)

    def whole(self, position: Position) -> Box:
        """The receptive field before clipping, in input pixels; the clipped one where there is no regular form."""
        if self.size is None or self.offset is None:
            return self.seen(position)
        down, across = self.stride or (0, 0)
        top, left = self.offset[0] + position.y * down, self.offset[1] + position.x * across
        return Box(left, top, left + self.size[1], top + self.size[0])


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of one layer, for one input size.

    `grid` and `input` are (height, width). Groups cover all channels, in order. `whole_input` says that something
    computed from the whole picture at once takes part (a gate, attention); then `local` says that the groups hold
    the fields with that held constant, instead of the full ones.

    `effective` float32 (distances,) is where the layer really looks: entry r is the share of the gradient's energy
    within the square of half-width r + 0.5 input pixels around the centre of the field. None where not measured.
    """

    layer: str
    channels: int
    grid: tuple[int, int]
    input: tuple[int, int]
    status: FieldStatus
    groups: tuple[FieldGroup, ...]
    local: bool = False
    effective: NDArray[np.float32] | None = None

    def group(self, channel: int) -> FieldGroup:
        for group in self.groups:
            if group.channels[0] <= channel < group.channels[1]:
                return group
        raise ValueError(f"{self.layer} has {self.channels} channels, not {channel}")

    def visible(self, channel: int, position: Position) -> float:
        """The share of the receptive field's area that lies inside the input."""
        whole = self.group(channel).whole(position)
        return whole.intersect(Box(0, 0, self.input[1], self.input[0])).area / max(whole.area, 1)

    def centre(self, channel: int, position: Position) -> tuple[float, float]:
        """The middle (y, x) of the receptive field before clipping; whole numbers are centres of input pixels."""
        whole = self.group(channel).whole(position)
        return (whole.top + whole.bottom - 1) / 2, (whole.left + whole.right - 1) / 2

    def effective_box(self, channel: int, position: Position, share: float) -> Box | None:
        """The square around the centre that holds `share` (0 to 1) of the gradient's energy, in input pixels.

        It may reach beyond the input, and never beyond the receptive field. None where it has not been measured.
        """
        if self.effective is None:
            return None
        distance = self._distance(share)
        y, x = self.centre(channel, position)
        square = Box(floor(x - distance), floor(y - distance), ceil(x + distance) + 1, ceil(y + distance) + 1)
        return square.intersect(self.group(channel).whole(position))

    def effective_size(self, share: float) -> int | None:
        """The width in input pixels of the square that holds `share` of the energy; None where not measured."""
        return None if self.effective is None else 2 * self._distance(share) + 1

    def _distance(self, share: float) -> int:
        assert self.effective is not None
        return int(np.searchsorted(self.effective, min(share, float(self.effective[-1]))))

    def inside(self, group: FieldGroup) -> float:
        """The share of positions whose receptive field lies wholly inside the input."""
        height, width = self.grid
        frame = Box(0, 0, self.input[1], self.input[0])
        cells = [Position(y, x) for y in range(height) for x in range(width)]
        return sum(frame.contains(group.whole(cell)) for cell in cells) / len(cells)

    def as_dict(self) -> dict[str, Any]:
        """One entry of `layers` in the JSON of `patchmine rf`."""
        return {
            "layer": self.layer,
            "channels": self.channels,
            "grid": list(self.grid),
            "status": self.status,
            "local": self.local,
            "groups": [
                {
                    "channels": list(group.channels),
                    "size": _listed(group.size),
                    "stride": _listed(group.stride),
                    "offset": _listed(group.offset),
                    "rows": group.rows.tolist(),
                    "cols": group.cols.tolist(),
                }
                for group in self.groups
            ],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], input_size: tuple[int, int]) -> ReceptiveField:
        return cls(
            layer=str(data["layer"]),
            channels=int(data["channels"]),
            grid=(int(data["grid"][0]), int(data["grid"][1])),
            input=input_size,
            status=data["status"],
            local=bool(data.get("local", False)),
            groups=tuple(
                FieldGroup(
                    channels=(int(group["channels"][0]), int(group["channels"][1])),
                    rows=np.asarray(group["rows"], np.int32).reshape(-1, 2),
                    cols=np.asarray(group["cols"], np.int32).reshape(-1, 2),
                    size=_paired(group["size"]),
                    stride=_paired(group["stride"]),
                    offset=_paired(group["offset"]),
                )
                for group in data["groups"]
            ),
        )


@dataclass(frozen=True)
class FieldsBySize:
    """The receptive fields of one layer for every input size that the photographs have.

    What a row sees depends on the height of the input alone and what a column sees on its width, so `entries` need
    not hold every size, but every height and every width.
    """

    entries: tuple[ReceptiveField, ...]

    @property
    def nominal(self) -> ReceptiveField:
        """That of the size which the network was looked at beforehand."""
        return self.entries[0]

    def at(self, size: tuple[int, int]) -> ReceptiveField:
        """The receptive field for an input of (height, width). Raises KeyError for a size that is not covered."""
        by_size = {entry.input: entry for entry in self.entries}
        if size in by_size:
            return by_size[size]
        tall = next((entry for entry in self.entries if entry.input[0] == size[0]), None)
        wide = next((entry for entry in self.entries if entry.input[1] == size[1]), None)
        if tall is None or wide is None:
            raise KeyError(size)
        groups = tuple(_crossed(above, beside) for above, beside in zip(tall.groups, wide.groups, strict=True))
        return replace(tall, grid=(tall.grid[0], wide.grid[1]), input=size, groups=groups)


def _crossed(tall: FieldGroup, wide: FieldGroup) -> FieldGroup:
    """Rows of the one, columns of the other."""
    if tall.channels != wide.channels:
        raise ValueError(f"groups {tall.channels} and {wide.channels} are not of the same channels")

    def cross(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
        return None if a is None or b is None else (a[0], b[1])

    return FieldGroup(
        tall.channels,
        tall.rows,
        wide.cols,
        cross(tall.size, wide.size),
        cross(tall.stride, wide.stride),
        cross(tall.offset, wide.offset),
    )


def covering(sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """As few sizes (height, width) as hold every height and every width of `sizes`."""
    pairs = set(sizes)
    heights, widths = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})
    longest = max(len(heights), len(widths))
    return [(heights[i % len(heights)], widths[i % len(widths)]) for i in range(longest)]


def _listed(pair: tuple[int, int] | None) -> list[int] | None:
    return None if pair is None else [int(pair[0]), int(pair[1])]


def _paired(pair: Any) -> tuple[int, int] | None:
    return None if pair is None else (int(pair[0]), int(pair[1]))
