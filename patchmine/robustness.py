"""Small random movements of a picture, so that what drives the unit does not hang on single pixels."""

from __future__ import annotations

from math import ceil, cos, radians, sin

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from patchmine.canvas import Canvas
from patchmine.parametrization import Draw
from patchmine.recipe import Recipe
from patchmine.units import Box


class Movements:
    """Puts pictures into the canvas, each time moved, scaled and rotated a little; all pictures of a batch alike.

    `seen` is the side in pixels that jitter is a share of: what a unit sees at one position. None is the picture's.
    """

    def __init__(self, canvas: Canvas, recipe: Recipe, device: torch.device, seen: int | None = None) -> None:
        self.canvas = canvas
        box = canvas.picture
        self.jitter = recipe.jitter * (min(box.width, box.height) if seen is None else seen)
        self.scale, self.rotation = recipe.scale, recipe.rotation
        self.wrap = recipe.wrap
        self.still = not (self.jitter or self.scale or self.rotation)
        self.reached = self._reach()
        # Of the pixels that a picture may come to lie on, from the middle of the picture at rest.
        self.xs = (torch.arange(self.reached.left, self.reached.right) + 0.5 - (box.left + box.right) / 2).to(device)
        self.ys = (torch.arange(self.reached.top, self.reached.bottom) + 0.5 - (box.top + box.bottom) / 2).to(device)

    def placed(self, pictures: Tensor, draw: Draw) -> Tensor:
        """The canvas (images, 3, height, width) that holds the normalised pictures, moved; 0 is around them."""
        if self.still:
            return centred(pictures, self.canvas)
        if self.wrap:
            down, across = ((2 * draw((2,), "uniform") - 1) * self.jitter).round().int().tolist()
            return centred(pictures.roll((down, across), (2, 3)), self.canvas)
        grid = self._grid(draw)[None]
        if len(pictures) == 1 and grid.shape[1] % 2 == 0:
            # torch spreads a batch over threads, and not one image: its two halves are two.
            halves = grid.unflatten(1, (2, -1))[0]
            moved = grid_sample(pictures.expand(2, -1, -1, -1), halves, align_corners=False)
            moved = moved.transpose(0, 1).flatten(1, 2)[None]
        else:
            moved = grid_sample(pictures, grid.expand(len(pictures), -1, -1, -1), align_corners=False)
        return _around(moved, self.reached, self.canvas.size)

    def _reach(self) -> Box:
        """The part of the canvas that the picture may come to lie on."""
        box, (height, width) = self.canvas.picture, self.canvas.size
        longest = max(box.width, box.height) * (self.scale + sin(radians(min(self.rotation, 90)))) / 2
        margin = ceil(self.jitter * (1 + self.scale) + longest) + 1
        grown = Box(box.left - margin, box.top - margin, box.right + margin, box.bottom + margin)
        return grown.intersect(Box(0, 0, width, height))

    def _grid(self, draw: Draw) -> Tensor:
        """Where in the picture (x, y in -1..1) each reached pixel looks: float32 (rows, columns, 2)."""
        down, across, size, turn = (2 * draw((4,), "uniform") - 1).tolist()
        angle, zoom = radians(turn * self.rotation), 1 / (1 + size * self.scale)
        ys, xs = self.ys - down * self.jitter, self.xs - across * self.jitter
        wide, high = 2 * zoom / self.canvas.picture.width, 2 * zoom / self.canvas.picture.height
        x = (-sin(angle) * wide * ys)[:, None] + (cos(angle) * wide * xs)[None]
        y = (cos(angle) * high * ys)[:, None] + (sin(angle) * high * xs)[None]
        return torch.stack((x, y), -1)


def centred(pictures: Tensor, canvas: Canvas) -> Tensor:
    """The canvas (images, 3, height, width) that holds the normalised pictures where its window is; 0 is around."""
    return _around(pictures, canvas.picture, canvas.size)


def _around(pictures: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    if (box.height, box.width) == size:
        return pictures
    return pad(pictures, (box.left, size[1] - box.right, box.top, size[0] - box.bottom))
