"""Which units a photograph drives unusually hard, measured against all photographs of an index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.errors import RequestError, StoreError, UnitError, nearest
from patchmine.reading.answers import PLACE, SHOWN, UNIT, Answer, Patches, counted, listed
from patchmine.reading.opened import Index, IndexedUnit
from patchmine.reading.tables import Columns, flat, html_table
from patchmine.system.printable import printable
from patchmine.units import Patch, Position, Unit

if TYPE_CHECKING:
    from patchmine.networks.network import Network
    from patchmine.questions.look import Sight

_ROWS = 4096  # of the table in memory at once: the rows of a chunk


@dataclass(frozen=True)
class Fired:
    """One unit on this photograph; `patch` says where.

    `percentile` is the share of the index's photographs on which it is weaker, those on which it is equal counting
    half; `deviation` is (value - mean) / std over them, 0 for a unit that never varies.
    """

    unit: IndexedUnit
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
            **{key: patch[key] for key in ("position", "visible", "input_box", "box")},
        }


HEADER = ("rank", "name", "unit", "value", "percentile", "deviation", "y,x", "box")
"""Of `Fires.shown`."""


@dataclass(frozen=True)
class Fires(Answer):
    """The units that a photograph drives hardest for what they do otherwise, best first."""

    columns: ClassVar[Columns] = {"rank": int, **UNIT, "value": float, "percentile": float, "deviation": float, **PLACE}

    sight: Sight
    units: list[Fired]
    of: int
    """How many units were asked."""

    def as_dict(self, index: Index) -> dict[str, Any]:
        units = [fired.as_dict() for fired in self.units]
        return {"index": index.name, "image": self.sight.path, "labels": index.labels.about, "units": units}

    def rows(self) -> list[dict[str, Any]]:
        return [flat(fired.as_dict()) for fired in self.units]

    def shown(self) -> list[tuple[object, ...]]:
        """The units as tables for a person show them, under HEADER."""
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
        return listed(printable(title), self.shown()[:SHOWN], HEADER, len(self.units))

    def _repr_html_(self) -> str:
        patches = Patches([fired.patch for fired in self.units])
        return html_table(self.shown()[:SHOWN], HEADER) + patches._repr_html_()


def fires(
    index: Index,
    file: str | Path,
    load: Callable[[], Network],
    *,
    layer: str | None = None,
    k: int = defaults.K,
    crop: str = "rf",
    share: float = defaults.SHARE,
) -> Fires:
    """The k units, of one layer or of all, that this photograph drives hardest.

    By percentile, then by deviation, then in the order of the network. A unit that is not finite on it is left out. One
    of the index's own photographs has the values that it has there up to rounding: it went through in another batch.

    Raises UnitError for an unknown layer, StoreError without a table, and what `looking.look` raises.
    """
    from patchmine.questions.look import look

    if k < 1:
        raise RequestError(f"-k {k} is too few: give 1 or more")
    if not 0 < share <= 1:
        raise RequestError(f"--share {share} is no share: give a number above 0 and up to 1")
    if layer is not None and layer not in index.layers:
        raise UnitError(f"the index has no layer {layer!r}{nearest(layer, index.layers)}")
    if crop not in defaults.CROPS:
        raise RequestError(f"there is no crop {crop!r}{nearest(crop, defaults.CROPS)}")
    if not index.store.has_table:
        raise StoreError(
            f"{index.name} was built with --no-table, so there is nothing to compare a value with; build it with one"
        )
    layers = list(index.layers) if layer is None else [layer]
    sight = look(index, file, layers, load)
    found: list[tuple[float, float, Unit, int]] = []
    for name in layers:
        flat = sight.maps[name].reshape(len(sight.maps[name]), -1)
        place = flat.argmax(axis=1)
        value = flat[np.arange(len(flat)), place]
        percentile = percentiles(index, name, value)
        stats = index.stats(name)
        spread = np.where(stats["std"] > 0, stats["std"], np.inf).astype(np.float64)
        deviation = (value - stats["mean"]) / spread
        found += [
            (float(percentile[c]), float(deviation[c]), Unit(name, c), int(place[c]))
            for c in np.flatnonzero(np.isfinite(percentile)).tolist()
        ]
    ranked = sorted(found, key=lambda entry: (-entry[0], -entry[1]))[:k]
    fired = []
    for rank, (percentile_, deviation_, unit, at) in enumerate(ranked, 1):
        position = Position(*divmod(at, sight.maps[unit.layer].shape[2]))
        patch = sight.patch(unit, rank, position, index.crop(unit, crop), share)
        fired.append(Fired(IndexedUnit(index, unit), percentile_, deviation_, patch))
    return Fires(sight, fired, len(found))


def percentiles(index: Index, layer: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each unit of a layer the share of photographs on which it is below its value (units,); equal ones count half.

    NaN where the value is not finite, or the unit is so on no photograph.
    """
    table, _ = index.store.table_on_disk(layer)
    below, equal, finite = (np.zeros(len(values), np.int64) for _ in range(3))
    for start in range(0, len(index), _ROWS):
        block = table[start : start + _ROWS]
        known = np.isfinite(block)
        below += ((block < values) & known).sum(axis=0)
        equal += ((block == values) & known).sum(axis=0)
        finite += known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share: NDArray[np.float64] = (below + equal / 2) / finite
    return np.where(np.isfinite(values) & (finite > 0), share, np.nan)


__all__ = ["Fired", "Fires", "fires", "percentiles"]
