"""The tight crops kept in an index: a file for each unit in its folder `tight/`.

A file is written whole under another name and renamed, so a killed process leaves the old file or the new one, and
several processes can write side by side: the last one wins, and what it lacks is computed again when it is asked for.
A crop is found by the digest of its photograph, the position and the share; the file names the rule and the network
that measured it. So a crop stays valid when photographs are added or the index is merged, and is ignored when the
weights, the preparation of photographs or the rule change. Standard library only: every cold query may read one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from patchmine.store.job import Job
from patchmine.system import digests
from patchmine.system.atomic import write_atomically
from patchmine.system.regular_files import withheld
from patchmine.system.untrusted_json import Misfit, Part, parse, read_bounded
from patchmine.units import Box, Unit

FOLDER = "tight"

RULE = 5
"""The version of the definition and of the search; another one's crops are computed again."""

_LONGEST = 80  # the most characters of a layer's name in that of its folder
_LARGEST = 64 << 20  # the most bytes to read from a file that may come from a stranger
_MOST = 1 << 31
_FAR = 1e6  # the largest share that is believed


class TightCrop(NamedTuple):
    """A tight crop: its box in input pixels, the share `retained` by it alone, and that left `without` it.

    `asked` is the number of measurements of the search.
    """

    box: Box
    retained: float
    without: float
    asked: int


class Seat(NamedTuple):
    """One patch: its unit, the photograph's number in the index, and the place y * grid width + x."""

    unit: Unit
    image: int
    place: int


class Where(NamedTuple):
    """What a kept crop is of: the photograph's digest, the place y * grid width + x, and the share asked for."""

    photograph: str
    place: int
    share: float


Crops = dict[Where, TightCrop | None]
"""Kept crops; None where the photograph drives the unit hardly more than a background."""


def network_key(job: Job) -> str:
    """A digest of all that a crop depends on, besides its photograph: the weights and what the network sees of it."""
    return digests.of_json([job.network, job.weights, job.preprocessing.as_dict()])


class TightCrops:
    """The kept crops of an index, for one network: `network` is a digest of all that a crop depends on."""

    def __init__(self, directory: Path, network: str) -> None:
        self.folder, self.network = directory / FOLDER, network

    def file(self, unit: Unit) -> Path:
        """The unit's file. The name of a layer may hold any character and be of any length."""
        name = quote(unit.layer, safe="").replace("..", "%2E%2E")
        if len(name) > _LONGEST:
            name = f"{name[:_LONGEST]}-{digests.of_bytes(unit.layer.encode())[:12]}"
        return self.folder / name / f"{unit.channel}.json"

    def read(self, unit: Unit) -> Crops:
        """The unit's crops; none if they are of another network or rule.

        Raises Misfit for a damaged file, UnreadableError for one that the system withholds.
        """
        file = self.file(unit)
        try:
            data = read_bounded(file, _LARGEST)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise withheld(file, error) or Misfit(error.strerror) from None
        document = parse(data)
        if document.whole("rule", 0, 1 << 30) != RULE or document.text("network") != self.network:
            return {}
        body = document.parts("crops")
        if document.text("digest") != _digest(unit, self.network, [row.data for row in body]):
            raise Misfit("its digest does not match")
        return dict(map(_entry, body))

    def write(self, unit: Unit, crops: Mapping[Where, TightCrop | None]) -> None:
        """Replace the unit's file. Raises OSError."""
        rows = [_row(where, crop) for where, crop in sorted(crops.items())]
        document = {
            "unit": str(unit),
            "rule": RULE,
            "network": self.network,
            "digest": _digest(unit, self.network, rows),
            "crops": rows,
        }
        file = self.file(unit)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, [json.dumps(document, separators=(",", ":")).encode() + b"\n"])

    def set_aside(self, unit: Unit) -> None:
        """Rename a damaged file, so that it is not read again but can be looked at."""
        file = self.file(unit)
        with suppress(OSError):
            file.replace(file.with_suffix(".damaged"))

    def join(self, others: Sequence[TightCrops]) -> None:
        """Take over the crops of other indexes. A damaged file of theirs is left out.

        Raises OSError, and UnreadableError for a file that the system withholds.
        """
        files = {file.relative_to(other.folder) for other in others for file in other.folder.glob("*/*.json")}
        for file in sorted(files):
            joined: Crops = {}
            unit = None
            for other in others:
                with suppress(Misfit, FileNotFoundError):
                    unit = _unit(read_bounded(other.folder / file, _LARGEST))
                    if other.file(unit) == other.folder / file:
                        joined |= other.read(unit)
            if unit is not None and joined:
                self.write(unit, {**self._readable(unit), **joined})

    def _readable(self, unit: Unit) -> Crops:
        with suppress(Misfit):
            return self.read(unit)
        return {}

    @property
    def any(self) -> bool:
        """Whether the index may have tight crops at all."""
        return self.folder.is_dir()


def _unit(data: bytes) -> Unit:
    layer, _, channel = parse(data).text("unit").rpartition(":")
    if not channel.isdecimal() or len(channel) > 9:
        raise Misfit("its unit is not LAYER:CHANNEL")
    return Unit(layer, int(channel))


def _row(where: Where, crop: TightCrop | None) -> dict[str, Any]:
    measured = None
    if crop is not None:
        measured = {
            "box": list(crop.box.as_tuple()),
            "retained": crop.retained,
            "without": crop.without,
            "asked": crop.asked,
        }
    return {"photograph": where.photograph, "place": where.place, "share": where.share, "crop": measured}


def _entry(row: Part) -> tuple[Where, TightCrop | None]:
    where = Where(row.text("photograph"), row.whole("place", 0, _MOST), row.number("share", 0, 1))
    if not row.given("crop"):
        return where, None
    crop = row.part("crop")
    left, top, right, bottom = crop.wholes("box", 4, 0, _MOST)
    if not (left < right and top < bottom):
        raise Misfit(f"{crop.place}.box is empty")
    retained, without = crop.number("retained", -_FAR, _FAR), crop.number("without", -_FAR, _FAR)
    return where, TightCrop(Box(left, top, right, bottom), retained, without, crop.whole("asked", 0, _MOST))


def _digest(unit: Unit, network: str, rows: list[dict[str, Any]]) -> str:
    return digests.of_json([str(unit), network, rows])
