"""How much of a crop is real: the share of a patch's activation that the crop alone brings back.

Each crop is put on a neutral background (the grey that normalisation maps to 0) at its original place and scale and
fed through the network again. The share is (crop - blank) / (whole - blank), where blank is what the unit does at that
position on the bare background: 1 when the crop explains the activation, 0 when it explains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchmine.errors import RequestError, StoreError
from patchmine.networks.network import Network, Tap, last_call, run_until, survey, tapped
from patchmine.photographs.decode import normalised, prepare
from patchmine.reading.opened import Crop, Index, shown
from patchmine.units import Box, Patch, Unit

CROPS: tuple[Crop, ...] = ("rf", "erf")
_BATCH = 8
_TOO_NEAR = 1e-3  # of the unit's spread: where the whole picture does no more than the background, no share is defined


@dataclass(frozen=True)
class Retained:
    """The shares of the patches of one unit under one crop, float64 (patches,)."""

    unit: Unit
    crop: Crop
    shares: NDArray[np.float64]


def retained(
    index: Index,
    network: Network,
    *,
    units: int,
    k: int,
    share: float,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Retained]:
    """Shares for `units` units of each layer (drawn with the seed) and the top k patches of each, for every crop.

    `network` comes from `models.load_for_index`. `advance` is told how many patches have been fed back. Raises
    StoreError when a layer is not as the index has it; PhotographError and SourceError when photographs have gone.
    """
    if index.preprocessing.view == "whole":
        raise RequestError(f"{index.name} shows photographs whole, and crops are compared at one input size only")
    rng = np.random.default_rng(seed)
    found: list[Retained] = []
    for layer, channels in index.layers.items():
        network.layer(layer)
        (tap,) = survey(network.module, network.blank(), [layer])
        if (tap.layout.channels, tap.layout.grid) != (channels, index.field(layer).grid):
            raise StoreError(
                f"layer {layer} of {network.name} is not as {index.name} has it; build it again with --fresh"
            )
        background = _activations(network, tap, torch.zeros(1, 3, *network.preprocessing.crop))[0]
        for channel in sorted(rng.choice(channels, min(units, channels), replace=False).tolist()):
            patches = index.unit(f"{layer}:{channel}").top(k)
            pictures = [_input(index, network, patch) for patch in patches]
            for crop in CROPS:
                alone = [
                    _alone(picture, shown(index.field(layer), channel, patch.position, crop, share))
                    for picture, patch in zip(pictures, patches, strict=True)
                ]
                maps = _activations(network, tap, torch.stack(alone))
                shares = _shares(patches, maps, background, index.stats(layer)["std"][channel])
                found.append(Retained(Unit(layer, channel), crop, shares))
                advance(len(patches))
    return found


def summary(found: Sequence[Retained]) -> list[dict[str, Any]]:
    """Per layer and crop: patches, median, and the tenth percentile of the shares."""
    rows = []
    for layer in dict.fromkeys(entry.unit.layer for entry in found):
        for crop in CROPS:
            shares = np.concatenate([e.shares for e in found if e.unit.layer == layer and e.crop == crop])
            low, middle = np.quantile(shares, [0.1, 0.5]).tolist() if len(shares) else (None, None)
            rows.append({"layer": layer, "crop": crop, "patches": len(shares), "median": middle, "p10": low})
    return rows


def _input(index: Index, network: Network, patch: Patch) -> Tensor:
    pixels = prepare(index.photograph(patch.image_id), network.preprocessing).tensor
    return normalised(pixels[None], network.preprocessing)[0]


def _alone(picture: Tensor, box: Box) -> Tensor:
    alone = torch.zeros_like(picture)
    cut = (slice(None), slice(box.top, box.bottom), slice(box.left, box.right))
    alone[cut] = picture[cut]
    return alone


def _activations(network: Network, tap: Tap, inputs: Tensor) -> Tensor:
    """The layer's maps (N, channels, grid height, grid width) for normalised inputs."""
    maps: list[Tensor] = []

    def see(output: Tensor) -> None:
        maps.append(tap.layout.grid_of(output).float().clone())

    for start in range(0, len(inputs), _BATCH):
        with torch.inference_mode(), tapped(network.module, {tap.layer: last_call(tap, see)}):
            run_until(network.module, inputs[start : start + _BATCH], tap.layer, tap.calls)
    return torch.cat(maps)


def _shares(patches: Sequence[Patch], maps: Tensor, background: Tensor, spread: float) -> NDArray[np.float64]:
    shares = []
    for patch, found in zip(patches, maps, strict=True):
        place = (patch.unit.channel, patch.position.y, patch.position.x)
        blank = float(background[place])
        if abs(patch.value - blank) > _TOO_NEAR * spread:
            shares.append((float(found[place]) - blank) / (patch.value - blank))
    return np.array(shares, np.float64)
