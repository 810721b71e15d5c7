"""Virtual layers `LAYER@NAME`: units that a readout makes of the channels of a layer.

A network carries its readouts on its outermost module, so that they go where it goes: into replicas, folded copies and
copies with another padding. They are not submodules: nothing of the network depends on them.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from patchmine.errors import ModelError, nearest
from patchmine.networks.calls import module_and_call, resolved
from patchmine.networks.layouts import Layout

if TYPE_CHECKING:
    from patchmine.readouts import Readout

_CARRIED = "_patchmine_readouts"


def carrying(module: nn.Module, readouts: Mapping[str, Readout]) -> nn.Module:
    """The module, which from now on carries the readouts of these virtual layers."""
    module.__dict__[_CARRIED] = dict(readouts)
    return module


def carried(module: nn.Module) -> Mapping[str, Readout]:
    """The readouts of a network by virtual layer, in the order in which they were given."""
    found: Mapping[str, Readout] = module.__dict__.get(_CARRIED, {})
    return found


def kept(copied: nn.Module, original: nn.Module) -> nn.Module:
    """The copy of a network, with the readouts of the original: some modules copy only what they know."""
    return carrying(copied, carried(original)) if carried(original) else copied


def readout_of(module: nn.Module, layer: str, modules: Container[str]) -> Readout | None:
    """The readout of a virtual layer, or None for any other. Raises ModelError for an unknown virtual layer."""
    found = carried(module).get(layer)
    if found is None and resolved(layer, modules).module not in modules:
        base, _ = module_and_call(layer, modules)
        if base in modules:
            known = [name for name in carried(module) if module_and_call(name, modules)[0] == base]
            raise ModelError(f"unknown layer {layer!r}{nearest(layer, [*known, base])}")
    return found


def read(layer: str, own: Layout, readout: Readout | None) -> Layout:
    """The layout of a layer, or that of a virtual one. Raises ModelError if the readout is of another width."""
    if readout is None:
        return own
    if readout.width != own.channels:
        raise ModelError(f"{layer}: its directions have {readout.width} numbers, but the layer has {own.channels}")
    return replace(own, channels=readout.units, readout=readout)
