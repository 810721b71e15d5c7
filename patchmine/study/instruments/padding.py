"""Copies of a network in which every layer uses another padding.

A layer that looks through a window (convolution, pooling) no longer pads by itself: a hook before it passes it a map
that is already extended. Names, weights, and types of the layers stay, so taps, folding, and copies work as before.
Padding in the network's own code is out of reach; `torus` detects it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchmine.errors import RequestError, nearest
from patchmine.networks.folding import replica
from patchmine.networks.taps import run_until, survey

Mode = Literal["zeros", "reflect", "circular"]
Pair = tuple[int, int]

_PADS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)


def padded(module: nn.Module, mode: Mode) -> nn.Module:
    """A copy of the network, with the same weights, whose layers pad in this mode. The original stays untouched.

    `zeros` is the network as trained, whatever its padding.

    `reflect` mirrors each map at its outermost cells, by as many cells as the layer pads; a layer without padding stays
    without. A pool with `ceil_mode` that extends past the edge meets the mirrored map there.

    `circular` is the torus: every convolution and pool wraps around, even without padding, so a map of n cells becomes
    one of n / stride, rounded up. A separate padding layer (`nn.ZeroPad2d`) then only moves the origin, which is a
    roll. Position y sees the same input pixels as before, modulo the canvas.

    Covers nn.Conv2d and its subclasses, nn.MaxPool2d, nn.AvgPool2d, padding layers, and timm's TensorFlow-like `Same`
    layers, CondConv2d, and BlurPool2d. A map smaller than its padding is mirrored or wrapped several times, as in
    numpy's `pad`; `check_room` refuses this where it matters.

    Raises RequestError for an unknown mode.
    """
    if mode not in get_args(Mode):
        raise RequestError(f"unknown padding {mode!r}{nearest(mode, get_args(Mode))}")
    copy = replica(module)
    if mode == "zeros":
        return copy
    for part in copy.modules():
        if isinstance(part, _PADS):
            _replace_pad(part, mode)
        elif isinstance(part, _windowed()):
            border = _border(part, mode)
            _strip(part)
            if border.ever:
                part.register_forward_pre_hook(border)
    return copy


def check_room(module: nn.Module, layer: str, size: Pair) -> None:
    """Raise RequestError if, up to this layer, a copy from `padded` would need a cell of a map several times.

    `size` is the canvas's (height, width). The message names the first layer whose map is too small. Raises ModelError
    for an unknown layer.
    """
    blank = _blank(module, size)
    call = survey(module, blank, [layer])[0].call
    with torch.inference_mode(), _watched(module, partial(_refuse, size=size)):
        run_until(module, blank, layer, call)


def _refuse(name: str, border: Border, grid: Pair, size: Pair) -> None:
    most = 0 if border.mode == "circular" else -1
    for cells, amounts in zip(grid, border.amounts(grid), strict=True):
        if max(amounts) > cells + most:
            way = "wrapped around" if border.mode == "circular" else "mirrored"
            raise RequestError(
                f"a canvas of {size[1]}x{size[0]} pixels is too small: {name} pads {max(amounts)} cells, but its map "
                f"of {grid[1]}x{grid[0]} cannot be {way} that far; give a larger canvas"
            )


@contextmanager
def _watched(module: nn.Module, see: Callable[[str, Border, Pair], None]) -> Iterator[None]:
    """Report each border and the map that it is about to extend."""
    handles = []

    def watch(name: str, border: Border) -> Callable[[nn.Module, Any], None]:
        return lambda _part, inputs: see(name, border, (inputs[0].shape[-2], inputs[0].shape[-1]))

    try:
        for name, part in module.named_modules():
            for hook in [hook for hook in part._forward_pre_hooks.values() if isinstance(hook, Border)]:
                handles.append(part.register_forward_pre_hook(watch(name, hook), prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Border:
    """Extends a layer's map before the layer sees it. It is a hook, so it is copied with the layer.

    `reach` is the window's extent in cells, dilation included, `stride` its step, each (vertical, horizontal). `before`
    and `after` are the layer's trained padding; None if it depends on the map's size, as with TensorFlow's SAME. `ceil`
    is the pool's `ceil_mode`.
    """

    mode: Mode
    reach: Pair
    stride: Pair
    before: Pair | None
    after: Pair | None
    ceil: bool = False

    @property
    def ever(self) -> bool:
        """Whether maps of at least one size are extended."""
        pads = self.before is None or any(self.before) or any(self.after or ()) or self.ceil
        return pads or (self.mode == "circular" and self.reach != (1, 1))

    def amounts(self, grid: Pair) -> tuple[Pair, Pair]:
        """Cells to add to a map of this (height, width): (top, bottom), (left, right); negative amounts crop."""
        return self._along(0, grid[0]), self._along(1, grid[1])

    def _along(self, axis: int, cells: int) -> Pair:
        reach, stride = self.reach[axis], self.stride[axis]
        steps = -(-cells // stride) - 1
        if self.before is None or self.after is None:
            total = max(steps * stride + reach - cells, 0)
            return total // 2, total - total // 2
        before, after = self.before[axis], self.after[axis]
        if self.mode == "circular":
            return before, steps * stride + reach - cells - before
        span = cells + before + after - reach
        if not self.ceil or span < 0:
            return before, after
        steps = -(-span // stride)
        if steps * stride >= cells + before:  # torch: the last window must start inside the map or before it
            steps -= 1
        return before, steps * stride + reach - cells - before

    def __call__(self, _part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        given = inputs[0]
        return extended(given, self.amounts((given.shape[-2], given.shape[-1])), self.mode), *inputs[1:]


@dataclass(frozen=True)
class Roll:
    """Replaces a padding layer on a torus: moves the origin by (down, right) cells."""

    by: Pair

    def __call__(self, _part: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0].roll(self.by, (-2, -1)),)


def extended(maps: Tensor, amounts: tuple[Pair, Pair], mode: Mode) -> Tensor:
    """Maps (..., height, width) extended by (top, bottom), (left, right) cells, mirrored or wrapped.

    Negative amounts crop.
    """
    (top, bottom), (left, right) = amounts
    pads = (left, right, top, bottom)
    if not any(pads):
        return maps
    least = min(maps.shape[-2:]) - (mode == "reflect")
    if min(pads) >= 0 and max(pads) <= least:
        return F.pad(maps, pads, mode=mode)
    for axis, (before, after) in ((-2, amounts[0]), (-1, amounts[1])):
        cells = maps.shape[axis]
        places = torch.arange(-before, cells + after, device=maps.device)
        if mode == "circular":
            places = places % cells
        else:
            period = max(2 * (cells - 1), 1)
            places = places % period
            places = torch.minimum(places, period - places) if cells > 1 else places * 0
        maps = maps.index_select(axis, places)
    return maps


def _replace_pad(part: Any, mode: Mode) -> None:
    left, right, top, bottom = part.padding
    part.padding = (0, 0, 0, 0)
    if mode == "circular":
        part.register_forward_pre_hook(Roll((top, left)))
    else:
        part.register_forward_pre_hook(Border(mode, (1, 1), (1, 1), (top, left), (bottom, right)))


def _timm() -> Any:
    """timm's layers, if timm is already loaded: importing timm takes seconds."""
    return sys.modules.get("timm.layers")


def _windowed() -> tuple[type[nn.Module], ...]:
    own = _timm()
    return (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, *((own.CondConv2d, own.BlurPool2d) if own else ()))


_SAME = ("patchmine.models._efficientnet", "timm.layers.conv2d_same", "timm.layers.pool2d_same")
"""The modules whose layers pad in their code; each layer derives from its counterpart without padding."""


def _border(part: Any, mode: Mode) -> Border:
    """The border of a layer, read from its attributes."""
    kernel = _pair(part.filt_size if hasattr(part, "filt_size") else part.kernel_size)
    dilation = _pair(getattr(part, "dilation", 1))
    reach = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    before, after = _trained(part, reach)
    return Border(mode, reach, _pair(part.stride), before, after, getattr(part, "ceil_mode", False))


def _trained(part: Any, reach: Pair) -> tuple[Pair | None, Pair | None]:
    if type(part).__module__ in _SAME or getattr(part, "same_pad", False) or getattr(part, "dynamic_padding", False):
        return None, None
    if part.padding == "valid":
        return (0, 0), (0, 0)
    if part.padding == "same":
        before = ((reach[0] - 1) // 2, (reach[1] - 1) // 2)
        return before, (reach[0] - 1 - before[0], reach[1] - 1 - before[1])
    if len(_tuple(part.padding)) == 4:  # timm's BlurPool2d
        left, right, top, bottom = part.padding
        return (top, left), (bottom, right)
    return _pair(part.padding), _pair(part.padding)


def _strip(part: Any) -> None:
    """Remove a layer's own padding."""
    if type(part).__module__ in _SAME:
        part.__class__ = type(part).__bases__[0]
    if hasattr(part, "filt_size"):
        part.padding, part.pad_mode = [0, 0, 0, 0], "constant"
        return
    part.padding = (0, 0)
    for name, without in (
        ("padding_mode", "zeros"),
        ("_reversed_padding_repeated_twice", [0, 0, 0, 0]),
        ("ceil_mode", False),
        ("same_pad", False),
        ("dynamic_padding", False),
    ):
        if hasattr(part, name):
            setattr(part, name, without)


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _pair(value: Any) -> Pair:
    values = _tuple(value)
    return values[0], values[-1]


def _blank(module: nn.Module, size: Pair) -> Tensor:
    some = next(iter(module.parameters()), torch.zeros(()))
    return torch.zeros(1, 3, *size, device=some.device, dtype=some.dtype)


__all__ = ["Border", "Mode", "Roll", "check_room", "extended", "padded"]
