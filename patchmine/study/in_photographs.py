"""What the photographs say of a unit: where in them its strongest patches lie, how many peaks each has, and how much of
a patch is padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from patchmine.errors import PhotographError
from patchmine.fields.field import ReceptiveField
from patchmine.networks.network import Network, Tap, last_call, run_until, survey, tapped
from patchmine.photographs.decode import normalised, prepare
from patchmine.ranking import Float32, Int64
from patchmine.reading.opened import Index
from patchmine.study.instruments.peaks import peaks
from patchmine.units import Position, Unit

STRONGEST = 100
"""Photographs that are looked at."""

_PADDED_ALIKE = 0.05  # in the share of a field that is padding: positions that are padded alike


@dataclass(frozen=True)
class InPhotographs:
    """Of the photographs that drive a unit hardest, in descending order.

    `positions` int64 (photographs, 2) are y, x in `grid`, to which those in photographs of another grid are brought;
    `visible` float64 (photographs,) is the share of each one's receptive field inside the input, `counts` int64
    (photographs,) the peaks of the unit's map, -1 where the photograph could not be read. `pictures` uint8 (n, height,
    width, 3) are the first few as the network sees them, of those that are as large as the first. `vectors` float32
    (m, channels) are what the layer does at the strongest position of the first few, `centre` float32 (channels,) what
    it does over all their positions; None where none could be read.
    """

    grid: tuple[int, int]
    positions: Int64
    visible: NDArray[np.float64]
    counts: Int64
    pictures: NDArray[np.uint8]
    vectors: Float32 | None
    centre: Float32 | None
    centredness: Centredness


@dataclass(frozen=True)
class Centredness:
    """How far from the middle the patches lie: 0 is the middle of the grid, 1 its border, along the farther axis.

    `found` is their mean, `anywhere` what positions drawn evenly from the whole grid would have, `padded_alike` what
    those drawn from among the positions with as much padding as each patch would; `spread` and `spread_alike` are
    the standard deviations of such means, so that (found - anywhere) / spread is a z.
    """

    found: float
    anywhere: float
    spread: float
    padded_alike: float
    spread_alike: float

    @property
    def z(self) -> float:
        return (self.found - self.anywhere) / self.spread if self.spread else 0.0

    @property
    def z_alike(self) -> float:
        return (self.found - self.padded_alike) / self.spread_alike if self.spread_alike else 0.0


def in_photographs(
    index: Index, unit: Unit, network: Network, apart: float, most: int = STRONGEST, pictures: int = 25
) -> InPhotographs:
    """Look at the photographs whose activation of the unit is highest. `apart` is as for `peaks`, in cells."""
    values, images, places = (array[:most] for array in index.store.top(unit.layer, unit.channel))
    found = values > 0
    images, places = images[found], places[found]
    fields = [index.field(unit.layer, int(image)) for image in images]
    each = zip(places, fields, strict=True)
    at = [(index.store.place(unit.layer, int(place), field.grid), field) for place, field in each]
    visible = np.array([field.visible(unit.channel, cell) for cell, field in at])
    tap = survey(network.module, network.blank(), [unit.layer])[0]
    counts = np.full(len(images), -1, np.int64)
    shown: list[NDArray[np.uint8]] = []
    vectors: list[Float32] = []
    means: list[Float32] = []
    for number, image in enumerate(images.tolist()):
        try:
            pixels = prepare(index.photograph(image), index.preprocessing).tensor
        except PhotographError:
            continue
        maps = _maps(network, tap, pixels)
        if len(shown) < pictures:
            shown.append(pixels.permute(1, 2, 0).numpy())
            vectors.append(maps[:, at[number][0].y, at[number][0].x].copy())
            means.append(maps.mean((1, 2)))
        counts[number] = len(peaks(maps[unit.channel], apart))
    same_size = [one for one in shown if one.shape == shown[0].shape]
    field = index.field(unit.layer)
    positions = np.array([brought(cell, other.grid, field.grid) for cell, other in at], np.int64).reshape(-1, 2)
    return InPhotographs(
        field.grid,
        positions,
        visible,
        counts,
        np.stack(same_size) if same_size else np.zeros((0, 1, 1, 3), np.uint8),
        np.stack(vectors) if vectors else None,
        np.mean(means, 0) if means else None,
        centredness(field, unit.channel, positions),
    )


def brought(cell: Position, grid: tuple[int, int], to: tuple[int, int]) -> list[int]:
    """The cell (y, x) of another grid that lies where this one does in its own."""
    return [int((cell.y + 0.5) * to[0] / grid[0]), int((cell.x + 0.5) * to[1] / grid[1])]


def _maps(network: Network, tap: Tap, pixels: torch.Tensor) -> Float32:
    """All of the layer: (channels, grid height, grid width)."""
    found: list[torch.Tensor] = []
    with torch.inference_mode():
        see = last_call(tap, lambda out: found.append(tap.layout.grid_of(out)[0].float().clone()))
        with tapped(network.module, {tap.layer: see}):
            run_until(network.module, normalised(pixels[None], network.preprocessing), tap.layer, tap.calls)
    array: Float32 = found[0].numpy()
    return array


def centredness(field: ReceptiveField, channel: int, positions: Int64) -> Centredness:
    """Of positions (n, 2) in the grid of a field."""
    height, width = field.grid
    ys, xs = np.mgrid[:height, :width]
    off = np.maximum(_off(ys, height), _off(xs, width))
    if not len(positions):
        return Centredness(0.0, float(off.mean()), 0.0, float(off.mean()), 0.0)
    visible = np.array([[field.visible(channel, Position(y, x)) for x in range(width)] for y in range(height)])
    mine = visible[positions[:, 0], positions[:, 1]]
    same = [off[np.abs(visible - share) <= _PADDED_ALIKE] for share in mine]
    return Centredness(
        found=float(off[positions[:, 0], positions[:, 1]].mean()),
        anywhere=float(off.mean()),
        spread=float(off.std() / np.sqrt(len(positions))),
        padded_alike=float(np.mean([one.mean() for one in same])),
        spread_alike=float(np.sqrt(np.sum([one.var() for one in same])) / len(positions)),
    )


def _off(index: NDArray[np.int64], cells: int) -> NDArray[np.float64]:
    middle = (cells - 1) / 2
    return np.abs(index - middle) / middle if middle else np.zeros(index.shape)


__all__ = ["STRONGEST", "Centredness", "InPhotographs", "brought", "centredness", "in_photographs"]
