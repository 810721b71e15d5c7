"""Tight crops of patches: those that the index keeps are read without torch, the others are found with the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from patchmine.defaults import DIFFUSE, TIGHT_K, TIGHT_SHARE
from patchmine.errors import UnreadableError
from patchmine.fields.cropping import Cropping
from patchmine.fields.field import ReceptiveField
from patchmine.kept.tight_crops import Seat, TightCrop, Where
from patchmine.photographs.placement import Placement
from patchmine.reading.answers import Answer
from patchmine.reading.patch import Patch
from patchmine.reading.tables import Columns
from patchmine.system import digests
from patchmine.system.untrusted_json import Misfit
from patchmine.units import Unit

if TYPE_CHECKING:
    from patchmine.tight.tightening import Photographs


def cropped(
    index: Photographs, patches: Sequence[Patch], cropping: Cropping, settled: Cropping
) -> tuple[list[Patch], Cropping]:
    """The patches with the tight crops that `cropping` asks for, and the cropping that they show.

    The patches show the `settled` cropping so far. `tight` finds every crop, which loads the network if the index lacks
    one, and `auto` takes those that are kept. Raises what `tight.tightening.tightened` raises.
    """
    if cropping.crop not in ("tight", "auto") or not patches:
        return list(patches), settled
    share = cropping.retained
    seats = [seat_of(patch) for patch in patches]
    if cropping.crop == "tight":
        found = find(index, seats, share)
        return [patch.with_tight(found.get(seat)) for patch, seat in zip(patches, seats, strict=True)], settled
    kept = _kept(index, seats, share)
    if not kept:
        return list(patches), settled
    shown = [
        patch.with_tight(kept[seat]) if seat in kept else patch for patch, seat in zip(patches, seats, strict=True)
    ]
    return shown, replace(cropping, crop="tight", otherwise=settled.crop)


class Tightened(Answer):
    """The tight crops of units, which the index keeps, unit by unit."""

    columns: ClassVar[Columns] = {
        "layer": str,
        "channel": int,
        "name": str,
        "patches": int,
        "area": float,
        "retained": float,
        "without": float,
        "diffuse": float,
    }
    header: ClassVar[Sequence[str]] = ("layer", "units", "patches", "median area", "median without", "diffuse", "none")

    def __init__(self, index: str, share: float) -> None:
        self._index, self._share = index, share
        self._units: list[tuple[dict[str, Any], list[tuple[TightCrop, float]], int]] = []

    def add(self, index: Photographs, unit: Mapping[str, Any], crops: Mapping[Seat, TightCrop | None]) -> None:
        """Add a unit, described as in `top --json`, with its crops."""
        found = [(crop, _area(index, seat, crop)) for seat, crop in crops.items() if crop is not None]
        self._units.append((dict(unit), found, len(crops)))

    def __len__(self) -> int:
        return len(self._units)

    def as_dict(self) -> dict[str, Any]:
        """The document of `tighten --json`."""
        return {"index": self._index, "share": self._share, "units": self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                **{key: unit[key] for key in ("layer", "channel", "name")},
                "patches": of,
                "area": _median([area for _, area in crops]),
                "retained": min((round(crop.retained, 6) for crop, _ in crops), default=None),
                "without": _median([crop.without for crop, _ in crops]),
                "diffuse": _share_diffuse([area for _, area in crops]),
            }
            for unit, crops, of in self._units
        ]

    def shown(self) -> list[tuple[object, ...]]:
        """One row for each layer."""
        rows = []
        for layer in dict.fromkeys(unit["layer"] for unit, _, _ in self._units):
            units = [(crops, of) for unit, crops, of in self._units if unit["layer"] == layer]
            crops = [pair for found, _ in units for pair in found]
            areas = [area for _, area in crops]
            without = _median([crop.without for crop, _ in crops])
            total = sum(of for _, of in units)
            rows.append(
                (
                    layer,
                    len(units),
                    total,
                    *map(_rounded, (_median(areas), without, _share_diffuse(areas))),
                    total - len(crops),
                )
            )
        return rows


def tightness(index: Photographs, unit: Unit) -> dict[str, float | None]:
    """`tight`, the median area of the unit's kept tight crops as a share of the input, and `diffuse`, the share of them
    that are diffuse.

    Of its TIGHT_K best patches at the default share; None where the index keeps none.
    """
    if not index.tight_crops.any:
        return {"tight": None, "diffuse": None}
    _, images, places = index.store.top(unit.layer, unit.channel)
    best = zip(images[:TIGHT_K].tolist(), places[:TIGHT_K].tolist(), strict=True)
    kept = _kept(index, [Seat(unit, image, place) for image, place in best], TIGHT_SHARE)
    areas = [_area(index, seat, crop) for seat, crop in kept.items() if crop is not None]
    return {"tight": _median(areas), "diffuse": _share_diffuse(areas)}


def _area(index: Photographs, seat: Seat, crop: TightCrop) -> float:
    width, height = index.placement(seat.image).input
    return crop.box.area / (width * height)


def _median(numbers: Sequence[float]) -> float | None:
    return round(float(np.median(numbers)), 6) if numbers else None


def _share_diffuse(areas: Sequence[float]) -> float | None:
    return round(sum(area > DIFFUSE for area in areas) / len(areas), 6) if areas else None


def _rounded(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


class Beside:
    """An index with one photograph beside it, which has the number -1: what tight crops in that photograph need."""

    def __init__(
        self, index: Photographs, path: str, data: bytes, placement: Placement, fields: Mapping[str, ReceptiveField]
    ) -> None:
        self._index = index
        self._path, self._data, self._placement, self._fields = path, data, placement, fields

    def __getattr__(self, name: str) -> Any:
        """Whatever does not concern the photograph is the index's own."""
        return getattr(self._index, name)

    def path(self, image: int) -> str:
        return self._path if image < 0 else self._index.path(image)

    def digest(self, image: int) -> str:
        return digests.of_bytes(self._data) if image < 0 else self._index.digest(image)

    def photograph(self, image: int) -> bytes:
        return self._data if image < 0 else self._index.photograph(image)

    def placement(self, image: int) -> Placement:
        return self._placement if image < 0 else self._index.placement(image)

    def field(self, layer: str, image: int | None = None) -> ReceptiveField:
        return self._index.field(layer, image) if image is None or image >= 0 else self._fields[layer]


def seat_of(patch: Patch) -> Seat:
    assert patch.field is not None, "a patch that belongs to no index has no tight crop"
    return Seat(patch.unit, patch.image_id, patch.position.y * patch.field.grid[1] + patch.position.x)


def crop_of(index: Photographs, seat: Seat, share: float = TIGHT_SHARE) -> TightCrop | None:
    """The tight crop of one patch: kept, or found and kept."""
    return find(index, [seat], share).get(seat)


def _kept(index: Photographs, seats: Sequence[Seat], share: float) -> dict[Seat, TightCrop | None]:
    """The kept crops among those of these patches. A file that cannot be read counts as none: `tighten` says so."""
    if not index.tight_crops.any:
        return {}
    found = {}
    for unit, of_unit in by_unit(seats).items():
        try:
            crops = index.tight_crops.read(unit)
        except (Misfit, UnreadableError):
            continue
        for seat in of_unit:
            where = Where(index.digest(seat.image), seat.place, share) if crops else None
            if where in crops:
                found[seat] = crops[where]
    return found


def kept_crops(index: Photographs) -> tuple[dict[Seat, TightCrop], list[Unit]]:
    """All kept crops of the patches in the units' tops, at any share, and the units whose file is damaged."""
    kept: dict[Seat, TightCrop] = {}
    damaged: list[Unit] = []
    if not index.tight_crops.any:
        return kept, damaged
    for layer, channels in index.layers.items():
        for unit in (Unit(layer, channel) for channel in range(channels)):
            try:
                crops = index.tight_crops.read(unit)
            except Misfit:
                damaged.append(unit)
                continue
            if crops:
                _, images, places = index.store.top(layer, unit.channel)
                numbers = {
                    (index.digest(i), p): Seat(unit, i, p)
                    for i, p in zip(images.tolist(), places.tolist(), strict=True)
                }
                for where, crop in crops.items():
                    seat = numbers.get((where.photograph, where.place))
                    if seat is not None and crop is not None:
                        kept[seat] = crop
    return kept, damaged


def find(index: Photographs, seats: Sequence[Seat], share: float) -> dict[Seat, TightCrop | None]:
    """The tight crops of these patches: those that are kept, and those that are found now."""
    known = {seat: index.tight_found[seat, share] for seat in seats if (seat, share) in index.tight_found}
    known |= _kept(index, [seat for seat in seats if seat not in known], share)
    lacking = [seat for seat in seats if seat not in known]
    if lacking:
        with index.watching() as progress:
            from patchmine.tight.tightening import tightened

            for _, crops in tightened(index, by_unit(lacking), share, progress):
                known |= crops
    # Remembered too, as an index that cannot be written keeps nothing; the number -1 may mean another one next time.
    index.tight_found.update({(seat, share): crop for seat, crop in known.items() if seat.image >= 0})
    return known


def by_unit(seats: Sequence[Seat]) -> dict[Unit, list[Seat]]:
    grouped: dict[Unit, list[Seat]] = {}
    for seat in seats:
        grouped.setdefault(seat.unit, []).append(seat)
    return grouped
