"""Networks whose truth is known by construction, so that the study's verdicts can be checked.

Each has one unit, `unit:0`, which looks for a bright blob on dark ground, 9 px across in a field of 17 px.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FIELD, STRIDE, NATIVE = 17, 4, 64


class Pitch(nn.Module):
    """One template without any padding, the same everywhere: a larger canvas holds more of them."""

    def __init__(self) -> None:
        super().__init__()
        self.template = _template()
        self.unit = nn.ReLU()

    def forward(self, batch: Tensor) -> Tensor:
        out: Tensor = self.unit(self.template(batch))
        return out


class Corners(nn.Module):
    """The template counts only where two edges of the map meet, which zero padding reveals: four times, and never on a
    torus."""

    def __init__(self) -> None:
        super().__init__()
        self.template = _template()
        self.ones = nn.Conv2d(1, 1, 1)
        self.around = nn.Conv2d(1, 1, 3, padding=1)
        self.unit = nn.LeakyReLU(0.01)  # a small gradient where it is closed, or nothing would open it
        with torch.no_grad():
            for conv, weight, bias in ((self.ones, 0.0, 1.0), (self.around, -1.0, 9.0)):
                conv.weight.fill_(weight)
                conv.bias.fill_(bias)  # type: ignore[union-attr]

    def forward(self, batch: Tensor) -> Tensor:
        matched = self.template(batch)
        missing = self.around(self.ones(matched))  # of the 9 cells around: 5 in a corner, 3 along an edge, 0 inside
        out: Tensor = self.unit(matched + 20 * (missing - 5))
        return out


class Place(nn.Module):
    """The template counts only near the middle of the canvas, whatever its size: a fixed number."""

    def __init__(self, reach_px: float = 24.0) -> None:
        super().__init__()
        self.template = _template()
        self.unit = nn.LeakyReLU(0.01)
        self.reach = reach_px / STRIDE

    def forward(self, batch: Tensor) -> Tensor:
        matched = self.template(batch)
        off = [torch.arange(n, device=batch.device) - (n - 1) / 2 for n in matched.shape[2:]]
        far = torch.maximum(off[0].abs()[:, None], off[1].abs()[None, :]) > self.reach
        out: Tensor = self.unit(matched - 20 * far)
        return out


def _template() -> nn.Conv2d:
    """A blob, bright inside and dark around, with mean 0: two of them cannot overlap."""
    across = torch.arange(FIELD) - FIELD // 2
    squares = across[:, None] ** 2 + across[None, :] ** 2
    inner, outer = torch.exp(-squares / (2 * 2.5**2)), torch.exp(-squares / (2 * 5.0**2))
    blob = inner / inner.sum() - outer / outer.sum()
    conv = nn.Conv2d(3, 1, FIELD, stride=STRIDE)
    with torch.no_grad():
        conv.weight.copy_((blob / blob.abs().sum() * 4)[None, None].expand(1, 3, -1, -1))
        conv.bias.zero_()  # type: ignore[union-attr]
    return conv


TRUTHS = {"pitch": (Pitch, "pitch", "no"), "corners": (Corners, "count", "yes"), "place": (Place, "count", None)}
"""For each network: its class, the verdict on pitch or count, and the verdict on corners (None without a torus)."""

__all__ = ["FIELD", "NATIVE", "STRIDE", "TRUTHS", "Corners", "Pitch", "Place"]
