"""One more photograph through the network of an index: what each layer makes of it, and where in it that lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchmine import defaults
from patchmine.errors import FieldError, PhotographError, RequestError, SourceError, StoreError, nearest
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import Placement, ReceptiveField
from patchmine.networks.network import Network, Tap, last_call, run_until, survey, tapped
from patchmine.photographs.crops import cut
from patchmine.photographs.decode import normalised, prepare
from patchmine.reading.opened import Crop, Index, shown
from patchmine.system.regular_files import is_folder, read_whole
from patchmine.units import Box, Patch, Position, Unit


@dataclass(frozen=True)
class Sight:
    """What a network sees of one photograph.

    `maps` are float32 (channels, grid height, grid width) for each layer, `fields` the receptive fields for the size
    that the photograph has in the input. `path` is the user's word for it, `data` the encoded bytes.
    """

    path: str
    data: bytes
    placement: Placement
    maps: dict[str, NDArray[np.float32]]
    fields: dict[str, ReceptiveField]

    def patch(
        self, unit: Unit, rank: int, position: Position, crop: Crop = "rf", share: float = defaults.SHARE
    ) -> Patch:
        """The place in this photograph as a patch; its `image_id` is -1, for it is in no index."""
        field = self.fields[unit.layer]
        return Patch(
            unit=unit,
            rank=rank,
            value=float(self.maps[unit.layer][unit.channel, position.y, position.x]),
            image=self.path,
            image_id=-1,
            class_name=None,
            position=position,
            visible=field.visible(unit.channel, position),
            input_box=field.group(unit.channel).whole(position),
            box=self.placement.to_source(shown(field, unit.channel, position, crop, share)),
            cutter=lambda patch: cut(self.data, patch.box),
        )

    def positions_in(self, layer: str, box: Box) -> list[Position]:
        """The positions whose field's centre lies in the box (source pixels), else the one that is nearest to its
        middle. Groups of channels with different fields have their centres in the same places, but for a pixel."""
        height, width = self.maps[layer].shape[1:]
        field = self.fields[layer]
        ys = np.array([field.centre(0, Position(y, 0))[0] for y in range(height)]) + 0.5 + self.placement.top
        xs = np.array([field.centre(0, Position(0, x))[1] for x in range(width)]) + 0.5 + self.placement.left
        ys *= self.placement.source[1] / self.placement.resized[1]
        xs *= self.placement.source[0] / self.placement.resized[0]
        down = np.flatnonzero((box.top <= ys) & (ys < box.bottom))
        across = np.flatnonzero((box.left <= xs) & (xs < box.right))
        if not len(down):
            down = np.array([np.abs(ys - (box.top + box.bottom) / 2).argmin()])
        if not len(across):
            across = np.array([np.abs(xs - (box.left + box.right) / 2).argmin()])
        return [Position(y, x) for y in down.tolist() for x in across.tolist()]


def look(
    index: Index, file: str | Path, layers: Sequence[str], load: Callable[[], Network], box: Box | None = None
) -> Sight:
    """Show a photograph to the network that `load` gives (`models.load_for_index`).

    `file` is a file, or a photograph of the index by its path there. `box` is the part of it that will be asked for,
    in source pixels. Raises SourceError where there is no such photograph or it cannot be decoded, RequestError for a
    box outside of it, StoreError when a layer is not as the index has it, and what `load` raises.
    """
    data = _read(index, file)
    try:
        pixels = prepare(data, index.preprocessing)
    except PhotographError as error:
        raise SourceError(f"{str(file)!r} cannot be looked at: {error}; give a whole JPEG, PNG or WebP") from None
    if box is not None:
        _check_box(box, pixels.placement)
    network = load()
    taps, fields = surveyed(index, network, layers, (pixels.placement.input[1], pixels.placement.input[0]))
    maps = _maps(network, taps, normalised(pixels.tensor[None], index.preprocessing))
    return Sight(str(file), data, pixels.placement, maps, fields)


def surveyed(
    index: Index, network: Network, layers: Sequence[str], size: tuple[int, int]
) -> tuple[tuple[Tap, ...], dict[str, ReceptiveField]]:
    """The layers as they are called for inputs of (height, width), and their receptive fields.

    Raises ModelError for a layer that the network has not, StoreError for one that is not as the index has it.
    """
    for layer in layers:
        network.layer(layer)
    taps = survey(network.module, torch.zeros(1, 3, *size), layers)
    fields = {layer: _field(index, network, layer, size) for layer in layers}
    for tap in taps:
        expected = (index.layers[tap.layer], fields[tap.layer].grid)
        if (tap.layout.channels, tap.layout.grid) != expected:
            raise StoreError(
                f"layer {tap.layer} of {network.name} is not as {index.name} has it; build it again with --fresh"
            )
    return taps, fields


def _read(index: Index, file: str | Path) -> bytes:
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
    where = nearest(str(file), beside) if beside else f"; there is no folder {str(folder)!r}"
    raise SourceError(f"there is no photograph {str(file)!r}, nor is one of that path in {index.name}{where}")


def _check_box(box: Box, placement: Placement) -> None:
    width, height = placement.source
    shown_ = ",".join(map(str, box.as_tuple()))
    if not Box(0, 0, width, height).contains(box) or not box.area:
        raise RequestError(
            f"--box {shown_} is no box in a photograph of {width}x{height} pixels: "
            f"L,T,R,B lie within 0,0,{width},{height}, with L < R and T < B"
        )
    seen = placement.to_source(Box(0, 0, *placement.input))
    if not box.intersect(seen).area:
        raise RequestError(
            f"--box {shown_} is outside what the network sees of this photograph: "
            f"choose one in {','.join(map(str, seen.as_tuple()))}"
        )


def _field(index: Index, network: Network, layer: str, size: tuple[int, int]) -> ReceptiveField:
    """That of the index where it covers inputs of (height, width), else computed."""
    fields = index.fields(layer)
    try:
        return fields.at(size)
    except KeyError:
        pass
    kind = index.job.field
    try:
        found = receptive_fields(network.module, size, [layer], field=kind)[layer]  # type: ignore[arg-type]
    except FieldError as error:
        raise StoreError(f"no receptive field of {layer} for {size[1]}x{size[0]} pixels: {error}") from None
    return replace(found, effective=fields.nominal.effective)


def _maps(network: Network, taps: Sequence[Tap], inputs: Tensor) -> dict[str, NDArray[np.float32]]:
    maps: dict[str, NDArray[np.float32]] = {}

    def see(tap: Tap) -> Callable[[Tensor], None]:
        def keep(output: Tensor) -> None:
            maps[tap.layer] = tap.layout.grid_of(output)[0].float().clone().numpy()

        return last_call(tap, keep)

    with torch.inference_mode(), tapped(network.module, {tap.layer: see(tap) for tap in taps}):
        run_until(network.module, inputs, taps[-1].layer, taps[-1].calls)
    return maps


__all__ = ["Sight", "look", "surveyed"]
