"""Choose the layers of a network to index: by pattern, or by default the outputs of its stages, free of ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError, nearest
from patchmine.networks.layouts import layout_of
from patchmine.networks.network import Network
from patchmine.owncode.faults import fault_of, reason

BOUNDED = (nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign)
"""Activations with an upper bound that many photographs reach exactly, which makes a top 25 arbitrary."""


@dataclass(frozen=True)
class Call:
    """One call of a submodule in a forward pass. `output` and `inputs` identify its tensors."""

    layer: str
    module: nn.Module
    channels: int
    grid: tuple[int, int]
    output: int
    inputs: tuple[int, ...]
    leaf: bool


def trace(network: Network) -> tuple[Call, ...]:
    """Every call of a submodule whose output can be read as a grid, in the order in which the calls end.

    Raises ModelError if the network cannot take an input of its own size.
    """
    calls: list[Call] = []
    alive: list[object] = []  # keeps the tensors, so that no identity is used twice

    def hook(layer: str, module: nn.Module) -> object:
        leaf = not any(True for _ in module.children())

        def see(_module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if not isinstance(output, Tensor):
                return
            try:
                layout = layout_of(layer, module, output)
            except ModelError:
                return
            alive.append((inputs, output))
            tensors = tuple(id(i) for i in inputs if isinstance(i, Tensor))
            calls.append(Call(layer, module, layout.channels, layout.grid, id(output), tensors, leaf))

        return module.register_forward_hook(see)

    handles = [hook(layer, module) for layer, module in network.module.named_modules() if layer]
    try:
        with torch.no_grad():
            network.module(network.blank())
    except Exception as error:
        raise ModelError(
            f"{network.name} cannot take an input of {'x'.join(map(str, network.preprocessing.crop))} pixels: "
            f"{fault_of(error) or reason(error)}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    return tuple(calls)


def choose(network: Network, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers that match the patterns, in the order of the network; without patterns, the default layers.

    A pattern is a dotted name or a shell pattern over dotted names. Raises ModelError for one that matches no layer.
    """
    if not patterns:
        return network.stages or stages(network)
    called = list(dict.fromkeys(call.layer for call in trace(network)))
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = [layer for layer in called if fnmatchcase(layer, pattern)]
        if not fitting:
            exists = pattern in dict(network.module.named_modules())
            if exists:
                raise ModelError(f"layer {pattern!r} of {network.name} has no output to index: choose another layer")
            raise ModelError(f"no layer of {network.name} matches {pattern!r}{nearest(pattern, called)}")
        chosen.update(fitting)
    return tuple(layer for layer in called if layer in chosen)


def stages(network: Network) -> tuple[str, ...]:
    """The outermost modules after which the resolution changes, and the last grid before pooling.

    A module inside which the resolution changes more than once is a container, and its children are considered
    instead. An output that comes directly from a bounded activation is read before that activation. Raises ModelError
    if no layer has a grid.
    """
    calls = trace(network)
    by_layer = {call.layer: call for call in calls}
    atoms: list[Call] = []

    def visit(prefix: str) -> None:
        children = [
            c
            for c in dict.fromkeys(call.layer for call in calls)
            if (c.rpartition(".")[0] == prefix if prefix else "." not in c)
        ]
        # Containers that are never called themselves (a ModuleList) are replaced by their children.
        uncalled = {
            call.layer[: len(prefix) + bool(prefix)] + call.layer[len(prefix) + bool(prefix) :].split(".")[0]
            for call in calls
            if not prefix or call.layer.startswith(prefix + ".")
        } - set(children)
        order = {call.layer: i for i, call in enumerate(calls)}
        for child in sorted(children, key=order.__getitem__):
            grids = [c.grid for c in calls if c.layer == child or c.layer.startswith(child + ".")]
            if _is_container(by_layer[child], [grid for grid in grids if grid != (1, 1)]):
                visit(child)
            else:
                atoms.append(by_layer[child])
        for container in sorted(uncalled):
            visit(container)

    visit("")
    order = {call.output: i for i, call in enumerate(calls)}
    atoms.sort(key=lambda call: order[call.output])
    chosen = [
        atom
        for atom, following in zip(atoms, [*atoms[1:], None], strict=True)
        if atom.grid != (1, 1) and (following is None or following.grid != atom.grid)
    ]
    if not chosen:
        raise ModelError(f"{network.name} has no layer with a grid: choose layers with --layers")
    return tuple(dict.fromkeys(_before_bound(atom, calls).layer for atom in chosen))


def _is_container(call: Call, grids: Sequence[tuple[int, int]]) -> bool:
    """Whether the resolution changes more than once inside; parallel branches of a block do not count twice."""
    if call.leaf:
        return False
    if isinstance(call.module, nn.Sequential):
        return sum(a != b for a, b in pairwise(grids)) > 1
    return len(set(grids)) > 2


def _before_bound(call: Call, calls: Sequence[Call]) -> Call:
    """The call whose output went into the bounded activation that made this output, or else the call itself."""
    bound = next((c for c in calls if c.output == call.output and isinstance(c.module, BOUNDED)), None)
    if bound is None or not bound.inputs:
        return call
    return next((c for c in calls if c.output == bound.inputs[0] and c.leaf and c is not bound), call)
