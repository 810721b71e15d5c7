"""Taps on a network: hooks that exist only inside a `with` block, and the outputs that they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError, nearest
from patchmine.networks import virtual
from patchmine.networks.calls import module_and_call, no_such_call
from patchmine.networks.layouts import Layout, Layouts


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """The last tap has been reached; nothing after it is needed."""


@contextmanager
def tapped(module: nn.Module, taps: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """Call `taps[layer]` with the output of that layer's submodule, at each of its calls.

    The tap gets the tensor before the next layer can overwrite it in place, and must copy the values that it needs
    at once. On any exit, the module has the hooks that it had before.

    Raises ModelError for an unknown submodule, and for an output that is not one tensor.
    """
    modules = dict(module.named_modules())
    handles = []
    try:
        for layer, tap in taps.items():
            name, _ = module_and_call(layer, modules)
            if name not in modules:
                raise ModelError(f"unknown layer {layer!r}{nearest(layer, filter(None, modules))}")
            handles.append(modules[name].register_forward_hook(_hook(name, tap)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, tap: Callable[[Tensor], None]) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            raise ModelError(f"layer {name!r} returns a {type(output).__name__}, not a tensor: choose another layer")
        tap(output)

    return hook


def run_until(module: nn.Module, batch: Tensor, last: str, call: int = 1) -> None:
    """Run the module on a batch and stop right after call number `call` of the layer `last`.

    Taps attached before this call have seen that output by then. Raises ModelError if that call never happens.
    """
    left = call

    def stop(_output: Tensor) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise _Enough

    with tapped(module, {last: stop}):
        try:
            module(batch)
        except _Enough:
            return
    raise ModelError(f"layer {last!r} is called less often for some inputs than for others: choose another layer")


@dataclass(frozen=True)
class Tap:
    """A layer as seen in one forward pass: its name, how to read its output, and which call of its module it is.

    `call` counts from 1; `calls` is how often the module is called.
    """

    layer: str
    layout: Layout
    call: int
    calls: int

    @property
    def below(self) -> Tap:
        """The tap that reads the layer's own channels, also of a virtual layer."""
        return replace(self, layout=self.layout.below)


def at_call(tap: Tap, see: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    """A function for `tapped`, good for one forward pass, that passes only the output of the layer's call to `see`.

    A module that is called several times may return a grid of another shape each time.
    """
    left = tap.call

    def see_one(output: Tensor) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            see(output)

    return see_one


def maps(module: nn.Module, inputs: Tensor, taps: Sequence[Tap]) -> dict[str, Tensor]:
    """The output of each layer for a batch, by layer: (images, channels, grid height, grid width), without gradients.

    `inputs` are normalized, float (images, 3, height, width). The pass stops after the last of the taps, which must
    be in the order in which they are called, as `survey` gives them.
    """
    found: dict[str, Tensor] = {}

    def kept(tap: Tap) -> Callable[[Tensor], None]:
        # A copy, because the next layer may overwrite the output in place.
        return at_call(tap, lambda output: found.__setitem__(tap.layer, tap.layout.grid_of(output).clone()))

    with torch.inference_mode(), tapped(module, {tap.layer: kept(tap) for tap in taps}):
        run_until(module, inputs, taps[-1].layer, taps[-1].call)
    return found


def maps_and_vectors(
    module: nn.Module, inputs: Tensor, taps: Sequence[Tap]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`maps` of each layer, and the maps of its activation vectors: a virtual layer has those that it is read from."""
    vectors = maps(module, inputs, [tap.below for tap in taps])
    return {tap.layer: tap.layout.read(vectors[tap.layer]) for tap in taps}, vectors


def survey(module: nn.Module, blank: Tensor, layers: Sequence[str]) -> tuple[Tap, ...]:
    """Run the module once and describe the layers, in the order in which they are called.

    Raises ModelError for a layer that a forward pass in eval mode never calls, and for an output without a layout.
    """
    modules = dict(module.named_modules())
    layouts = Layouts(module, (blank.shape[-2], blank.shape[-1]))
    found: dict[str, Layout | ModelError] = {}
    calls = dict.fromkeys(layers, 0)

    def tap(layer: str) -> Callable[[Tensor], None]:
        _, call = module_and_call(layer, modules)
        readout = virtual.readout_of(module, layer, modules)

        def see(output: Tensor) -> None:
            calls[layer] += 1
            if call in (None, calls[layer]):
                found.pop(layer, None)
                try:
                    found[layer] = virtual.read(layer, layouts.of(layer, output), readout)
                except ModelError as error:  # unless a later call counts
                    found[layer] = error

        return see

    with torch.inference_mode(), tapped(module, {layer: tap(layer) for layer in layers}):
        module(blank)
    for layer in layers:
        if layer not in found:
            raise no_such_call(layer, module_and_call(layer, modules)[0], calls[layer])
    taps = []
    for layer, layout in found.items():
        if isinstance(layout, ModelError):
            raise layout
        taps.append(Tap(layer, layout, module_and_call(layer, modules)[1] or calls[layer], calls[layer]))
    return tuple(taps)
