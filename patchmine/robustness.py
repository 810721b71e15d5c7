"""Small random movements of a picture, so that what drives the unit does not hang on single pixels."""

from __future__ import annotations

from math import cos, radians, sin

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from patchmine.canvas import Canvas
from patchmine.parametrization import Draw
from patchmine.recipe import Recipe


class Movements:
    """Puts pictures into the canvas, each time moved, scaled and rotated a little; all pictures of a batch alike."""

    def __init__(self, canvas: Canvas, recipe: Recipe, device: torch.device) -> None:
        self.canvas, self.device = canvas, device
        self.jitter = recipe.jitter * min(canvas.picture.width, canvas.picture.height)
        self.scale, self.rotation = recipe.scale, recipe.rotation
        self.still = not (self.jitter or self.scale or self.rotation)

    def placed(self, pictures: Tensor, draw: Draw) -> Tensor:
        """The canvas (images, 3, height, width) that holds the normalised pictures, moved; 0 is around them."""
        if self.still:
            return centred(pictures, self.canvas)
        grid = affine_grid(self._inverse(draw), [1, 3, *self.canvas.size], align_corners=False).to(self.device)
        moved: Tensor = grid_sample(pictures, grid.expand(len(pictures), -1, -1, -1), align_corners=False)
        return moved

    def _inverse(self, draw: Draw) -> Tensor:
        """From places in the canvas to places in the picture, both in -1..1: float32 (1, 2, 3)."""
        down, across, size, turn = (2 * draw((4,), "uniform") - 1).tolist()
        angle, zoom = radians(turn * self.rotation), 1 / (1 + size * self.scale)
        (height, width), box = self.canvas.size, self.canvas.picture
        # In pixels, around the picture's middle: p = zoom * R * (c - shift).
        shift_x = (box.left + box.right) / 2 - width / 2 + across * self.jitter
        shift_y = (box.top + box.bottom) / 2 - height / 2 + down * self.jitter
        rows = []
        for a, b, side in ((cos(angle), -sin(angle), box.width), (sin(angle), cos(angle), box.height)):
            a, b = a * zoom, b * zoom
            rows.append([a * width / side, b * height / side, -2 * (a * shift_x + b * shift_y) / side])
        return torch.tensor([rows], dtype=torch.float32)


def centred(pictures: Tensor, canvas: Canvas) -> Tensor:
    """The canvas (images, 3, height, width) that holds the normalised pictures where its window is; 0 is around."""
    box, (height, width) = canvas.picture, canvas.size
    if (box.width, box.height) == (width, height):
        return pictures
    return pad(pictures, (box.left, width - box.right, box.top, height - box.bottom))
