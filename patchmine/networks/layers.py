"""Choose the layers of a network to index: by pattern, or by default the outputs of its stages, free of ties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import filter, fnmatchcase
from itertools import pairwise, zip_longest

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError, PatchmineError, nearest
from patchmine.networks.calls import MARK, aliases, module_and_call, name_of, no_such_call, resolved, storable
from patchmine.networks.layouts import CHANNELS_FIRST, Layout, Prefix, layout_of
from patchmine.networks.network import Network
from patchmine.networks.taps import survey
from patchmine.networks.virtual import carried
from patchmine.owncode.faults import fault_of, reason

BOUNDED = (nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign)
"""Activations with an upper bound that many photographs reach exactly, which makes a top 25 arbitrary."""


@dataclass(frozen=True)
class Call:
    """One call of a submodule in a forward pass. `output` and `inputs` identify its tensors.

    `layer` is the dotted name of the submodule, and this is number `call` of its `calls`, from 1. `layout` says how the
    output is read, which may be its tokens beside the grid alone. `nan` says whether the output for a blank input has a
    NaN.
    """

    layer: str
    call: int
    calls: int
    module: nn.Module
    layout: Layout
    output: int
    inputs: tuple[int, ...]
    leaf: bool
    nan: bool

    @property
    def name(self) -> str:
        """The name by which this call is indexed: the dotted name alone is the last call."""
        return name_of(self.layer, self.call, self.calls, self.layout.group)

    @property
    def channels(self) -> int:
        return self.layout.channels

    @property
    def grid(self) -> tuple[int, int]:
        return self.layout.grid

    @property
    def last(self) -> bool:
        return self.call == self.calls


def trace(network: Network) -> tuple[Call, ...]:
    """Every call of a submodule whose output can be read as a grid, in the order in which the calls end.

    A sequence of tokens gives the call with its grid, and then one for each group of tokens beside it. A call before
    the last is left out if a submodule has its name, such as `relu@1`. What a module makes of a sequence inside itself,
    such as the queries of each attention head, is no grid.

    Raises ModelError if the network cannot take an input of its own size.
    """
    calls: list[Call] = []
    counts: Counter[str] = Counter()
    alive: list[object] = []  # keeps the tensors, so that no identity is used twice
    running: list[tuple[str, nn.Module, tuple[object, ...]]] = []
    prefix = Prefix.of(network.module)

    def enter(layer: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        return lambda module, inputs: running.append((layer, module, inputs))

    def leave(layer: str, module: nn.Module) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        leaf = not any(True for _ in module.children())

        def see(_module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            running.pop()
            counts[layer] += 1
            if not isinstance(output, Tensor):
                return
            if output.ndim == 4 and not isinstance(module, CHANNELS_FIRST) and any(map(_takes_tokens, running)):
                return  # one sequence for each attention head
            try:
                grid = layout_of(layer, module, output, network.preprocessing.crop, prefix)
            except ModelError:
                return
            alive.append((inputs, output))
            tensors, call = tuple(id(i) for i in inputs if isinstance(i, Tensor)), counts[layer]
            for part in (grid, *grid.groups(prefix.has_class).values()):
                nan = bool(part.grid_of(output).isnan().any())
                calls.append(Call(layer, call, call, module, part, id(output), tensors, leaf, nan))

        return see

    modules = {layer: module for layer, module in network.module.named_modules() if layer}
    handles = [module.register_forward_pre_hook(enter(layer)) for layer, module in modules.items()]
    handles += [module.register_forward_hook(leave(layer, module)) for layer, module in modules.items()]
    try:
        with torch.no_grad():
            network.module(network.blank())
    except PatchmineError:
        raise
    except Exception as error:  # whatever the network raises, it cannot be indexed
        raise _refused(network, error, *(running[-1] if running else ("", network.module, ()))) from error
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise ModelError(
            f"{network.name} calls no submodule that returns feature maps, tokens or a vector, so it has no layer to "
            "index: return a module that has its layers as submodules"
        )
    return tuple(_counted(calls, counts, modules))


def _counted(calls: Sequence[Call], counts: Mapping[str, int], modules: Container[str]) -> Iterator[Call]:
    """The calls with the number of calls of their modules, without those whose name a module has."""
    for call in calls:
        counted = replace(call, calls=counts[call.layer])
        if (counted.last and not counted.layout.group) or counted.name not in modules:
            yield counted


def _takes_tokens(running: tuple[str, nn.Module, tuple[object, ...]]) -> bool:
    """Whether the module is called on a sequence of tokens."""
    _, _, inputs = running
    return bool(inputs) and isinstance(inputs[0], Tensor) and inputs[0].ndim == 3


def _refused(
    network: Network, error: Exception, layer: str, module: nn.Module, inputs: tuple[object, ...]
) -> ModelError:
    """The error for a network whose layer, the innermost one that was running, cannot take a blank input."""
    given = inputs[0] if inputs else None
    wants = getattr(module, "in_channels", 3)
    if isinstance(module, nn.Conv2d) and isinstance(given, Tensor) and given.ndim == 4 and given.shape[1] == 3 != wants:
        gray = ", such as nn.Sequential(torchvision.transforms.Grayscale(), net)" if wants == 1 else ""
        return ModelError(
            f"layer {layer!r} of {network.name} takes {wants} channel{'s' * (wants != 1)}, but photographs have 3 (RGB)"
            f": return a module that takes 3 and makes {wants} of them first{gray}"
        )
    height, width = network.preprocessing.crop
    where = f" in layer {layer!r}" if layer else ""
    fault = fault_of(error)
    why = fault or f"{reason(error)} (its forward gets one tensor, float32 (1, 3, {height}, {width}))"
    return ModelError(f"{network.name} cannot take an input of {height}x{width} pixels{where}: {why}")


def choose(network: Network, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers that match the patterns, in the order of the network; without patterns, the default layers.

    A pattern is a dotted name or a shell pattern over dotted names. Only one with an `@` matches a call before the last
    of its module, and tokens beside the grid. Virtual layers come last: all of them, whatever the patterns are. Raises
    ModelError for a pattern that matches no layer.
    """
    added = tuple(carried(network.module))
    own = [pattern for pattern in patterns if not (MARK in pattern and filter(added, pattern))]
    return (*(() if patterns and not own else _own(network, own)), *added)


def _own(network: Network, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers of the network itself that `choose` gives."""
    if not patterns:
        chosen_by_default = network.stages or stages(network)
        unfilled = _unfilled(network)
        if unfilled.issuperset(chosen_by_default):
            raise _lacks(network, chosen_by_default[0])
        return tuple(layer for layer in chosen_by_default if layer not in unfilled)
    calls = trace(network)
    called = [call.name for call in calls]
    chosen: frozenset[str] = frozenset()
    for pattern in patterns:
        exact = [
            call.name for call in calls if pattern in (call.name, name_of(call.layer, call.call, 0, call.layout.group))
        ]
        fitting = exact or [
            call.name
            for call in calls
            if fnmatchcase(call.name, pattern) and (MARK in pattern or (call.last and not call.layout.group))
        ]
        if not fitting:
            raise _unmatched(network, pattern, calls)
        chosen |= frozenset(fitting)
    unfilled = chosen & _unfilled(network)
    if unfilled:
        raise _lacks(network, next(layer for layer in called if layer in unfilled))
    return tuple(layer for layer in called if layer in chosen)


def _unfilled(network: Network) -> frozenset[str]:
    """The layers that depend on tensors that the user's weights lack: these are NaN."""
    if not network.lacking:
        return frozenset()
    return frozenset(call.name for call in trace(network) if call.nan)


def _lacks(network: Network, layer: str) -> ModelError:
    return ModelError(
        f"layer {layer!r} of {network.name} needs {network.lacking[0]}, which the weights file lacks or holds in "
        "another shape: choose a layer before it, or build the network that was trained in a file of your own, "
        "--model FILE.py:FUNCTION"
    )


def indexable(layers: tuple[str, ...]) -> tuple[str, ...]:
    """These layers. Raises ModelError if an index cannot hold all of them."""
    for layer in layers:
        inside = next((other for other in layers if layer.startswith(f"{other}/")), None)
        if not storable(layer) or inside:
            clash = f" beside {inside!r}" if inside else ""
            way = "leave one of them out, or rename it" if inside else "rename that module"
            raise ModelError(f"an index cannot hold a layer named {layer!r}{clash}: {way}")
    return layers


def _unmatched(network: Network, pattern: str, calls: Sequence[Call]) -> ModelError:
    modules = dict(network.module.named_modules())
    module, number = module_and_call(pattern, modules)
    if number is not None:
        return no_such_call(pattern, module, max((call.calls for call in calls if call.layer == module), default=0))
    if pattern in modules or resolved(pattern, modules).tokens:
        try:
            survey(network.module, network.blank(), [pattern])
        except ModelError as error:
            return error
        return ModelError(
            f"the output of layer {pattern!r} of {network.name} is no grid of tokens, but one for each attention head: "
            "choose the attention itself or a layer after it"
        )
    names = [call.name for call in calls]
    same = aliases(network.module).get(pattern)
    if same is not None:
        choices = " or ".join([call.name for call in calls if call.layer == same] or [same])
        return ModelError(f"layer {pattern!r} of {network.name} is the same module as {same}: write {choices}")
    return ModelError(f"no layer of {network.name} matches {pattern!r}{nearest(pattern, names)}")


def stages(network: Network) -> tuple[str, ...]:
    """The outermost modules after which the resolution changes, and the last grid before pooling.

    A module inside which the resolution changes more than once is a container, and its children are considered
    instead. An output that comes directly from a bounded activation is read before that activation. Raises ModelError
    if no layer has a grid.
    """
    calls = [call for call in trace(network) if not call.layout.group]
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
        for atom, following in zip_longest(atoms, atoms[1:])
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
