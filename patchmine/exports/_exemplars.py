"""The exemplars of MILAN and MAIA: for each layer a folder of arrays that their readers load.

`images.npy` uint8 (units, k, 3, 224, 224), `masks.npy` uint8 (units, k, 1, 224, 224), `activations.csv`, `ids.csv`
(units x k) and `thresholds.csv` (a number a unit); `units.npy` only where not every unit of the layer is there. The
formats are those of neuron-descriptions (src/exemplars/compute.py, src/milannotations/datasets.py) and of MAIA
(utils/DatasetExemplars.py). A mask is 1 where the map of the activation, upsampled bilinearly, exceeds the 0.99
quantile of the unit over all positions of all photographs.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.exports import Export
from patchmine.exports._pictures import file_name
from patchmine.exports._rows import counted
from patchmine.ranking import Float32, Int64
from patchmine.reading.opened import OpenUnit

LEVEL = 0.99
"""The quantile above which a position belongs to the mask, as NetDissect and MILAN have it."""

K = 15


@dataclass(frozen=True)
class Layer:
    """The exemplars of one layer. `images` int64 and `values` float32 (units, k), -1 and NaN where a unit has fewer."""

    name: str
    units: Sequence[OpenUnit]
    values: Float32
    images: Int64
    thresholds: Float32

    def slots(self) -> dict[int, list[tuple[int, int]]]:
        """By photograph: the row and rank of the exemplars that show it."""
        found: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, rank in np.argwhere(self.images >= 0).tolist():
            found[int(self.images[row, rank])].append((row, rank))
        return found


def write(export: Export, out: Path) -> str:
    from patchmine.exports._positions import measured

    with measured(export) as positions:
        levels = {name: positions.quantile(name, LEVEL) for name in export.layers}
    layers = [
        Layer(name, units, *_chosen(export, units), levels[name][[unit.unit.channel for unit in units]])
        for name, units in export.layers.items()
    ]
    for layer in layers:
        _write_tables(out / file_name(layer.name), layer, export.index.layers[layer.name])
    _write_arrays(export, out, layers)
    return counted(sum(int((layer.images >= 0).sum()) for layer in layers), len(export.units))


def _chosen(export: Export, units: Sequence[OpenUnit]) -> tuple[Float32, Int64]:
    """Values and images of the patches of each unit, (units, k), k at most the number of photographs."""
    shape = (len(units), min(export.k, len(export.index)))
    values, images = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int64)
    for row, unit in enumerate(units):
        for rank, patch in enumerate(export.patches(unit)[: shape[1]]):
            values[row, rank], images[row, rank] = patch.value, patch.image_id
    return values, images


def _write_tables(folder: Path, layer: Layer, channels: int) -> None:
    folder.mkdir(parents=True)
    np.savetxt(folder / "activations.csv", layer.values, "%.5e", ",")
    np.savetxt(folder / "ids.csv", layer.images, "%i", ",")
    np.savetxt(folder / "thresholds.csv", layer.thresholds, "%.5e", ",")
    if len(layer.units) < channels:
        np.save(folder / "units.npy", np.array([unit.unit.channel for unit in layer.units], np.int64))


def _write_arrays(export: Export, out: Path, layers: Sequence[Layer]) -> None:
    """Write pictures and masks in one pass over the photographs, each to its places in the files."""
    from patchmine.exports._maps import SIDE, batches, square

    slots = {layer.name: layer.slots() for layer in layers}
    images = sorted({image for of_layer in slots.values() for image in of_layer})
    export.progress.begin(len(images), 0, "photographs")
    with ExitStack() as stack:
        files = {}
        for layer in layers:
            folder, shape = out / file_name(layer.name), layer.images.shape
            files[layer.name] = [
                stack.enter_context(_Array(folder / name, (*shape, channels, SIDE, SIDE)))
                for name, channels in (("images.npy", 3), ("masks.npy", 1))
            ]
        for batch in batches(export.index, images, [layer.name for layer in layers], export.asked.workers):
            pictures = square(batch.pixels).numpy()
            for row, image in enumerate(batch.images.tolist()):
                for layer in layers:
                    places = slots[layer.name].get(image, [])
                    if places:
                        masks = _masks(layer, batch.maps[layer.name][row], [unit for unit, _ in places])
                        for place, mask in zip(places, masks, strict=True):
                            files[layer.name][0].put(place, pictures[row])
                            files[layer.name][1].put(place, mask)
            export.progress.advance(len(batch.images))


def _masks(layer: Layer, maps: Any, rows: Sequence[int]) -> NDArray[np.uint8]:
    """The masks uint8 (rows, 1, 224, 224) of these rows of the layer, from the maps (channels, height, width)."""
    import torch
    from torch.nn.functional import interpolate

    from patchmine.exports._maps import SIDE

    channels = [layer.units[row].unit.channel for row in rows]
    large = interpolate(maps[channels][:, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    above: NDArray[np.uint8] = (
        (large > torch.from_numpy(layer.thresholds[list(rows)])[:, None, None, None]).byte().numpy()
    )
    return above


class _Array:
    """A .npy file of zeros, uint8, that is filled in any order without being in memory."""

    def __init__(self, file: Path, shape: tuple[int, ...]) -> None:
        self._file, self._shape = file.open("w+b"), shape
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._start, self._size = self._file.tell(), int(np.prod(shape[2:]))
        self._file.truncate(self._start + int(np.prod(shape)))

    def put(self, place: tuple[int, int], part: NDArray[np.uint8]) -> None:
        """Write the part at (row, rank)."""
        offset = self._start + (place[0] * self._shape[1] + place[1]) * self._size
        left = memoryview(np.ascontiguousarray(part).data).cast("B")
        while left:
            written = os.pwrite(self._file.fileno(), left, offset)
            left, offset = left[written:], offset + written

    def __enter__(self) -> _Array:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
