"""`shapes`: a small network with hand-set weights whose units detect what `shapes:N` draws. No training, no download.

    input 224 px, -1..1
      contrast   5x5 means of the differences of two primaries, and of light and dark          stride 2, 8 units
      colour     one primary above both others, or two above the third, by at least MARGIN     stride 2, 8 units
      clip       the six hues as 0..1, from means of 2x2                                       stride 4, 6 units
      template   the four shapes in each of SIDES_PX sizes, against whatever has a hue         stride 4, 52 units
      shape      the best size of each shape, minus the lead of its rivals                     stride 4, 4 units
      thing      a shape and a hue in the same place                                           stride 4, 24 units

Every layer except `clip` is tapped before its ReLU. No picture of `shapes:N` contains cyan, so `colour:5` is negative
on all of them, and yet its top 25 is well defined.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.errors import ModelError
from patchmine.networks.network import Network, weights_digest
from patchmine.photographs.placement import Preprocessing
from patchmine.sources.shapes import SHAPES

CLAIM = "shapes"
HELP = "shapes: a small network with hand-set weights whose units detect what shapes:N draws"

PREPROCESSING = Preprocessing(
    resize=256, crop=(224, 224), interpolation="bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)

HUES = ("red", "green", "blue", "yellow", "magenta", "cyan")

# In input pixels, 38 to 95.7, each 1.08 times the size before: a shape is at most 4 % off its template.
SIDES_PX = tuple(round(38 * 1.08**step, 1) for step in range(13))

# How far a hue must stand out, in units of 127.5 gray levels: above a background's tint, below the palest shape.
MARGIN = 0.4

_PAIRS = ("R-G", "G-R", "R-B", "B-R", "G-B", "B-G")
# min(R - G, R - B) is (R-G)+ - (B-G)+ wherever it is positive; the same holds for the other hues.
_HUE_OF_PAIRS = {
    "red": ("R-G", "B-G"),
    "green": ("G-R", "B-R"),
    "blue": ("B-R", "G-R"),
    "yellow": ("R-B", "R-G"),
    "magenta": ("R-G", "R-B"),
    "cyan": ("G-R", "G-B"),
}

MEANINGS: dict[str, list[str]] = {
    "contrast": [*_PAIRS, "light", "dark"],
    "colour": [*HUES, "light", "dark"],
    "clip": list(HUES),
    "template": [f"{shape} of {side:g} px" for shape in SHAPES for side in SIDES_PX],
    "shape": list(SHAPES),
    "thing": [f"{hue} {shape}" for hue in HUES for shape in SHAPES],
}
"""What each unit responds to, per layer, by channel."""

STAGES = ("contrast", "colour", "template", "shape", "thing")

_CELL_PX = 4  # the stride of the layers from `clip` on
_KERNEL = 29  # cells: the largest side and two cells of surroundings on each side
_FINE = 8  # samples per cell and axis when a template is drawn


class ShapesNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes, shapes, hues = len(SIDES_PX), len(SHAPES), len(HUES)
        self.contrast = nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False)
        self.colour = nn.Conv2d(8, 8, 1)
        self.pool = nn.AvgPool2d(2)
        self.gain = nn.Conv2d(8, hues, 1, bias=False)
        self.clip = nn.Hardtanh(0.0, 1.0)
        self.any = nn.Conv2d(hues, 1, 1, bias=False)
        self.template = nn.Conv2d(1, shapes * sizes, _KERNEL, padding=_KERNEL // 2, bias=False)
        self.best = BestSize(sizes)
        self.near = nn.MaxPool2d(3, stride=1, padding=1)
        self.rivals = nn.Conv2d(shapes, shapes * (shapes - 1), 1, bias=False)
        self.shape = nn.Conv2d(shapes + shapes * (shapes - 1), shapes, 1, bias=False)
        self.thing = nn.Conv2d(shapes + hues, hues * shapes, 1)
        self.relu = nn.ReLU()
        for parameter in self.parameters():
            parameter.requires_grad_(False)
            parameter.zero_()
        self._set_colours()
        self._set_shapes()

    def forward(self, x: Tensor) -> Tensor:
        """From (N, 3, H, W) to the best value of each thing anywhere: (N, 24)."""
        colours = self.relu(self.colour(self.relu(self.contrast(x))))
        hues = self.clip(self.gain(self.pool(colours)))
        best = self.near(self.best(self.template(self.any(hues))))
        shapes = self.shape(torch.cat([best, self.relu(self.rivals(best))], 1))
        return self.thing(torch.cat([shapes, hues], 1)).amax((2, 3))

    def _set_colours(self) -> None:
        for unit, pair in enumerate(_PAIRS):
            more, less = pair.split("-")
            self.contrast.weight[unit, "RGB".index(more)] = 1 / 25
            self.contrast.weight[unit, "RGB".index(less)] = -1 / 25
        self.contrast.weight[6] = 1 / 75
        self.contrast.weight[7] = -1 / 75
        for unit, hue in enumerate(HUES):
            enough, too_much = _HUE_OF_PAIRS[hue]
            self.colour.weight[unit, _PAIRS.index(enough)] = 1
            self.colour.weight[unit, _PAIRS.index(too_much)] = -1
            self.gain.weight[unit, unit] = 1 / (MARGIN / 2)
        for unit in (6, 7):
            self.colour.weight[unit, unit] = 1
        self.colour.bias = nn.Parameter(torch.tensor([-MARGIN] * len(HUES) + [0.0, 0.0]), requires_grad=False)

    def _set_shapes(self) -> None:
        for unit, (shape, side) in enumerate((shape, side) for shape in SHAPES for side in SIDES_PX):
            self.template.weight[unit, 0] = torch.from_numpy(template(shape, side / _CELL_PX))
        self.any.weight.fill_(1)
        shapes = len(SHAPES)
        duels = [(own, rival) for own in range(shapes) for rival in range(shapes) if own != rival]
        for unit, (own, rival) in enumerate(duels):
            self.rivals.weight[unit, own], self.rivals.weight[unit, rival] = -1, 1
            self.shape.weight[own, shapes + unit] = -2
        for own in range(shapes):
            self.shape.weight[own, own] = 1
        # Both must be present: about 1 where they are, about 0 where one is missing.
        self.thing.bias = nn.Parameter(torch.full((len(HUES) * shapes,), -1.0), requires_grad=False)
        for unit in range(len(HUES) * shapes):
            hue, own = divmod(unit, shapes)
            self.thing.weight[unit, own] = self.thing.weight[unit, shapes + hue] = 1


class BestSize(nn.Module):
    """The maximum over runs of `sizes` channels."""

    def __init__(self, sizes: int) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.sizes)).amax(2)


def template(shape: str, side: float) -> NDArray[np.float32]:
    """A float32 filter of _KERNEL x _KERNEL cells: 1 on exactly this shape of this side (in cells), less on all else.

    Inside the shape, the weights add up to 1. Outside it, in its box and two cells around it, each weight has the
    same size and the opposite sign.
    """
    # numpy, because torch's thread pool takes seconds for so many small operations on a busy machine.
    count = _KERNEL * _FINE
    away = (np.arange(count) + 0.5) / _FINE - _KERNEL / 2
    y, x = away[:, None], np.abs(away)[None]
    half = side / 2
    box = np.maximum(np.abs(y), x)
    match shape:
        case "circle":
            inside = y**2 + x**2 <= half**2
        case "square":
            inside = box <= half
        case "triangle":
            inside = (box <= half) & (x <= (y + half) / 2)
        case "cross":
            inside = (box <= half) & (np.minimum(np.abs(y), x) <= side / 6)
        case _:
            raise ValueError(f"unknown shape {shape!r}")
    signs = inside.astype(np.float32) - (~inside & (box <= half + 2))
    cells = signs.reshape(_KERNEL, _FINE, _KERNEL, _FINE).sum((1, 3))
    weights: NDArray[np.float32] = (cells / inside.sum()).astype(np.float32)
    return weights


def claim(spec: str) -> bool:
    return spec == CLAIM


def load(spec: str, weights: Path | None, pretrained: bool = True) -> Network:  # noqa: ARG001
    if weights is not None:
        raise ModelError(f"the weights of {spec!r} are set by hand: leave out --weights {str(weights)!r}")
    module = ShapesNet().eval()
    things = tuple(MEANINGS["thing"])
    return Network(spec, module, PREPROCESSING, weights_digest(module), things, STAGES)
