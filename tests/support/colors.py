"""Networks of a user's own file whose units are known: before and after a training that moves, splits and ends some."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchmine.models.shapes import HUES, PREPROCESSING, ShapesNet
from patchmine.photographs.placement import Preprocessing

BEFORE = (("red",), ("green",), ("blue",), ("yellow", "magenta"), ("light",), ())
AFTER = (("red",), ("blue",), ("green",), ("light",), ("yellow",), ("magenta",), ())
"""What each unit of `units` responds to; without any the unit is dead."""


class Units(nn.Module):
    """Each unit is the strongest of some of the eight colors (N, 8, H, W), or 0."""

    def __init__(self, of: tuple[tuple[str, ...], ...]) -> None:
        super().__init__()
        self.of = [[[*HUES, "light", "dark"].index(color) for color in colors] for colors in of]

    def forward(self, colors: Tensor) -> Tensor:
        nothing = 0 * colors[:, 0]
        return torch.stack([colors[:, one].amax(1) if one else nothing for one in self.of], 1)


class Colors(nn.Module):
    def __init__(self, of: tuple[tuple[str, ...], ...]) -> None:
        super().__init__()
        drawn = ShapesNet()
        self.contrast, self.colour, self.relu = drawn.contrast, drawn.colour, drawn.relu
        self.units = Units(of)

    def forward(self, batch: Tensor) -> Tensor:
        found: Tensor = self.units(self.relu(self.colour(self.relu(self.contrast(batch)))))
        return found


def before() -> tuple[nn.Module, Preprocessing]:
    return Colors(BEFORE), PREPROCESSING


def after() -> tuple[nn.Module, Preprocessing]:
    return Colors(AFTER), PREPROCESSING
