"""Effective receptive fields: where in its receptive field a layer really looks.

In deep layers the receptive field is larger than the picture, while nearly all of the influence comes from a small
part around its centre (Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural
networks"). It is measured as the share of the energy of the gradient by distance from the centre, at places where
units fire hardest: there a layer looks at more than it does elsewhere (in EfficientNet-Lite0's `blocks.2` at 33
pixels instead of 23), and it is those places that are cut out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.networks.network import Tap, last_call, run_until, tapped
from patchmine.units import Position


@dataclass(frozen=True)
class Hit:
    """A unit that fires: its `channel` at `position`, on `picture` float32 (3, height, width), normalised.

    `centre` is the middle (y, x) of its receptive field in input pixels; whole numbers are centres of pixels.
    """

    channel: int
    position: Position
    centre: tuple[float, float]
    picture: Tensor


def effective_field(module: nn.Module, tap: Tap, hits: Iterable[Hit]) -> NDArray[np.float32] | None:
    """The share of the gradient's energy within each distance of the centre of the receptive field.

    Entry r of the result (distances,) is the share within the square of half-width r + 0.5 input pixels around the
    centre; the last entry is 1. Every hit has the same weight. None where no gradient comes back at all.
    """
    found = [energy for hit in hits if (energy := _by_distance(_gradient(module, tap, hit), hit.centre)) is not None]
    if not found:
        return None
    total = np.zeros(max(map(len, found)))
    for energy in found:
        total[: len(energy)] += energy
    return np.minimum(np.cumsum(total) / total.sum(), 1).astype(np.float32)


def _gradient(module: nn.Module, tap: Tap, hit: Hit) -> Tensor:
    """Of the unit's activation with respect to the picture: float32 (3, height, width)."""
    picture = hit.picture[None].clone().requires_grad_()
    outputs: list[Tensor] = []

    def see(output: Tensor) -> None:
        outputs.append(tap.layout.grid_of(output)[0, hit.channel, hit.position.y, hit.position.x].float())

    with torch.enable_grad(), tapped(module, {tap.layer: last_call(tap, see)}):
        run_until(module, picture, tap.layer, tap.calls)
    if not outputs[0].requires_grad:
        return torch.zeros_like(hit.picture)
    (gradient,) = torch.autograd.grad(outputs[0], picture, allow_unused=True)
    return torch.zeros_like(hit.picture) if gradient is None else gradient[0]


def _by_distance(gradient: Tensor, centre: tuple[float, float]) -> NDArray[np.float64] | None:
    """The energy by distance, the larger of the vertical and the horizontal one, rounded; its sum is 1.

    None where there is none, or the gradient is not finite.
    """
    energy = gradient.double().square().sum(0).cpu().numpy()
    total = energy.sum()
    if not np.isfinite(total) or total <= 0:
        return None
    height, width = energy.shape
    down = np.abs(np.arange(height)[:, None] - centre[0])
    across = np.abs(np.arange(width)[None, :] - centre[1])
    distance = np.ceil(np.maximum(down, across) - 0.5).clip(0).astype(np.int64)
    return np.bincount(distance.ravel(), energy.ravel()).astype(np.float64) / total
