"""Tight crops of patches: those that the index keeps are read without torch, the others are found with the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patchmine.defaults import TIGHT_SHARE
from patchmine.fields.cropping import Cropping
from patchmine.fields.field import ReceptiveField
from patchmine.photographs.placement import Placement
from patchmine.reading.patch import Patch
from patchmine.store.tight_crops import Seat, TightCrop, Where
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
        found = _found(index, seats, share)
        return [patch.with_tight(found.get(seat)) for patch, seat in zip(patches, seats, strict=True)], settled
    kept = _kept(index, seats, share)
    if not kept:
        return list(patches), settled
    shown = [
        patch.with_tight(kept[seat]) if seat in kept else patch for patch, seat in zip(patches, seats, strict=True)
    ]
    return shown, replace(cropping, crop="tight", otherwise=settled.crop)


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
    return _found(index, [seat], share).get(seat)


def _kept(index: Photographs, seats: Sequence[Seat], share: float) -> dict[Seat, TightCrop | None]:
    """The kept crops among those of these patches. A damaged file counts as none: `tighten` mends it."""
    if not index.tight_crops.any:
        return {}
    found = {}
    for unit, of_unit in by_unit(seats).items():
        try:
            crops = index.tight_crops.read(unit)
        except Misfit:
            continue
        for seat in of_unit:
            where = Where(index.digest(seat.image), seat.place, share) if crops else None
            if where in crops:
                found[seat] = crops[where]
    return found


def _found(index: Photographs, seats: Sequence[Seat], share: float) -> dict[Seat, TightCrop | None]:
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
