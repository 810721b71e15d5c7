"""Units that each look for one shape that `shapes:N` draws, linear and with a threshold, and their smallest boxes.

`build` returns a network in which everything up to `match` is linear in the pixels. So what a box retains is a sum over
its cells, and the smallest of all boxes can be found by trying each of them, without any search.

    colour    the contrast of one of five colours with the others, in means of cells of 4 x 4 px     5 channels
    match     the cells, by a template of one drawn shape: 1 on its own photograph                   stride 16
    unit      relu((match - BIAS) / (1 - BIAS)): half of its activation is gone with a tenth of the shape
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.models.shapes import PREPROCESSING
from patchmine.photographs.decode import normalized, prepare
from patchmine.sources.shapes import COLORS, Shapes, mask_of
from patchmine.units import Box

COUNT, BIAS, RING = 120, 0.8, 0.5
CELL, STRIDE, KERNEL = 4, 4, 41  # input pixels; the others in cells

_CELLS = PREPROCESSING.crop[0] // CELL
_CONTRASTS = {
    "red": (2, -1, -1),
    "green": (-1, 2, -1),
    "blue": (-1, -1, 2),
    "yellow": (1, 1, -2),
    "magenta": (1, -2, 1),
}

Float64 = NDArray[np.float64]
SOURCE = Shapes(COUNT)


def photograph_of(channel: int) -> int:
    """The photograph whose main shape the unit looks for: its channels are in groups by colour."""
    colour, number = divmod(channel, COUNT // len(COLORS))
    return number * len(COLORS) + colour


def main_shape(photograph: int) -> tuple[float, float, float, float]:
    """The left, top, right and bottom of the box of the photograph's main shape, in input pixels."""
    size, drawn = SOURCE.plan(photograph)
    placement = PREPROCESSING.place(*size)
    scale = placement.resized[0] / size[0]
    left, top, right, bottom = (side * scale for side in drawn[0].box.as_tuple())
    return left - placement.left, top - placement.top, right - placement.left, bottom - placement.top


def weights(channel: int) -> Float64:
    """The unit's weight of each cell of its own photograph, (rows, columns).

    Each row of the shape weighs the same, and each column: no tip is so thin that it hardly counts. The cells around
    it, two deep, weigh RING of the shape's mean with the opposite sign: a larger shape is another one.
    """
    photograph = photograph_of(channel)
    (width, height), drawn = SOURCE.plan(photograph)
    painted = np.zeros((height, width, 3), np.uint8)
    box = drawn[0].box
    painted[box.top : box.bottom, box.left : box.right][mask_of(drawn[0].shape, box.width)] = 255
    inside = _cells((_input(painted)[0] + 1) / 2)
    rows, columns = inside.sum(1, keepdims=True), inside.sum(0, keepdims=True)
    template = inside / np.maximum(rows, 1) + inside / np.maximum(columns, 1)
    edges = np.array(main_shape(photograph)) / CELL
    (left, top), (right, bottom) = np.floor(edges[:2]).astype(int) - 2, np.ceil(edges[2:]).astype(int) + 2
    around = np.zeros_like(inside)
    around[max(top, 0) : bottom, max(left, 0) : right] = 1
    template = template / template.sum() - RING * around * (1 - inside) / inside.sum()
    found: Float64 = template / (template * contrast(channel, pictured(photograph))).sum()
    return found


def contrast(channel: int, picture: Tensor) -> Float64:
    """What the unit's template sees of an input, float32 (3, height, width): a number per cell, (rows, columns)."""
    direction = torch.tensor(_CONTRASTS[list(COLORS)[photograph_of(channel) % len(COLORS)]])
    return _cells((direction[:, None, None] * picture).sum(0))


@cache
def pictured(photograph: int) -> Tensor:
    """The photograph as the network sees it, float32 (3, height, width)."""
    data = SOURCE.read(SOURCE.entries()[photograph].path)
    return normalized(prepare(data, PREPROCESSING).tensor[None], PREPROCESSING)[0]


class Planted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Conv2d(3, len(COLORS), 1, bias=False)
        self.cells = nn.AvgPool2d(CELL)
        self.match = nn.Conv2d(len(COLORS), COUNT, KERNEL, STRIDE, padding=KERNEL // 2, groups=len(COLORS), bias=False)
        self.unit = Threshold()
        with torch.no_grad():
            self.colour.weight.copy_(torch.tensor([_CONTRASTS[colour] for colour in COLORS])[:, :, None, None])
            for channel in range(COUNT):
                self.match.weight[channel, 0] = torch.from_numpy(_kernel(channel))

    def forward(self, batch: Tensor) -> Tensor:
        out: Tensor = self.unit(self.match(self.cells(self.colour(batch))))
        return out


class Threshold(nn.Module):
    def forward(self, matched: Tensor) -> Tensor:
        return ((matched - BIAS) / (1 - BIAS)).relu()


def build() -> tuple[nn.Module, object]:
    return Planted(), PREPROCESSING


def place(channel: int) -> tuple[int, int]:
    """The row and column of `match` nearest to the center of the unit's shape in its own photograph."""
    left, top, right, bottom = main_shape(photograph_of(channel))
    row, column = (round((low + high) / 2 / CELL / STRIDE) for low, high in ((top, bottom), (left, right)))
    return row, column


def smallest(channel: int, backgrounds: Sequence[Tensor], share: float, threshold: bool) -> Box:
    """The smallest of all boxes on the grid that retain this share of the unit's activation on each background.

    On its own photograph and at its own place. The backgrounds are float32 (3, height, width).
    """
    weight, picture = weights(channel), pictured(photograph_of(channel))
    low, high = np.triu_indices(_CELLS + 1, 1)
    areas = np.multiply.outer(high - low, high - low).astype(float)
    for background in backgrounds:
        blank = (weight * contrast(channel, background)).sum()
        sums = np.zeros((_CELLS + 1, _CELLS + 1))
        sums[1:, 1:] = (weight * contrast(channel, picture - background)).cumsum(0).cumsum(1)
        bands = sums[high] - sums[low]
        boxes = bands[:, high] - bands[:, low] + blank  # of each interval of rows with each of columns
        if threshold:
            boxes, blank = np.maximum(boxes - BIAS, 0) / (1 - BIAS), max(blank - BIAS, 0) / (1 - BIAS)
        areas[(boxes - blank) / (1 - blank) < share] = np.inf
    rows, columns = np.unravel_index(int(areas.argmin()), areas.shape)
    return Box(*(CELL * int(edge) for edge in (low[columns], low[rows], high[columns], high[rows])))


def _kernel(channel: int) -> NDArray[np.float32]:
    """The template as the kernel sees it from its place, float32 (KERNEL, KERNEL)."""
    row, column = place(channel)
    reach = KERNEL // 2
    padded = np.pad(weights(channel), reach + STRIDE)
    top, left = row * STRIDE + STRIDE, column * STRIDE + STRIDE
    return padded[top : top + KERNEL, left : left + KERNEL].astype(np.float32)


def _input(painted: NDArray[np.uint8]) -> Tensor:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.fromarray(painted).save(file, "PNG")
    return normalized(prepare(file.getvalue(), PREPROCESSING).tensor[None], PREPROCESSING)[0]


def _cells(pixels: Tensor) -> Float64:
    found: Float64 = pixels.double().reshape(_CELLS, CELL, _CELLS, CELL).mean((1, 3)).numpy()
    return found
