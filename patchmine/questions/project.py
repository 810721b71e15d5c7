"""Projections: the part of a patch that drives the unit, drawn in the pixels of the network's input.

All are captum's. Each is of one unit at one position in one photograph, and of the network up to the unit's layer:

- `deconv`: Zeiler & Fergus 2013, "Visualizing and understanding convolutional networks": back through transposed
  convolutions and the switches of max pooling, rectifying what comes back at every ReLU, whatever went forward there.
  It begins with 1 at the position instead of the activation, which is a factor and no other picture.
- `guided`: Springenberg et al. 2014, "Striving for simplicity": the same, but nothing comes back either where
  nothing went forward.
- `gradxinput`: the gradient times the input. `ig`: integrated gradients (Sundararajan et al. 2017), from a mean-gray
  picture in STEPS steps. Both in the normalized input, where 0 is the mean gray of the training photographs.
- `occlusion`: how much the activation falls when a mean-gray square lies there: two strides of the layer wide, moved
  by one stride at a time, inside the crop. Where that would be more than MOST_STEPS steps along a side, both are as
  many times larger as it takes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchmine import defaults
from patchmine.networks.folding import finite_weights
from patchmine.networks.session import with_own_settings
from patchmine.photographs.decode import normalized, prepare
from patchmine.questions.look import surveyed
from patchmine.questions.rectifiers import Until
from patchmine.reading.opened import OpenIndex
from patchmine.reading.patch import Patch
from patchmine.system.progress import Progress, Silent
from patchmine.units import Box

STEPS = 50
"""Steps of the path integral of integrated gradients."""
MOST_STEPS = 24
"""Most steps of the occluding square, down and across each."""
AT_ONCE = 8
"""Pictures in one pass of the methods that need many: memory grows with it, speed hardly."""


@dataclass(frozen=True)
class _Way:
    """One layer for one size of input."""

    until: Until
    stride: tuple[int, int]


class Projector:
    """Projects units of an index into its photographs; asks one photograph at a time.

    `progress` receives each projection. Raises RequestError for an unknown method and where captum is not installed,
    and what `OpenIndex.network` raises.
    """

    def __init__(self, index: OpenIndex[Any], method: str, progress: Progress | None = None) -> None:
        defaults.check({"project": method})
        import captum.attr

        self.index, self.method, self.progress = index, method, progress or Silent()
        self._attr: ModuleType = captum.attr
        self._network = index.network()
        self._module = finite_weights(self._network.module)
        self._ways: dict[tuple[str, tuple[int, int]], _Way] = {}

    @with_own_settings
    def __call__(self, patch: Patch, region: Box) -> NDArray[np.float32]:
        """The projection of a patch of the index: float32 (3, height, width) of the whole input, in input pixels.

        `occlusion` moves inside `region` (input pixels) alone and is 0 outside; the others do not need it. The
        hooks, flags and gradients of the network stay unchanged. Raises RequestError if the method cannot pass through
        the network up to this layer, StoreError if the layer differs from that in the index, PhotographError if the
        photograph is not the one that was indexed.
        """
        pixels = prepare(patch.photograph(), self.index.preprocessing)
        picture = normalized(pixels.tensor[None], self.index.preprocessing)
        way = self._way(patch.unit.layer, picture)
        picture.requires_grad_(self.method != "occlusion")
        target = (patch.unit.channel, patch.position.y, patch.position.x)
        with warnings.catch_warnings():
            # It says that it sets hooks and removes them: they are on no part of the network.
            warnings.filterwarnings("ignore", "Setting backward hooks", UserWarning)
            found: Tensor = _METHODS[self.method](self._attr, way, picture, target, region)
        self.progress.advance(1)
        values: NDArray[np.float32] = found[0].detach().float().numpy()
        return values

    def remark(self, layers: Iterable[str]) -> str | None:
        """A remark that a reader of projections from these layers needs; None if there is none.

        Raises what a projection raises.
        """
        if self.method != "deconv":
            return None
        blind = [
            layer
            for layer in dict.fromkeys(layers)
            if self._way(layer, torch.zeros(1, 3, *self.index.field(layer).input)).until.fixed
        ]
        if not blind:
            return None
        return (
            f"No max pooling lies before {', '.join(blind)}: deconvnet projections from there are the same in "
            "every photograph, except at its border. Those of guided backpropagation differ."
        )

    def _way(self, layer: str, picture: Tensor) -> _Way:
        size = (picture.shape[2], picture.shape[3])
        if (layer, size) not in self._ways:
            (tap,), fields = surveyed(self.index, self._network, [layer], size)
            until = Until(self._module, tap, rectified=self.method in ("deconv", "guided")).eval()
            if self.method != "occlusion":
                until.find(picture, self.method)
            grid, strides = fields[layer].grid, [group.stride for group in fields[layer].groups]
            stride = strides[0] or (max(1, size[0] // grid[0]), max(1, size[1] // grid[1]))
            self._ways[layer, size] = _Way(until, stride)
        return self._ways[layer, size]


Target = tuple[int, int, int]


def _deconv(attr: Any, way: _Way, picture: Tensor, target: Target, _region: Box) -> Any:
    return attr.Deconvolution(way.until).attribute(picture, target)


def _guided(attr: Any, way: _Way, picture: Tensor, target: Target, _region: Box) -> Any:
    return attr.GuidedBackprop(way.until).attribute(picture, target)


def _gradxinput(attr: Any, way: _Way, picture: Tensor, target: Target, _region: Box) -> Any:
    return attr.InputXGradient(way.until).attribute(picture, target)


def _ig(attr: Any, way: _Way, picture: Tensor, target: Target, _region: Box) -> Any:
    method = attr.IntegratedGradients(way.until)
    return method.attribute(picture, target=target, n_steps=STEPS, internal_batch_size=AT_ONCE)


def _occlusion(attr: Any, way: _Way, picture: Tensor, target: Target, region: Box) -> Any:
    region = region.intersect(Box(0, 0, picture.shape[3], picture.shape[2]))
    inside = (slice(None), slice(None), slice(region.top, region.bottom), slice(region.left, region.right))

    def seen(windows: Tensor) -> Tensor:
        pictures = picture.repeat(len(windows), 1, 1, 1)
        pictures[inside] = windows
        activation: Tensor = way.until(pictures)[(slice(None), *target)]
        return activation

    found = torch.zeros_like(picture)
    if region.area:
        down, across = _step(way.stride[0], region.height), _step(way.stride[1], region.width)
        found[inside] = attr.Occlusion(seen).attribute(
            picture[inside],
            sliding_window_shapes=(3, min(2 * down, region.height), min(2 * across, region.width)),
            strides=(3, down, across),
            perturbations_per_eval=AT_ONCE,
        )
    return found


def _step(stride: int, length: int) -> int:
    """How far an occluding square moves along a side of this length, in pixels."""
    return min(stride * ceil(length / (stride * MOST_STEPS)), length)


_METHODS = {"deconv": _deconv, "guided": _guided, "gradxinput": _gradxinput, "ig": _ig, "occlusion": _occlusion}


__all__ = ["Projector"]
