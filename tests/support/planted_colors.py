"""A network of 30 units of which it is known whether color, shape or both drive them.

Ten answer to a hue wherever it is, ten to a pattern of light whatever its color, and ten to a pattern of a hue: five to
the pattern in the hue's own contrast, five where a pattern of light and the hue are in one place.
"""

from __future__ import annotations

from math import cos, pi, sin

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, relu

from patchmine.photographs.placement import Preprocessing

NATIVE, FIELD, STRIDE, EACH = 112, 17, 4, 10
KINDS = ("color",) * EACH + ("shape",) * EACH + ("both",) * EACH
PREPROCESSING = Preprocessing(128, (NATIVE, NATIVE), "bilinear", (0.5,) * 3, (0.5,) * 3)

_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


class Planted(nn.Module):
    """float32 (N, 3, H, W) from -1 to 1; the layer `units` has 30 channels, stride 4, fields of 17 px."""

    def __init__(self) -> None:
        super().__init__()
        self.units = _Units()

    def forward(self, batch: Tensor) -> Tensor:
        found: Tensor = self.units(batch)
        return found


class _Units(nn.Module):
    yiq: Tensor
    hues: Tensor
    patterns: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("yiq", torch.tensor(_YIQ)[:, :, None, None])
        angles = [2 * pi * number / EACH for number in range(EACH)]
        hues = torch.tensor([[cos(angle), sin(angle)] for angle in angles])
        self.register_buffer("hues", hues[:, :, None, None])
        self.register_buffer("patterns", torch.stack([_pattern(number) for number in range(EACH)])[:, None])

    def forward(self, batch: Tensor) -> Tensor:
        planes = conv2d(batch, self.yiq)
        light, chroma = planes[:, :1], conv2d(planes[:, 1:], self.hues)
        color = avg_pool2d(relu(chroma), 9, STRIDE)[:, :, 1:-1, 1:-1]
        shape = relu(conv2d(light, self.patterns, stride=STRIDE))
        own = relu(conv2d(chroma, self.patterns, stride=STRIDE, groups=EACH))
        color = color[:, :, : shape.shape[2], : shape.shape[3]]
        both = torch.cat([own[:, ::2], torch.minimum(color, shape)[:, 1::2]], 1)
        return torch.cat([color, shape, both], 1)


def _pattern(number: int) -> Tensor:
    """Bars of four directions, edges of four, a blob and a ring: mean 0, absolute sum 4."""
    across = torch.arange(FIELD) - FIELD // 2
    y, x = across[:, None].float(), across[None].float()
    near = torch.exp(-(y**2 + x**2) / (2 * 4.0**2))
    if number < 8:
        along = cos(pi * number / 4) * x + sin(pi * number / 4) * y
        wave = torch.cos(2 * pi * along / 12) if number < 4 else torch.sin(2 * pi * along / 14)
        found = wave * near
    else:
        inner = torch.exp(-(y**2 + x**2) / (2 * 2.5**2))
        found = (1 if number == 8 else -1) * (inner / inner.sum() - near / near.sum())
    found = found - found.mean()
    return 4 * found / found.abs().sum()


def build() -> tuple[nn.Module, Preprocessing]:
    return Planted().eval(), PREPROCESSING
