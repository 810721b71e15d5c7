"""What photographs reveal about a unit: the positions of its strongest patches, the number of peaks in each photograph,
and the share of padding in a patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import PhotographError
from patchmine.fields.field import ReceptiveField
from patchmine.networks.network import Network
from patchmine.networks.taps import maps, survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.ranking import Float32, Int64
from patchmine.reading.opened import OpenIndex
from patchmine.study.instruments.peaks import peaks
from patchmine.units import Position, Unit

STRONGEST = 100
"""The number of photographs to examine."""

_PADDED_ALIKE = 0.05  # difference in the share of padding up to which two positions are padded alike


@dataclass(frozen=True)
class InPhotographs:
    """The photographs that drive a unit hardest, in descending order.

    `positions` int64 (photographs, 2) are y, x in `grid`; positions in photographs with another grid are mapped to it.
    `visible` float64 (photographs,) is the share of each receptive field inside the input. `counts` int64
    (photographs,) are the peaks of the unit's map, -1 for an unreadable photograph.

    `pictures` uint8 (n, height, width, 3) are the first few photographs as the network sees them, limited to those as
    large as the first. `vectors` float32 (m, channels) are the layer's responses at the strongest position of the first
    few, `center` float32 (channels,) their mean over all positions. Both are None if no photograph could be read.
    """

    grid: tuple[int, int]
    positions: Int64
    visible: NDArray[np.float64]
    counts: Int64
    pictures: NDArray[np.uint8]
    vectors: Float32 | None
    center: Float32 | None
    centeredness: Centeredness


@dataclass(frozen=True)
class Centeredness:
    """The mean distance of the patches from the middle: 0 is the middle of the grid, 1 its border, along the farther
    axis.

    `found` is the observed mean. `anywhere` is the expected mean for positions drawn evenly from the whole grid, and
    `padded_alike` for positions with as much padding as each patch. `spread` and `spread_alike` are the standard
    deviations of such means, so that (found - anywhere) / spread is a z score.
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
    index: OpenIndex[Any], unit: Unit, network: Network, apart: float, most: int = STRONGEST, pictures: int = 25
) -> InPhotographs:
    """Examine the photographs with the unit's highest activations. `apart` is in cells, as for `peaks`."""
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
        seen = maps(network.module, normalized(pixels[None], network.preprocessing), (tap,))[tap.layer][0]
        cells = seen.float().numpy()
        if len(shown) < pictures:
            shown.append(pixels.permute(1, 2, 0).numpy())
            vectors.append(cells[:, at[number][0].y, at[number][0].x].copy())
            means.append(cells.mean((1, 2)))
        counts[number] = len(peaks(cells[unit.channel], apart))
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
        centeredness(field, unit.channel, positions),
    )


def brought(cell: Position, grid: tuple[int, int], to: tuple[int, int]) -> list[int]:
    """The cell (y, x) at the corresponding place in another grid."""
    return [int((cell.y + 0.5) * to[0] / grid[0]), int((cell.x + 0.5) * to[1] / grid[1])]


def centeredness(field: ReceptiveField, channel: int, positions: Int64) -> Centeredness:
    """The centeredness of positions (n, 2) in the grid of a field."""
    height, width = field.grid
    ys, xs = np.mgrid[:height, :width]
    off = np.maximum(_off(ys, height), _off(xs, width))
    if not len(positions):
        return Centeredness(0.0, float(off.mean()), 0.0, float(off.mean()), 0.0)
    visible = np.array([[field.visible(channel, Position(y, x)) for x in range(width)] for y in range(height)])
    mine = visible[positions[:, 0], positions[:, 1]]
    same = [off[np.abs(visible - share) <= _PADDED_ALIKE] for share in mine]
    return Centeredness(
        found=float(off[positions[:, 0], positions[:, 1]].mean()),
        anywhere=float(off.mean()),
        spread=float(off.std() / np.sqrt(len(positions))),
        padded_alike=float(np.mean([one.mean() for one in same])),
        spread_alike=float(np.sqrt(np.sum([one.var() for one in same])) / len(positions)),
    )


def _off(index: NDArray[np.int64], cells: int) -> NDArray[np.float64]:
    middle = (cells - 1) / 2
    return np.abs(index - middle) / middle if middle else np.zeros(index.shape)


__all__ = ["STRONGEST", "Centeredness", "InPhotographs", "brought", "centeredness", "in_photographs"]
