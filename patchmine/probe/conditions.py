"""The changes that `patchmine probe` makes to a photograph, as the network sees it, around one patch.

Colors are turned and removed in YIQ, with the luma of ITU-R BT.601, which is the gray of most image files. Phases are
scrambled as Oppenheim & Lim, "The importance of phase in signals" (1981), took them apart; the same random phases for
all three channels keep the colors that occur together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from patchmine.tight.backgrounds import blurred
from patchmine.units import Box

LUMA = (0.299, 0.587, 0.114)
_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))

PALETTE = 4
"""Main colors of a patch that are tried as a flat color, besides its mean."""

DETAIL = 1 / 8
"""The standard deviation of the blur, as a share of the patch's side."""

SMALLER = 1.5
"""How many times as small, or as large, the patch is made."""

_MIDDLE_GRAY = 127.5


@dataclass(frozen=True)
class Shown:
    """A photograph as the network sees it, and a patch in it.

    `pixels` and `host`, another photograph, are float32 (3, height, width) from 0 to 255. `box` is the patch, clipped
    to the input; `center` (x, y) is the middle of the receptive field, from the input's edge. Both in input pixels.
    """

    pixels: Tensor
    box: Box
    center: tuple[float, float]
    host: Tensor
    seed: int

    @property
    def patch(self) -> Tensor:
        """float32 (3, height of the box, width of the box)."""
        return self.pixels[:, self.box.top : self.box.bottom, self.box.left : self.box.right]

    @property
    def detail(self) -> float:
        """The standard deviation of the blur, in pixels."""
        return max(1.0, DETAIL * self.box.area**0.5)


@dataclass(frozen=True)
class Condition:
    """One change: `change` makes pictures (n, 3, height, width), of which the one that drives the unit most counts.

    With `weakest` the one that drives it least does.
    """

    name: str
    words: str
    change: Callable[[Shown], Tensor]
    weakest: bool = False


def _gray(shown: Shown) -> Tensor:
    return _luma(shown.pixels).expand(1, 3, -1, -1)


def _hue_turned(shown: Shown) -> Tensor:
    """Both ways: what is indifferent to the hue stands both, and what looks for the contrast of a hue finds none."""
    to_yiq = torch.tensor(_YIQ)
    turned = []
    for sign in (1.0, -1.0):
        turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -sign], [0.0, sign, 0.0]])
        turned.append(torch.einsum("ij,jhw->ihw", to_yiq.inverse() @ turn @ to_yiq, shown.pixels))
    return torch.stack(turned)


def _flat(shown: Shown) -> Tensor:
    height, width = shown.pixels.shape[1:]
    colors = torch.cat([shown.patch.mean((1, 2))[None], _palette(shown.patch)])
    return colors[:, :, None, None].expand(-1, -1, height, width)


def _blurred(shown: Shown) -> Tensor:
    return blurred(shown.pixels[None], shown.detail)


def _high_passed(shown: Shown) -> Tensor:
    return (shown.pixels - blurred(shown.pixels[None], shown.detail)[0] + _MIDDLE_GRAY)[None]


def _scrambled(shown: Shown) -> Tensor:
    """The patch with random phases, repeated over the picture: it is periodic, so no edge shows."""
    patch = shown.patch
    noise = torch.rand(patch.shape[1:], generator=torch.Generator().manual_seed(shown.seed))
    phases = torch.fft.rfft2(noise).angle()
    phases[0, 0] = 0  # of the mean, which stays
    spectrum = torch.fft.rfft2(patch) * torch.polar(torch.ones_like(phases), phases)
    made = torch.fft.irfft2(spectrum, s=patch.shape[1:])
    height, width = shown.pixels.shape[1:]
    rows = (torch.arange(height) - shown.box.top) % patch.shape[1]
    columns = (torch.arange(width) - shown.box.left) % patch.shape[2]
    return made[:, rows][:, :, columns][None]


def _pasted(shown: Shown) -> Tensor:
    picture = shown.host.clone()
    picture[:, shown.box.top : shown.box.bottom, shown.box.left : shown.box.right] = shown.patch
    return picture[None]


def _moved(across: float, turn: float = 0.0, scale: float = 1.0) -> Callable[[Shown], Tensor]:
    """The picture mirrored (`across` -1), turned counterclockwise by degrees, and scaled, around the field's center."""
    c, s = cos(radians(turn)) / scale, sin(radians(turn)) / scale

    def change(shown: Shown) -> Tensor:
        height, width = shown.pixels.shape[1:]
        x = torch.arange(width) + 0.5 - shown.center[0]
        y = (torch.arange(height) + 0.5 - shown.center[1])[:, None]
        from_x, from_y = shown.center[0] + across * (c * x - s * y), shown.center[1] + s * x + c * y
        there = torch.stack([from_x * 2 / width - 1, from_y * 2 / height - 1], 2)
        return grid_sample(
            shown.pixels[None], there[None].to(torch.float32), padding_mode="reflection", align_corners=False
        )

    return change


CONDITIONS = (
    Condition("gray", "without color", _gray),
    Condition("hue turned", "a quarter of the circle, the worse way", _hue_turned, weakest=True),
    Condition("flat color", "one of its main colors alone", _flat),
    Condition("blurred", "without detail", _blurred),
    Condition("high-passed", "detail alone", _high_passed),
    Condition("scrambled", "its texture: random phases", _scrambled),
    Condition("mirrored", "left and right exchanged", _moved(-1)),
    Condition("turned 30°", "counterclockwise", _moved(1, 30)),
    Condition("turned 90°", "counterclockwise", _moved(1, 90)),
    Condition("smaller", f"1/{SMALLER:g} of its size", _moved(1, scale=1 / SMALLER)),
    Condition("larger", f"{SMALLER:g} times its size", _moved(1, scale=SMALLER)),
    Condition("pasted", "into another photograph", _pasted),
)


def _luma(pixels: Tensor) -> Tensor:
    """float32 (1, height, width)."""
    return (pixels * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)


def _palette(patch: Tensor) -> Tensor:
    """Up to PALETTE main colors of a patch, float32 (colors, 3): the means of the cells of a median cut."""
    picture = Image.fromarray(patch.permute(1, 2, 0).to(torch.uint8).numpy())
    cells = picture.quantize(PALETTE, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    number = torch.from_numpy(np.array(cells, np.int64))
    return torch.stack([patch[:, number == cell].mean(1) for cell in number.unique()])
