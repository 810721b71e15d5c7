"""Places a synthetic image in the network's input, at the scale of the patches beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from patchmine.errors import RequestError
from patchmine.fields.field import ReceptiveField
from patchmine.units import Box, Position


@dataclass(frozen=True)
class Canvas:
    """The network's input: `size` (height, width) in pixels.

    `window` is the part of the input that holds the image, in input pixels; None is all of it. The rest is the gray
    that normalization maps to 0. `position` is where an objective of one position reads the unit; None is the middle of
    the grid.
    """

    size: tuple[int, int]
    window: Box | None = None
    position: Position | None = None

    @property
    def picture(self) -> Box:
        return Box(0, 0, self.size[1], self.size[0]) if self.window is None else self.window

    def as_dict(self) -> dict[str, Any]:
        place = self.position
        return {
            "size": list(self.size),
            "window": self.picture.as_dict(),
            "position": None if place is None else {"y": place.y, "x": place.x},
        }


def whole(size: tuple[int, int], side: int | None = None) -> Canvas:
    """A canvas filled by the image: the network's input size, or a square of `side` pixels."""
    return Canvas(size if side is None else (side, side))


def of_field(
    field: ReceptiveField,
    channel: int,
    side: int | None = None,
    share: float | None = None,
    at: Callable[[tuple[int, int]], ReceptiveField] | None = None,
) -> Canvas:
    """The canvas of a unit at one position: the position whose field center is nearest to the middle of the input.

    The image covers the receptive field, which is the whole input for a token. With `share` it covers the effective
    field that holds this share of the gradient's energy, and with `side` a square of this many pixels around the
    field's center. All are clipped to the input.

    If the field lies entirely inside the input, nothing outside it matters. The canvas is then the smallest in which
    the unit sees as much and the layers pad as in the whole input. `at` gives the fields for another input size, to
    verify this. Without `at`, and in all other cases, the canvas is the network's input.

    Raises RequestError if no part of the field lies in the input.
    """
    position = middle(field, channel)
    canvas = Canvas(field.input, _window(field, channel, position, side, share), position)
    if not canvas.picture.area:
        raise RequestError(f"{field.layer}:{channel} sees no pixel of the input, so there is nothing to draw")
    if side is not None or at is None:
        return canvas
    return _smaller(field, channel, canvas, at)


def middle(field: ReceptiveField, channel: int) -> Position:
    """The position whose field center is nearest to the middle of the input; the first of equals."""
    height, width = field.input
    rows, cols = range(field.grid[0]), range(field.grid[1])

    def off(position: Position) -> tuple[float, float]:
        y, x = field.center(channel, position)
        return abs(2 * y + 1 - height), abs(2 * x + 1 - width)

    y = min(rows, key=lambda row: off(Position(row, 0))[0])
    return Position(y, min(cols, key=lambda col: off(Position(y, col))[1]))


def _window(field: ReceptiveField, channel: int, position: Position, side: int | None, share: float | None) -> Box:
    reached = field.reached(channel, position)
    frame = Box(0, 0, field.input[1], field.input[0])
    if side is not None:
        y, x = field.center(channel, position)
        top, left = round(y + 0.5 - side / 2), round(x + 0.5 - side / 2)
        return Box(left, top, left + side, top + side).intersect(frame)
    box = None if share is None else field.effective_box(channel, position, share)
    return reached if box is None else box.intersect(reached)


def _smaller(
    field: ReceptiveField, channel: int, canvas: Canvas, at: Callable[[tuple[int, int]], ReceptiveField]
) -> Canvas:
    group = field.group(channel)
    frame = Box(0, 0, field.input[1], field.input[0])
    if group.size is None or group.stride is None or group.offset is None or canvas.position is None:
        return canvas
    inside = field.status == "exact" and frame.contains(group.whole(canvas.position))
    if not inside or canvas.picture != group.seen(canvas.position) or 0 in group.stride:
        return canvas
    cells = [-(group.offset[axis] // group.stride[axis]) for axis in (0, 1)]
    # Networks whose padding depends on the size pad equally for sizes that are equal modulo the stride.
    sides = []
    for axis in (0, 1):
        least = group.offset[axis] + cells[axis] * group.stride[axis] + group.size[axis]
        sides.append(least + (field.input[axis] - least) % group.stride[axis])
    position = Position(cells[0], cells[1])
    size = (sides[0], sides[1])
    if position.y < 0 or position.x < 0 or size[0] >= field.input[0] or size[1] >= field.input[1]:
        return canvas
    there = at(size)
    if position.y >= there.grid[0] or position.x >= there.grid[1]:
        return canvas
    small = there.group(channel)
    seen = small.seen(position)
    same = (small.size, small.stride) == (group.size, group.stride) and seen == small.whole(position)
    return replace(canvas, size=size, window=seen, position=position) if same else canvas


__all__ = ["Canvas", "middle", "of_field", "whole"]
