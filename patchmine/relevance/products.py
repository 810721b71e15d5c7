"""Products of inputs and weights, there and back: what the rule z+ computes most of.

On a CPU, oneDNN keeps each weight in the layout that its kernels read. Through torch's usual functions it would
rearrange the weight at every call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-30
"""What is added to a sum that is divided by, so that 0 / 0 is not NaN."""


class Matrix:
    """A weight (outputs, inputs) that takes rows (n, inputs) to rows (n, outputs).

    `packed` is for products that come again with as many rows: oneDNN compiles a kernel for each number.
    """

    def __init__(self, weight: Tensor, packed: bool = True) -> None:
        self._least = weight.new_full(weight.shape[:1], LEAST)
        self._packed = packed and _packs(weight)
        self._weight = weight.contiguous()
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)

    def __call__(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self._packed:
            return F.linear(rows, self._weight, bias)
        if not len(rows):
            return rows.new_zeros(0, len(self._least))
        found: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, self._weight, bias, "none", [], "")
        return found

    def positive(self, rows: Tensor) -> Tensor:
        """The same of contributions that are not negative, to be divided by."""
        return self(rows, self._least)


@dataclass(frozen=True)
class Geometry:
    """How a convolution of two dimensions moves over its input."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class Convolution:
    """A weight (outputs, inputs of a group, height, width) that takes maps (images, channels, height, width) to maps,
    and back."""

    def __init__(self, weight: Tensor, geometry: Geometry) -> None:
        self._least = weight.new_full(weight.shape[:1], LEAST)
        self._there = _Kernel(weight, geometry)
        self._weight, self._geometry = weight, geometry
        self._back: _Kernel | None = None
        reach = (step * (size - 1) for step, size in zip(geometry.dilation, weight.shape[2:], strict=True))
        down, right = (size - edge for size, edge in zip(reach, geometry.padding, strict=True))
        if geometry.stride == (1, 1) and min(down, right) >= 0:
            # The way back through single steps is the convolution by the flipped kernel, which oneDNN does faster.
            flipped = weight.flip(2, 3).unflatten(0, (geometry.groups, -1)).transpose(1, 2).flatten(0, 1)
            self._back = _Kernel(flipped, Geometry((1, 1), (down, right), geometry.dilation, geometry.groups))

    def positive(self, maps: Tensor) -> Tensor:
        """The output for contributions that are not negative, to be divided by."""
        return self._there(maps, self._least)

    def back(self, given: Tensor, maps: Tensor) -> Tensor:
        """What the inputs `maps` get of `given`, which has the shape of the output."""
        if self._back is not None:
            return self._back(given)
        how = self._geometry
        words = (how.stride, how.padding, how.dilation, False, (0, 0), how.groups, (True, False, False))
        found: Tensor = torch.ops.aten.convolution_backward.default(given, maps, self._weight, None, *words)[0]
        return found


class _Kernel:
    """The weight of a convolution, packed as fits the first maps best. Those of another size are computed too."""

    def __init__(self, weight: Tensor, geometry: Geometry) -> None:
        self._weight, self._geometry = weight.contiguous(memory_format=torch.channels_last), geometry
        self._packed: Tensor | None = None

    def __call__(self, maps: Tensor, bias: Tensor | None = None) -> Tensor:
        how = self._geometry
        if not _packs(self._weight) or not maps.numel():
            return F.conv2d(maps, self._weight, bias, how.stride, how.padding, how.dilation, how.groups)
        words: tuple[Any, ...] = (how.padding, how.stride, how.dilation, how.groups)
        maps = maps.contiguous(memory_format=torch.channels_last)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *words, maps.shape)
        convolve = torch.ops.mkldnn._convolution_pointwise.default
        found: Tensor = convolve(maps, self._packed, bias, *words, "none", [], "")
        return found


def _packs(weight: Tensor) -> bool:
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32
    return plain and bool(torch.backends.mkldnn.enabled) and _able()


@cache
def _able() -> bool:
    """Whether this torch has what its own compiler packs weights with; it is not promised to later ones."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_reorder_convolution_weight", "_convolution_pointwise")
    return all(hasattr(torch.ops.mkldnn, name) for name in names)
