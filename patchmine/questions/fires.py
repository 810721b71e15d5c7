"""The units whose response to a photograph is unusual, compared with all photographs of an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.errors import RequestError, StoreError
from patchmine.fields.cropping import Cropping
from patchmine.reading.answers import PLACE, PROOF, SHOWN, UNIT, Answer, Patches, counted, listed
from patchmine.reading.cropped import cropped
from patchmine.reading.opened import OpenIndex, U
from patchmine.reading.patch import Patch
from patchmine.reading.tables import Columns, flat, html_table
from patchmine.sparse import blocks
from patchmine.system.printable import printable
from patchmine.units import Position, Unit

if TYPE_CHECKING:
    from patchmine.questions.look import Sight

_ROWS = 4096  # of the table in memory at once: the rows of a chunk


@dataclass(frozen=True)
class Fired(Generic[U]):
    """One unit's response to the photograph; `patch` is the place.

    `percentile` is the share of the index's photographs on which the unit is weaker; those on which it is equal count
    half. `deviation` is (value - mean) / std over them, 0 for a unit that never varies.
    """

    unit: U
    percentile: float
    deviation: float
    patch: Patch

    def as_dict(self) -> dict[str, Any]:
        """An entry of `units` in `fires --json`."""
        patch = self.patch.as_dict()
        return {
            "rank": self.patch.rank,
            **self.unit.as_dict(),
            "value": self.patch.value,
            "percentile": self.percentile,
            "deviation": self.deviation,
            **{key: patch[key] for key in ("position", "visible", "input_box", "box", *PROOF) if key in patch},
        }


@dataclass(frozen=True)
class Fires(Answer, Generic[U]):
    """The units whose response to a photograph is most unusual, the most unusual first.

    `index` is the index that was asked, `sight` the photograph in the network, `cropping` what the patches' boxes show,
    `of` the number of units that were compared.
    """

    columns: ClassVar[Columns] = {"rank": int, **UNIT, "value": float, "percentile": float, "deviation": float, **PLACE}
    header: ClassVar[Sequence[str]] = ("rank", "name", "unit", "value", "percentile", "deviation", "y,x", "box")

    index: OpenIndex[U]
    sight: Sight
    units: list[Fired[U]]
    of: int
    cropping: Cropping

    def as_dict(self) -> dict[str, Any]:
        """The document of `fires --json`."""
        units = [fired.as_dict() for fired in self.units]
        return {"index": self.index.name, "image": self.sight.path, "labels": self.index.labels.about, "units": units}

    def rows(self) -> list[dict[str, Any]]:
        return [flat(fired.as_dict()) for fired in self.units]

    def shown(self) -> list[tuple[object, ...]]:
        """The units as rows of a table for a person, under `header`."""
        return [
            (
                fired.patch.rank,
                fired.unit.name,
                str(fired.unit.unit),
                f"{fired.patch.value:.4g}",
                f"{fired.percentile:.2%}",
                f"{fired.deviation:+.1f}",
                f"{fired.patch.position.y},{fired.patch.position.x}",
                ",".join(map(str, fired.patch.box.as_tuple())),
            )
            for fired in self.units
        ]

    def __repr__(self) -> str:
        title = f"{counted(len(self.units), 'unit', 'units')} of {self.of} that {self.sight.path} drives hardest"
        return listed(printable(title), self.shown()[:SHOWN], self.header, len(self.units))

    def _repr_html_(self) -> str:
        patches = Patches([fired.patch for fired in self.units])
        return html_table(self.shown()[:SHOWN], self.header) + patches._repr_html_()


def fires(
    index: OpenIndex[U],
    file: str | Path,
    *,
    layer: str | None = None,
    k: int = defaults.K,
    cropping: Cropping | None = None,
    data: bytes | None = None,
) -> Fires[U]:
    """The k units, of one layer or of all, whose response to this photograph is most unusual.

    `file` and `data` are as for `look.look`.

    They are ranked by percentile, then by deviation, then in the order of the network. A unit that is not finite on the
    photograph is left out. A photograph of the index itself has the values that it has there, up to rounding, since it
    goes through the network in another batch.

    Raises UnitError for an unknown layer, StoreError without a table, and what `look.look` raises.
    """
    from patchmine.questions.look import look

    if k < 1:
        raise RequestError(f"-k must be at least 1, not {k}")
    if layer is not None:
        index.check_layer(layer)
    if not index.store.has_table:
        raise StoreError(
            f"{index.name} was built with --no-table, so it has no activations to compare with: build it without"
        )
    cropping = cropping or Cropping()
    layers = list(index.layers) if layer is None else [layer]
    sight = look(index, file, layers, data=data)
    found = [response for name in layers for response in _responses(index, sight, name)]
    ranked = sorted(found, key=lambda response: (-response.percentile, -response.deviation))[:k]
    patches = [
        sight.patch(response.unit, rank, response.position, index.settled(response.unit, cropping))
        for rank, response in enumerate(ranked, 1)
    ]
    patches, cropping = cropped(sight.beside(index), patches, cropping, cropping)
    fired = [
        Fired(index.unit(response.unit), response.percentile, response.deviation, patch)
        for response, patch in zip(ranked, patches, strict=True)
    ]
    return Fires(index, sight, fired, len(found), cropping)


@dataclass(frozen=True)
class _Response:
    """A unit's maximum on the photograph."""

    percentile: float
    deviation: float
    unit: Unit
    position: Position


def _responses(index: OpenIndex[Any], sight: Sight, layer: str) -> list[_Response]:
    """The maximum of each unit of a layer that is finite on the photograph."""
    maps = sight.maps[layer]
    flattened = maps.reshape(len(maps), -1)
    place = flattened.argmax(axis=1)
    value = flattened[np.arange(len(flattened)), place]
    percentile = percentiles(index, layer, value)
    value = np.where(np.isfinite(value), value, np.float32(0))  # the others have no percentile, and are left out
    stats = index.stats(layer)
    spread = np.where(stats["std"] > 0, stats["std"], np.inf).astype(np.float64)
    deviation = (value - stats["mean"]) / spread
    return [
        _Response(
            float(percentile[channel]),
            float(deviation[channel]),
            Unit(layer, channel),
            Position(*divmod(int(place[channel]), maps.shape[2])),
        )
        for channel in np.flatnonzero(np.isfinite(percentile)).tolist()
    ]


def percentiles(index: OpenIndex[Any], layer: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of photographs on which each unit of a layer is below its value (units,); equal ones count half.

    NaN where the value is not finite, or the unit is finite on no photograph.
    """
    table, _ = index.store.table_on_disk(layer)
    below, equal, finite = (np.zeros(len(values), np.int64) for _ in range(3))
    for units in blocks(len(values)):
        for start in range(0, len(index), _ROWS):
            block = table[start : start + _ROWS, units]
            known = np.isfinite(block)
            below[units] += ((block < values[units]) & known).sum(axis=0)
            equal[units] += ((block == values[units]) & known).sum(axis=0)
            finite[units] += known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share: NDArray[np.float64] = (below + equal / 2) / finite
    return np.where(np.isfinite(values) & (finite > 0), share, np.nan)


__all__ = ["Fired", "Fires", "fires", "percentiles"]
