"""Small random movements of an image, so that the unit's activation does not depend on single pixels."""

from __future__ import annotations

from math import ceil, radians, sin
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from patchmine.synthesis.canvas import Canvas
from patchmine.synthesis.parametrization import Draw
from patchmine.synthesis.recipe import Recipe
from patchmine.units import Box

_TOGETHER = 16
_LITTLE = (0.1, 10.0)  # the largest scale and rotation in degrees for which the gradient of `_Moved` is accurate


class Movements:
    """Places images on the canvas, each time moved, scaled, and rotated a little; all images of a batch move alike.

    `gain` and `offset`, float32 (1, 3, 1, 1), normalize colors in 0..1. `seen` is the side in pixels that jitter is a
    share of: the unit's field at one position. None is the side of the image.
    """

    def __init__(
        self, canvas: Canvas, recipe: Recipe, draw: Draw, gain: Tensor, offset: Tensor, seen: int | None = None
    ) -> None:
        self.canvas, self.draw, self.gain, self.offset = canvas, draw, gain, offset
        box = canvas.picture
        self.jitter = recipe.jitter * (min(box.width, box.height) if seen is None else seen)
        self.scale, self.rotation = recipe.scale, recipe.rotation
        self.wrap = recipe.wrap
        self.still = not (self.jitter or self.scale or self.rotation)
        self.reached = self._reach()
        self.little = self.scale <= _LITTLE[0] and self.rotation <= _LITTLE[1]
        self.drawn: list[tuple[Tensor, ...]] = []

    def placed(self, pictures: Tensor) -> Tensor:
        """The canvas (images, 3, height, width) with the images on it, normalized and moved; it is 0 around them."""
        pictures = torch.addcmul(self.offset, pictures, self.gain)
        if self.still:
            return centered(pictures, self.canvas)
        if self.wrap:
            down, across = ((2 * self.draw((2,), "uniform") - 1) * self.jitter).round().int().tolist()
            return centered(pictures.roll((down, across), (2, 3)), self.canvas)
        if not self.drawn:
            self.drawn = self._to_come()
        *ways, weight = self.drawn.pop()
        looks, goes = ((rows[:, None] + columns)[None] for rows, columns in (ways[:2], ways[2:]))
        if self.little:
            return _moved(pictures, looks, goes, weight, self.reached, self.canvas.size)
        return _around(_sampled(pictures, looks), self.reached, self.canvas.size)

    def _to_come(self) -> list[tuple[Tensor, ...]]:
        """The next movements, drawn together because one costs as much as all.

        For each movement: where a pixel of the reached box looks in the image (x, y in -1..1), as the sum of a part of
        its row (rows, 2) and a part of its column (columns, 2); where a pixel of the image goes on the canvas, in the
        same form; and the area that it covers there.
        """
        down, across, zoom, turn = (2 * self.draw((4, _TOGETHER, 1), "uniform") - 1).to(self.gain.device)
        zoom, turn = 1 + zoom * self.scale, turn * radians(self.rotation)
        box, (height, width) = self.canvas.picture, self.canvas.size
        middle = ((box.top + box.bottom) / 2, (box.left + box.right) / 2)
        moved = (down * self.jitter, across * self.jitter)
        looks = _lattice(self.reached, middle, moved, turn, (2 / zoom / box.height, 2 / zoom / box.width))
        rows, columns = _lattice(box, middle, (0, 0), -turn, (2 * zoom / height, 2 * zoom / width))
        there = [(m + by) * 2 / side - 1 for m, by, side in zip(middle, moved, (height, width), strict=True)]
        return list(zip(*looks, rows, columns + torch.stack(there[::-1], -1), zoom**2, strict=True))

    def _reach(self) -> Box:
        """The part of the canvas that the moved image may cover."""
        box, (height, width) = self.canvas.picture, self.canvas.size
        farther = (1 + self.scale) * (1 + sin(radians(min(self.rotation, 90)))) - 1
        margin = ceil(self.jitter + max(box.width, box.height) * farther / 2) + 1
        grown = Box(box.left - margin, box.top - margin, box.right + margin, box.bottom + margin)
        return grown.intersect(Box(0, 0, width, height))


class _Moved(torch.autograd.Function):
    """Bilinear samples of the images where the pixels in `reached` look, on a canvas of zeros.

    The gradient of a pixel is a bilinear sample of the canvas's gradient where that pixel goes. The exact transpose
    weights the same neighbors by a pyramid that is rotated and scaled with the image. For small movements the two are
    nearly equal, and sampling is several times faster than scattering.
    """

    @staticmethod
    def forward(
        ctx: Any, pictures: Tensor, looks: Tensor, goes: Tensor, weight: Tensor, reached: Box, size: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(goes, weight)
        return _around(_sampled(pictures, looks), reached, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        goes, weight = ctx.saved_tensors
        return _sampled(gradients[0], goes).mul_(weight), None, None, None, None, None


def _moved(
    pictures: Tensor, looks: Tensor, goes: Tensor, weight: Tensor, reached: Box, size: tuple[int, int]
) -> Tensor:
    found: Tensor = _Moved.apply(pictures, looks, goes, weight, reached, size)
    return found


def centered(pictures: Tensor, canvas: Canvas) -> Tensor:
    """The canvas (images, 3, height, width) with the normalized images in its window; it is 0 around them."""
    return _around(pictures, canvas.picture, canvas.size)


def _around(pictures: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    if (box.height, box.width) == size:
        return pictures
    return pad(pictures, (box.left, size[1] - box.right, box.top, size[0] - box.bottom))


def _lattice(
    box: Box,
    middle: tuple[float, float],
    moved: tuple[Tensor | float, Tensor | float],
    turn: Tensor,
    units: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """The pixel centers of a box, relative to `middle`, minus `moved`, rotated and then multiplied by `units`.

    Pairs are (y, x). `moved`, `turn`, and `units` have one row per movement, (movements, 1). Rotated places are sums:
    returns the part of each row (movements, rows, 2) and of each column (movements, columns, 2), as (x, y).
    """
    ys = torch.arange(box.top, box.bottom, device=turn.device) + 0.5 - middle[0] - moved[0]
    xs = torch.arange(box.left, box.right, device=turn.device) + 0.5 - middle[1] - moved[1]
    sine, cosine = turn.sin(), turn.cos()
    rows = torch.stack((-sine * units[1] * ys, cosine * units[0] * ys), -1)
    columns = torch.stack((cosine * units[1] * xs, sine * units[0] * xs), -1)
    return rows, columns


def _sampled(pictures: Tensor, grid: Tensor) -> Tensor:
    if len(pictures) == 1 and grid.shape[1] % 2 == 0:
        # torch parallelizes over the batch but not within one image, so one image is processed as two halves.
        halves = grid[0].unflatten(0, (2, -1))
        found = grid_sample(pictures.expand(2, -1, -1, -1), halves, align_corners=False)
        return found.transpose(0, 1).flatten(1, 2)[None]
    return grid_sample(pictures, grid.expand(len(pictures), -1, -1, -1), align_corners=False)
