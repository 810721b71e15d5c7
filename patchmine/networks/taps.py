"""Taps on a network: hooks that exist only inside a `with` block, and the outputs that they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError, nearest
from patchmine.networks.layouts import Layout, layout_of


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """The last tap has been reached; nothing after it is needed."""


@contextmanager
def tapped(module: nn.Module, taps: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """Call `taps[name]` with the output of the submodule of that name, at each of its calls.

    The tap gets the tensor before the next layer can overwrite it in place, and must copy the values that it needs
    at once. On any exit, the module has the hooks that it had before.

    Raises ModelError for an unknown submodule, and for an output that is not one tensor.
    """
    modules = dict(module.named_modules())
    handles = []
    try:
        for name, tap in taps.items():
            if name not in modules:
                raise ModelError(f"unknown layer {name!r}{nearest(name, filter(None, modules))}")
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


def run_until(module: nn.Module, batch: Tensor, last: str, calls: int = 1) -> None:
    """Run the module on a batch and stop right after the `calls`-th call of the submodule `last`.

    Taps attached before this call have seen that output by then. Raises ModelError if that call never happens.
    """
    left = calls

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
    raise ModelError(f"layer {last!r} is never called in a forward pass in eval mode, so there is nothing to index")


@dataclass(frozen=True)
class Tap:
    """A layer as seen in one forward pass: its name, how to read its output, and how often it is called."""

    layer: str
    layout: Layout
    calls: int


def last_call(tap: Tap, see: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    """A function for `tapped`, good for one forward pass, that passes only the layer's last output to `see`.

    A module that is called several times may return a grid of another shape each time; the last one counts.
    """
    left = tap.calls

    def see_last(output: Tensor) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            see(output)

    return see_last


def maps(module: nn.Module, inputs: Tensor, taps: Sequence[Tap]) -> dict[str, Tensor]:
    """The output of each layer for a batch, by layer: (images, channels, grid height, grid width), without gradients.

    `inputs` are normalized, float (images, 3, height, width). The last call of a layer counts. The pass stops after the
    last of the taps, which must be in the order in which they are called, as `survey` gives them.
    """
    found: dict[str, Tensor] = {}

    def kept(tap: Tap) -> Callable[[Tensor], None]:
        # A copy, because the next layer may overwrite the output in place.
        return last_call(tap, lambda output: found.__setitem__(tap.layer, tap.layout.grid_of(output).clone()))

    with torch.inference_mode(), tapped(module, {tap.layer: kept(tap) for tap in taps}):
        run_until(module, inputs, taps[-1].layer, taps[-1].calls)
    return found


def survey(module: nn.Module, blank: Tensor, layers: Sequence[str]) -> tuple[Tap, ...]:
    """Run the module once and describe the layers, in the order in which they are last called.

    Raises ModelError for a layer that a forward pass in eval mode never calls.
    """
    modules = dict(module.named_modules())
    layouts: dict[str, Layout] = {}
    calls = dict.fromkeys(layers, 0)

    def tap(layer: str) -> Callable[[Tensor], None]:
        def see(output: Tensor) -> None:
            layouts.pop(layer, None)
            layouts[layer] = layout_of(layer, modules[layer], output, (blank.shape[-2], blank.shape[-1]))
            calls[layer] += 1

        return see

    with torch.inference_mode(), tapped(module, {layer: tap(layer) for layer in layers}):
        module(blank)
    for layer in layers:
        if layer not in layouts:
            raise ModelError(f"layer {layer!r} is never called in a forward pass in eval mode")
    return tuple(Tap(layer, layout, calls[layer]) for layer, layout in layouts.items())
