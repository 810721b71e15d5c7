"""Attaches directions to a network, as virtual layers: those of files, and those that an index keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchmine.errors import ModelError, RequestError
from patchmine.networks.folding import replica
from patchmine.networks.layers import choose, trace
from patchmine.networks.network import Network
from patchmine.networks.virtual import carrying
from patchmine.readouts import asked, kept, load

if TYPE_CHECKING:
    from patchmine.readouts import Readout


def given(
    network: Network, words: Sequence[str], threshold: float | None
) -> tuple[Network, dict[str, tuple[str, ...]]]:
    """The network with the virtual layers of `--directions`, and the names of their units where files name them.

    Raises RequestError for a wrong word, ModelError for an unknown layer, a file that cannot be used, and directions of
    another width than the layer's.
    """
    readouts: dict[str, Readout] = {}
    names: dict[str, tuple[str, ...]] = {}
    for one in asked(words):
        layers = choose(network, [one.base])
        if len(layers) != 1:
            raise RequestError(f"--directions {one.layer}: {one.base!r} is {len(layers)} layers: name one of them")
        readouts[one.layer], names[one.layer] = load(one.file, threshold)
        _check_width(network, layers[0], readouts[one.layer].width, one.file)
    return _carrying(network, readouts), names


def of_index(network: Network, directions: Iterable[tuple[str, str]], directory: Path) -> Network:
    """The network with the readouts of an index, given by virtual layer and digest, that its `directory` keeps.

    Raises StoreError if one of them is missing or damaged.
    """
    return _carrying(network, {layer: kept(directory, layer, digest) for layer, digest in directions})


def _carrying(network: Network, readouts: dict[str, Readout]) -> Network:
    return replace(network, module=carrying(replica(network.module), readouts)) if readouts else network


def _check_width(network: Network, layer: str, width: int, file: Path) -> None:
    calls = trace(network)
    channels = next(call.channels for call in calls if call.name == layer)
    if width == channels:
        return
    fitting = [call.name for call in calls if call.channels == width]
    shown = ", ".join(fitting[:6]) + (f" and {len(fitting) - 6} more" if len(fitting) > 6 else "")
    raise ModelError(
        f"directions {str(file)!r} have {width} numbers each, but layer {layer!r} has {channels} channels"
        + (f": choose a layer of {width}: {shown}" if fitting else f", and no layer of {network.name} has {width}")
    )
