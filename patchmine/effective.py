"""Effective receptive fields: where in its receptive field a layer really looks.

In deep layers the receptive field is larger than the picture, while nearly all of the influence comes from a small
part around its centre (Luo et al. 2016, "Understanding the effective receptive field in deep convolutional neural
networks"). It is measured as the share of the energy of the gradient by distance from the centre, over real
photographs and all channels of a layer at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.geometry import ReceptiveField
from patchmine.network import Tap, last_call, run_until, tapped
from patchmine.units import Position

SAMPLE = 16
"""Photographs that the fields of an index are measured on."""

_AT_ONCE = 2  # photographs in one backward pass: the graph of more takes more memory than all the rest


def effective_fields(
    module: nn.Module, taps: Sequence[Tap], fields: Mapping[str, ReceptiveField], inputs: Tensor, seed: int = 0
) -> dict[str, NDArray[np.float32] | None]:
    """For each layer the share of the gradient's energy within each distance of the centre of the receptive field.

    `inputs` is float32 (images, 3, height, width), normalised. One position of the grid's middle half is drawn for
    each photograph. Entry r of a result (distances,) is the share within the square of half-width r + 0.5 input pixels
    around the centre; the last entries are 1. None where no gradient comes back at all.

    All channels are taken at once with random signs, so that the expected energy is the sum over the channels.
    """
    rng = np.random.default_rng(seed)
    energy = {tap.layer: np.zeros(sum(inputs.shape[2:])) for tap in taps}
    for start in range(0, len(inputs), _AT_ONCE):
        batch = inputs[start : start + _AT_ONCE].clone().requires_grad_()
        places = {tap.layer: [_middle(rng, tap.layout.grid) for _ in batch] for tap in taps}
        sums: dict[str, Tensor] = {}
        with torch.enable_grad(), tapped(module, {t.layer: _probe(t, places[t.layer], rng, sums) for t in taps}):
            run_until(module, batch, taps[-1].layer, taps[-1].calls)
        for layer, total in sums.items():
            (gradient,) = torch.autograd.grad(total, batch, retain_graph=True)
            squared = gradient.double().square().sum(1).numpy()
            for picture, place in zip(squared, places[layer], strict=True):
                energy[layer] += _by_distance(picture, fields[layer].centre(0, place), len(energy[layer]))
    return {layer: _cumulated(found) for layer, found in energy.items()}


def _middle(rng: np.random.Generator, grid: tuple[int, int]) -> Position:
    """A position in the middle half of the grid, away from what padding does at the border."""
    y, x = (int(rng.integers(size // 4, max(size - size // 4, size // 4 + 1))) for size in grid)
    return Position(y, x)


def _probe(
    tap: Tap, places: Sequence[Position], rng: np.random.Generator, sums: dict[str, Tensor]
) -> Callable[[Tensor], None]:
    signs = torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), (len(places), tap.layout.channels)))
    rows, cols = [place.y for place in places], [place.x for place in places]

    def see(output: Tensor) -> None:
        maps = tap.layout.grid_of(output).float()
        sums[tap.layer] = (maps[range(len(places)), :, rows, cols] * signs).sum()

    return last_call(tap, see)


def _by_distance(energy: NDArray[np.float64], centre: tuple[float, float], bins: int) -> NDArray[np.float64]:
    """Energy (height, width) summed by distance: the larger of the vertical and the horizontal one, rounded."""
    height, width = energy.shape
    down = np.abs(np.arange(height)[:, None] - centre[0])
    across = np.abs(np.arange(width)[None, :] - centre[1])
    distance = np.ceil(np.maximum(down, across) - 0.5).clip(0, bins - 1).astype(np.int64)
    return np.bincount(distance.ravel(), energy.ravel(), bins).astype(np.float64)


def _cumulated(energy: NDArray[np.float64]) -> NDArray[np.float32] | None:
    total = energy.sum()
    if not np.isfinite(total) or total <= 0:
        return None
    return np.minimum(np.cumsum(energy) / total, 1).astype(np.float32)
