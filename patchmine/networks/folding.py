"""Prepare a network for mining: fold batch norms into the convolutions before them, and share weights by replicas."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves

from patchmine.networks import virtual
from patchmine.networks.calls import module_and_call
from patchmine.networks.dispatching import Dispatching
from patchmine.networks.taps import Tap, maps

_TOLERANCE = 1e-4  # as a share of a layer's largest value: rounding stays far below, a wrong pair is far above


def replica(module: nn.Module) -> nn.Module:
    """A copy that shares all tensors: it takes no memory for them and has its own hooks."""
    return deep_copy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


def deep_copy(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy, in eval mode if the module is: copies of torchvision's feature extractors are in training mode."""
    copied = virtual.kept(copy.deepcopy(module, memo), module)
    if not module.training:
        copied.eval()
    return copied


def finite_weights(module: nn.Module) -> nn.Module:
    """The module, or a copy with 0 for every weight that is not finite, to take gradients with.

    A unit that is finite does not depend on such a weight. But its gradient passes the weight of a neighbor, times 0,
    and would be NaN.
    """
    tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    if all(bool(tensor.isfinite().all()) for tensor in tensors):
        return module
    copied = deep_copy(module)
    for tensor in (*copied.parameters(), *copied.buffers()):
        if tensor.is_floating_point():
            tensor.data.nan_to_num_(0, 0, 0)
    return copied


def channels_last(module: nn.Module) -> nn.Module:
    """The module, with its feature maps' weights (four dimensions) in the memory format that computes fastest."""
    return module._apply(lambda t: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t)


def folded(module: nn.Module, taps: Sequence[Tap], blank: Tensor) -> nn.Module:
    """A replica with each batch norm folded into the convolution before it, where nothing else reads that output.

    A convolution qualifies if its output is read by one batch norm and nothing else, not even a tap. The outputs at
    the taps are compared with the original's; if they differ by more than rounding, a plain replica is returned.
    """
    candidate = replica(module)
    modules = dict(candidate.named_modules())
    tapped_modules = {module_and_call(tap.layer, modules)[0] for tap in taps}
    for conv, norm in _pairs(candidate, blank, tapped_modules):
        fused = fuse_conv_bn_eval(modules[conv], modules[norm])
        _replace(candidate, conv, fused)
        _replace(candidate, norm, _rest(modules[norm]))
    noise = torch.randn(blank.shape, generator=torch.Generator().manual_seed(0)).to(blank.device)
    before, after = maps(module, noise, taps), maps(candidate, noise, taps)
    for layer, expected in before.items():
        found = after[layer]
        largest = float(expected[expected.isfinite()].abs().max()) if expected.isfinite().any() else 0.0
        if not torch.allclose(expected, found, rtol=_TOLERANCE, atol=_TOLERANCE * largest, equal_nan=True):
            return replica(module)
    return candidate


class _Reads(Dispatching):
    """Counts how often each tensor is an operand; keeps the tensors, so that no identity is reused."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self.kept: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for operand in tree_leaves((args, kwargs)):
            if isinstance(operand, Tensor):
                self.count[id(operand)] += 1
                self.kept.append(operand)
        return func(*args, **(kwargs or {}))


def _pairs(module: nn.Module, blank: Tensor, tapped: set[str]) -> Iterator[tuple[str, str]]:
    """The names of (convolution, batch norm) that can be folded."""
    made: dict[int, str] = {}  # the convolution that returned each tensor
    taken: dict[str, int] = {}  # the tensor that each batch norm got
    calls: Counter[str] = Counter()
    handles = []
    for name, part in module.named_modules():
        # A weight that is computed at each call, by a parametrization or a hook, is not among the parameters.
        if isinstance(part, nn.Conv2d) and name not in tapped and "weight" in part._parameters:
            handles.append(part.register_forward_hook(lambda _m, _i, out, name=name: _note(calls, made, name, out)))
        elif isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
            handles.append(
                part.register_forward_pre_hook(lambda _m, inputs, name=name: _note_input(calls, taken, name, inputs[0]))
            )
    reads = _Reads()
    try:
        with torch.no_grad(), reads:
            module(blank)
    finally:
        for handle in handles:
            handle.remove()
    for norm, tensor in taken.items():
        conv = made.get(tensor)
        if conv is not None and calls[conv] == calls[norm] == 1 and reads.count[tensor] == 1:
            yield conv, norm


def _note(calls: Counter[str], made: dict[int, str], name: str, output: Tensor) -> None:
    calls[name] += 1
    made[id(output)] = name


def _note_input(calls: Counter[str], taken: dict[str, int], name: str, tensor: Tensor) -> None:
    calls[name] += 1
    taken[name] = id(tensor)


def _rest(norm: nn.Module) -> nn.Module:
    """The other operations of a batch norm: timm's may drop and activate, in submodules called `drop` and `act`."""
    rest = nn.Sequential()
    for name, part in norm.named_children():
        rest.add_module(name, part)
    return rest


def _replace(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)
