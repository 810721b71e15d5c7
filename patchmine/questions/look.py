"""One photograph through the network of an index: the maps of each layer, and the receptive fields behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from patchmine.errors import FieldError, PhotographError, RequestError, SourceError, StoreError, nearest
from patchmine.fields.cropping import Cropping
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField, cells_between
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.networks.taps import Tap, maps_and_vectors, survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.photographs.placement import Placement
from patchmine.reading.cropped import Beside
from patchmine.reading.opened import OpenIndex
from patchmine.reading.patch import Patch
from patchmine.system.regular_files import is_folder, read_whole
from patchmine.units import Box, Position, Unit


@dataclass(frozen=True)
class Sight:
    """The maps of a network for one photograph.

    `maps` are float32 (channels, grid height, grid width) for each layer, and `vectors` are those that its activation
    vectors come from; the two differ in virtual layers. `fields` are the receptive fields for the size of its input.
    `path` is the photograph as the user named it, `data` its encoded bytes.
    """

    path: str
    data: bytes
    placement: Placement
    maps: dict[str, NDArray[np.float32]]
    vectors: dict[str, NDArray[np.float32]]
    fields: dict[str, ReceptiveField]

    def patch(self, unit: Unit, rank: int, position: Position, cropping: Cropping) -> Patch:
        """The place in this photograph as a patch; its `image_id` is -1. The cropping must be settled."""
        return Patch.at(
            position,
            unit=unit,
            rank=rank,
            value=float(self.maps[unit.layer][unit.channel, position.y, position.x]),
            image=self.path,
            cropping=cropping,
            field=self.fields[unit.layer],
            placement=self.placement,
            read=lambda: self.data,
        )

    def beside(self, index: OpenIndex[Any]) -> Beside:
        """The index with this photograph beside it, for the photograph's tight crops."""
        return Beside(index, self.path, self.data, self.placement, self.fields)

    def positions_in(self, layer: str, box: Box) -> list[Position]:
        """The positions whose field's center lies in the box (source pixels), else the one nearest to its middle."""
        ys, xs = self.fields[layer].centers()
        ys = (ys + self.placement.top) * self.placement.source[1] / self.placement.resized[1]
        xs = (xs + self.placement.left) * self.placement.source[0] / self.placement.resized[0]
        down, across = cells_between(ys, box.top, box.bottom), cells_between(xs, box.left, box.right)
        return [Position(y, x) for y in down.tolist() for x in across.tolist()]


@with_own_settings
def look(
    index: OpenIndex[Any],
    file: str | Path,
    layers: Sequence[str] | Callable[[Placement], Sequence[str]],
    box: Box | None = None,
    data: bytes | None = None,
) -> Sight:
    """Show a photograph to the network of the index.

    `file` is a file, or a photograph of the index by its path there; with `data`, its encoded bytes, it is only the
    name that messages use. `layers` may depend on how the photograph lies in the input. `box` is a part of it in source
    pixels, which the caller will ask about.

    Raises SourceError for a photograph that does not exist or cannot be decoded, RequestError for a box outside it,
    StoreError when a layer is not as the index has it, and what `OpenIndex.network` raises.
    """
    if data is None:
        data = _read(index, file)
    try:
        pixels = prepare(data, index.preprocessing)
    except PhotographError as error:
        raise SourceError(f"{str(file)!r} cannot be decoded: {error}; give an intact JPEG, PNG or WebP") from None
    if box is not None:
        _check_box(box, pixels.placement)
    if callable(layers):
        layers = layers(pixels.placement)
    network = index.network()
    taps, fields = surveyed(index, network, layers, (pixels.placement.input[1], pixels.placement.input[0]))
    both = maps_and_vectors(network.module, normalized(pixels.tensor[None], index.preprocessing), taps)
    found, vectors = ({layer: output[0].float().numpy() for layer, output in each.items()} for each in both)
    return Sight(str(file), data, pixels.placement, found, vectors, fields)


def surveyed(
    index: OpenIndex[Any], network: Network, layers: Sequence[str], size: tuple[int, int]
) -> tuple[tuple[Tap, ...], dict[str, ReceptiveField]]:
    """The layers as the network calls them for inputs of (height, width), and their receptive fields.

    Raises ModelError for a layer that the network lacks, StoreError for one that is not as the index has it.
    """
    for layer in layers:
        network.layer(layer)
    taps = survey(network.module, torch.zeros(1, 3, *size), layers)
    fields = {layer: _field(index, network, layer, size) for layer in layers}
    for tap in taps:
        expected = (index.layers[tap.layer], fields[tap.layer].grid)
        if (tap.layout.channels, tap.layout.grid) != expected:
            raise StoreError(
                f"layer {tap.layer} of {network.name} differs from that in {index.name}: name its network with --model"
            )
    return taps, fields


def _read(index: OpenIndex[Any], file: str | Path) -> bytes:
    try:
        return read_whole(Path(file))
    except FileNotFoundError:
        found = next((record.image for record in index.store.records() if record.path == str(file)), None)
        if found is not None:
            return index.photograph(found)
    except IsADirectoryError:
        raise SourceError(f"{str(file)!r} is a folder: name one photograph in it") from None
    except (OSError, PhotographError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceError(f"{str(file)!r} cannot be read: {reason}") from None
    folder = Path(file).parent
    beside = [str(path) for path in sorted(folder.iterdir())[:10_000]] if is_folder(folder) else []
    where = nearest(str(file), beside) if beside else f"; folder {str(folder)!r} not found"
    raise SourceError(f"photograph {str(file)!r} not found, neither as a file nor in {index.name}{where}")


def _check_box(box: Box, placement: Placement) -> None:
    width, height = placement.source
    shown_ = ",".join(map(str, box.as_tuple()))
    if not Box(0, 0, width, height).contains(box) or not box.area:
        raise RequestError(
            f"--box {shown_} does not fit a photograph of {width}x{height} pixels: "
            f"give L,T,R,B within 0,0,{width},{height}, with L < R and T < B"
        )
    seen = placement.to_source(Box(0, 0, *placement.input))
    if not box.intersect(seen).area:
        raise RequestError(
            f"--box {shown_} lies outside the part of this photograph that the network sees: "
            f"choose a box within {','.join(map(str, seen.as_tuple()))}"
        )


def _field(index: OpenIndex[Any], network: Network, layer: str, size: tuple[int, int]) -> ReceptiveField:
    """The field in the index where it covers inputs of (height, width); otherwise it is computed."""
    fields = index.fields(layer)
    try:
        return fields.at(size)
    except KeyError:
        pass
    kind = index.job.field
    try:
        found = receptive_fields(network.module, size, [layer], field=kind)[layer]  # type: ignore[arg-type]
    except FieldError as error:
        raise StoreError(f"{layer} has no receptive field at {size[1]}x{size[0]} pixels: {error}") from None
    return replace(found, effective=fields.nominal.effective)


__all__ = ["Sight", "look", "surveyed"]
