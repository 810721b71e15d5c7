"""Retained activation: the share of a patch's activation that its crop alone brings back.

Each crop is put on a neutral background (the gray that normalization maps to 0) at its original place and scale and
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

from patchmine.errors import RequestError
from patchmine.fields.cropping import Cropping
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.networks.taps import Tap, maps
from patchmine.photographs.decode import normalized, prepare
from patchmine.questions.look import surveyed
from patchmine.reading.opened import OpenIndex
from patchmine.reading.patch import Patch
from patchmine.tight.crop import TOO_NEAR
from patchmine.units import Box, Unit

CROPS = ("rf", "erf")
_BATCH = 8


@dataclass(frozen=True)
class Retained:
    """The shares of the patches of one unit under one crop, float64 (patches,)."""

    unit: Unit
    crop: str
    shares: NDArray[np.float64]


@with_own_settings
def retained(
    index: OpenIndex[Any],
    *,
    units: int,
    k: int,
    share: float,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Retained]:
    """Shares for `units` units of each layer (drawn with the seed) and the top k patches of each, for every crop.

    `advance` receives the number of patches that went through the network. Raises StoreError when a layer is not as the
    index has it, PhotographError and SourceError when photographs have gone, and what `OpenIndex.network` raises.
    """
    if index.preprocessing.view == "whole":
        raise RequestError(f"{index.name} was built with --view whole, but --crops needs one input size for all")
    network = index.network()
    rng = np.random.default_rng(seed)
    found: list[Retained] = []
    for layer, channels in index.layers.items():
        (tap,), fields = surveyed(index, network, [layer], network.preprocessing.crop)
        background = _activations(network, tap, torch.zeros(1, 3, *network.preprocessing.crop))[0]
        for channel in sorted(rng.choice(channels, min(units, channels), replace=False).tolist()):
            patches = index.unit(Unit(layer, channel)).top(k)
            pictures = [_input(network, patch) for patch in patches]
            for crop in CROPS:
                cropping = Cropping(crop, share)
                shares = np.zeros(0)
                if patches:
                    alone = [
                        _alone(picture, cropping.box(fields[layer], channel, patch.position))
                        for picture, patch in zip(pictures, patches, strict=True)
                    ]
                    seen = _activations(network, tap, torch.stack(alone))
                    shares = _shares(patches, seen, background, index.stats(layer)["std"][channel])
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


def _input(network: Network, patch: Patch) -> Tensor:
    pixels = prepare(patch.photograph(), network.preprocessing).tensor
    return normalized(pixels[None], network.preprocessing)[0]


def _alone(picture: Tensor, box: Box) -> Tensor:
    alone = torch.zeros_like(picture)
    cut = (slice(None), slice(box.top, box.bottom), slice(box.left, box.right))
    alone[cut] = picture[cut]
    return alone


def _activations(network: Network, tap: Tap, inputs: Tensor) -> Tensor:
    """The layer's maps, float32 (images, channels, grid height, grid width), for normalized inputs."""
    parts = inputs.split(_BATCH)
    return torch.cat([maps(network.module, part, (tap,))[tap.layer].float() for part in parts])


def _shares(patches: Sequence[Patch], seen: Tensor, background: Tensor, spread: float) -> NDArray[np.float64]:
    shares = []
    for patch, found in zip(patches, seen, strict=True):
        place = (patch.unit.channel, patch.position.y, patch.position.x)
        blank = float(background[place])
        if abs(patch.value - blank) > TOO_NEAR * spread:
            shares.append((float(found[place]) - blank) / (patch.value - blank))
    return np.array(shares, np.float64)
