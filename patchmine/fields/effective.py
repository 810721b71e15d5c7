"""Effective receptive fields: the part of its receptive field that a layer really responds to.

In deep layers the receptive field is larger than the image, but nearly all of the influence comes from a small part
around its center (Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural
networks"). The effective field is the share of the gradient's energy by distance from the center. It is measured where
units fire hardest, because layers look at more there than elsewhere, and those places become the crops.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.networks.taps import Tap, at_call, run_until, tapped
from patchmine.units import Position

Energy = NDArray[np.float64]


@dataclass(frozen=True)
class Hit:
    """A firing unit: `channel` at `position`, on `picture` float32 (3, height, width), normalized.

    `center` is the center (y, x) of its receptive field in input pixels; whole numbers are pixel centers.
    """

    channel: int
    position: Position
    center: tuple[float, float]
    picture: Tensor


def effective_field(energies: Iterable[Energy | None]) -> NDArray[np.float32] | None:
    """The share of the gradient's energy within each distance of the center of the receptive field, from some hits.

    Entry r of the result (distances,) is the share within the square of half-width r + 0.5 input pixels around the
    center; the last entry is 1. Every hit has the same weight. None if no gradient reaches the input.
    """
    found = [energy for energy in energies if energy is not None]
    if not found:
        return None
    total = np.zeros(max(map(len, found)))
    for energy in found:
        total[: len(energy)] += energy
    return np.minimum(np.cumsum(total) / total.sum(), 1).astype(np.float32)


def energy_of(module: nn.Module, tap: Tap, hit: Hit) -> Energy | None:
    """The energy of a hit's gradient by distance from its center, with the sum 1.

    None if the gradient is zero everywhere or not finite.
    """
    return _by_distance(_gradient(module, tap, hit), hit.center)


def _gradient(module: nn.Module, tap: Tap, hit: Hit) -> Tensor:
    """The gradient of the unit's activation with respect to the image: float32 (3, height, width)."""
    picture = hit.picture[None].clone(memory_format=torch.channels_last).requires_grad_()
    outputs: list[Tensor] = []

    def see(output: Tensor) -> None:
        place = hit.position.y * tap.layout.grid[1] + hit.position.x
        where = (torch.tensor([number], device=output.device) for number in (0, hit.channel, place))
        outputs.append(tap.layout.cells(tap.layout.vectors_of(output), *where)[0].float())

    with torch.enable_grad(), tapped(module, {tap.layer: at_call(tap, see)}):
        run_until(module, picture, tap.layer, tap.call)
    if not outputs[0].requires_grad:
        return torch.zeros_like(hit.picture)
    (gradient,) = torch.autograd.grad(outputs[0], picture, allow_unused=True)
    return torch.zeros_like(hit.picture) if gradient is None else gradient[0]


def _by_distance(gradient: Tensor, center: tuple[float, float]) -> Energy | None:
    """The energy by distance: the larger of the vertical and the horizontal one, rounded."""
    energy = gradient.double().square().sum(0).cpu().numpy()
    total = energy.sum()
    if not np.isfinite(total) or total <= 0:
        return None
    height, width = energy.shape
    down = np.abs(np.arange(height)[:, None] - center[0])
    across = np.abs(np.arange(width)[None, :] - center[1])
    distance = np.ceil(np.maximum(down, across) - 0.5).clip(0).astype(np.int64)
    return np.bincount(distance.ravel(), energy.ravel()).astype(np.float64) / total
