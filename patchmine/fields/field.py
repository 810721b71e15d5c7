"""Receptive fields as boxes: of one layer at one input size, and of one layer at every size.

Uses numpy only: the reading side needs it without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchmine.units import Box, Position

FieldStatus = Literal["exact", "whole_input"]

TOKENS = {"grid": "token", "cls": "class token", "reg": "register"}
"""What a place of a layer is called whose output is tokens, by the tokens that the layer reads of it."""

SURROUNDINGS = 3
"""Tokens around a token, on each side, that its picture shows: its own square alone shows nothing that can be named."""


class FieldGroup(NamedTuple):
    """The receptive fields shared by a run of channels [start, stop).

    `rows` is int32 (grid height, 2), `cols` int32 (grid width, 2): for each grid row (column) the half-open interval of
    input rows (columns) that it depends on, exact and clipped to the input.

    `size`, `stride`, and `offset`, each (vertical, horizontal) in input pixels, are the regular form before clipping:
    position y sees [offset + y * stride, offset + y * stride + size). They are None if no regular form exists.
    """

    channels: tuple[int, int]
    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    size: tuple[int, int] | None
    stride: tuple[int, int] | None
    offset: tuple[int, int] | None

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width of the largest clipped field in the group, in input pixels."""
        return (
            int((self.rows[:, 1] - self.rows[:, 0]).max()),
            int((self.cols[:, 1] - self.cols[:, 0]).max()),
        )

    def seen(self, position: Position) -> Box:
        """The box that the position depends on, clipped to the input, in input pixels."""
        (top, bottom), (left, right) = self.rows[position.y].tolist(), self.cols[position.x].tolist()
        return Box(left, top, right, bottom)

    def whole(self, position: Position) -> Box:
        """The receptive field before clipping, in input pixels; the clipped one if no regular form exists."""
        if self.size is None or self.offset is None:
            return self.seen(position)
        down, across = self.stride or (0, 0)
        top, left = self.offset[0] + position.y * down, self.offset[1] + position.x * across
        return Box(left, top, left + self.size[1], top + self.size[0])


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of one layer, for one input size.

    `grid` and `input` are (height, width). The groups cover all channels, in order. Status `whole_input` means that the
    layer depends on something computed from the whole image at once (a gate, attention). `local` then means that the
    groups hold the fields with those gates held constant, instead of the full fields. `tokens` is `grid`, `cls` or
    `reg` if the output is a sequence of tokens, else None. Behind attention a place of the grid is a *token*: it sees
    the whole input, and the groups hold its own square of the grid instead of a field.

    `effective` float32 (distances,) is the effective receptive field: entry r is the share of the gradient's energy
    within the square of half-width r + 0.5 input pixels around the center of the field. None if it was not measured.
    """

    layer: str
    channels: int
    grid: tuple[int, int]
    input: tuple[int, int]
    status: FieldStatus
    groups: tuple[FieldGroup, ...]
    local: bool = False
    effective: NDArray[np.float32] | None = None
    tokens: str | None = None

    @property
    def token(self) -> str | None:
        """What a place is called that sees the whole input by attention: `token`, `class token` or `register`; None
        where it has a receptive field."""
        return TOKENS[self.tokens] if self.tokens is not None and self.status == "whole_input" else None

    @property
    def place_name(self) -> str:
        """What the extent of one place is called: a receptive field or a token."""
        return self.token or "receptive field"

    @property
    def squares(self) -> bool:
        """Whether the groups hold the tokens' own squares of the grid."""
        return self.token is not None and self.local

    def group(self, channel: int) -> FieldGroup:
        for group in self.groups:
            if group.channels[0] <= channel < group.channels[1]:
                return group
        raise ValueError(f"{self.layer} has {self.channels} channels, so channel {channel} does not exist")

    def across_channels(self, units: int) -> ReceptiveField:
        """The field of `units` units, each of which depends on all channels at its place: the hull of their fields."""
        return replace(self, channels=units, groups=(_hull(self.groups, units),))

    def visible(self, channel: int, position: Position) -> float:
        """The share of the receptive field's area that lies inside the input."""
        whole = self.group(channel).whole(position)
        return whole.intersect(Box(0, 0, self.input[1], self.input[0])).area / max(whole.area, 1)

    def center(self, channel: int, position: Position) -> tuple[float, float]:
        """The center (y, x) of the receptive field before clipping; whole numbers are centers of input pixels."""
        whole = self.group(channel).whole(position)
        return (whole.top + whole.bottom - 1) / 2, (whole.left + whole.right - 1) / 2

    def centers(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The middles of the receptive fields: y of each grid row (rows,), x of each grid column (columns,).

        In input pixels from the input's edge, so that the middle of the first pixel is 0.5. Groups of channels with
        different fields have their centers in the same places, give or take a pixel.
        """
        ys = [self.center(0, Position(row, 0))[0] for row in range(self.grid[0])]
        xs = [self.center(0, Position(0, col))[1] for col in range(self.grid[1])]
        return np.array(ys) + 0.5, np.array(xs) + 0.5

    def effective_box(self, channel: int, position: Position, share: float) -> Box | None:
        """The square around the center that holds `share` (0 to 1) of the gradient's energy, in input pixels.

        It may extend beyond the input, but never beyond a receptive field. None if it was not measured.
        """
        if self.effective is None:
            return None
        distance = self._distance(share)
        y, x = self.center(channel, position)
        square = Box(floor(x - distance), floor(y - distance), ceil(x + distance) + 1, ceil(y + distance) + 1)
        return square if self.squares else square.intersect(self.group(channel).whole(position))

    def reached(self, channel: int, position: Position) -> Box:
        """All that the position depends on, clipped to the input, in input pixels: for a token the whole input."""
        return Box(0, 0, self.input[1], self.input[0]) if self.squares else self.group(channel).seen(position)

    def surroundings(self, channel: int, position: Position) -> Box:
        """The square of a token with SURROUNDINGS tokens on each side, moved into the input, in input pixels."""
        square, (height, width) = self.group(channel).seen(position), self.input
        across, down = (
            min((2 * SURROUNDINGS + 1) * side, most) for side, most in ((square.width, width), (square.height, height))
        )
        left = min(max(0, (square.left + square.right - across) // 2), width - across)
        top = min(max(0, (square.top + square.bottom - down) // 2), height - down)
        return Box(left, top, left + across, top + down)

    def effective_size(self, share: float) -> int | None:
        """The width in input pixels of the square that holds `share` of the energy, or None if it was not measured."""
        return None if self.effective is None else 2 * self._distance(share) + 1

    def _distance(self, share: float) -> int:
        assert self.effective is not None
        return int(np.searchsorted(self.effective, min(share, float(self.effective[-1]))))

    def inside(self, group: FieldGroup) -> float:
        """The share of positions whose receptive field lies entirely inside the input."""
        height, width = self.grid
        frame = Box(0, 0, self.input[1], self.input[0])
        cells = [Position(y, x) for y in range(height) for x in range(width)]
        return sum(frame.contains(group.whole(cell)) for cell in cells) / len(cells)

    def as_dict(self) -> dict[str, Any]:
        """One entry of `layers` in the JSON output of `patchmine rf`."""
        return {
            "layer": self.layer,
            "channels": self.channels,
            "grid": list(self.grid),
            "status": self.status,
            "local": self.local,
            **({} if self.tokens is None else {"tokens": self.tokens}),
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
            tokens=data.get("tokens"),
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


class FieldsBySize(NamedTuple):
    """The receptive fields of one layer for every input size that occurs among the photographs.

    A row's field depends only on the height of the input, and a column's only on its width. So `entries` need to cover
    every height and every width, not every combination.
    """

    entries: tuple[ReceptiveField, ...]

    @property
    def nominal(self) -> ReceptiveField:
        """The receptive field for the size at which the network was analyzed beforehand."""
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
    """The rows of `tall` combined with the columns of `wide`."""
    if tall.channels != wide.channels:
        raise ValueError(f"groups {tall.channels} and {wide.channels} cover different channels")

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


def _hull(groups: Sequence[FieldGroup], units: int) -> FieldGroup:
    """The smallest fields that contain those of all groups. A place that sees nothing, [0, 0), adds nothing."""

    def ends(lines: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        both = np.stack(lines)
        sees = both[..., 1] > both[..., 0]
        low = np.where(sees, both[..., 0], np.iinfo(np.int32).max).min(axis=0)
        high = np.where(sees, both[..., 1], 0).max(axis=0)
        return np.stack([np.minimum(low, high), high], axis=1).astype(np.int32)

    regular = [(g.size, g.stride, g.offset) for g in groups if g.size and g.stride and g.offset]
    size = stride = offset = None
    if len(regular) == len(groups) and len({step for _, step, _ in regular}) == 1:
        stride = regular[0][1]
        starts = [min(start[axis] for _, _, start in regular) for axis in (0, 1)]
        stops = [max(start[axis] + extent[axis] for extent, _, start in regular) for axis in (0, 1)]
        offset, size = (starts[0], starts[1]), (stops[0] - starts[0], stops[1] - starts[1])
    rows, cols = ends([group.rows for group in groups]), ends([group.cols for group in groups])
    return FieldGroup((0, units), rows, cols, size, stride, offset)


def covering(sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The fewest sizes (height, width) that cover every height and every width of `sizes`."""
    pairs = set(sizes)
    heights, widths = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})
    longest = max(len(heights), len(widths))
    return [(heights[i % len(heights)], widths[i % len(widths)]) for i in range(longest)]


def _listed(pair: tuple[int, int] | None) -> list[int] | None:
    return None if pair is None else [int(pair[0]), int(pair[1])]


def _paired(pair: Any) -> tuple[int, int] | None:
    return None if pair is None else (int(pair[0]), int(pair[1]))


def cells_between(centers: NDArray[np.float64], start: float, stop: float) -> NDArray[np.int64]:
    """The cells along one side of a grid whose center lies in [start, stop), else the one nearest to its middle."""
    inside = np.flatnonzero((start <= centers) & (centers < stop))
    return inside if len(inside) else np.array([np.abs(centers - (start + stop) / 2).argmin()])
