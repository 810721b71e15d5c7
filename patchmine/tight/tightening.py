"""Finds the tight crops of patches of an index: those that it keeps, and those that it lacks, which it then keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, Protocol

import torch

from patchmine import executors
from patchmine.defaults import Run
from patchmine.errors import PhotographError, RequestError, StoreError, UnreadableError
from patchmine.executors import Setting
from patchmine.fields.field import ReceptiveField
from patchmine.kept.tight_crops import Crops, Seat, TightCrop, TightCrops, Where
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.networks.taps import survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.photographs.placement import Placement, Preprocessing
from patchmine.store.reading import Store
from patchmine.system.atomic import unwritable
from patchmine.system.progress import Progress, Silent
from patchmine.system.untrusted_json import Misfit
from patchmine.tight.backgrounds import blurred, noisy
from patchmine.tight.crop import Probing, Subject, measured, on_grid, tight_crop
from patchmine.tight.lanes import Lanes
from patchmine.tight.probes import Prober, Spot
from patchmine.units import Box, Position, Unit

BATCH = {"cpu": 2, "cuda": 64}
"""Inputs in a batch, by the type of the device."""


class Photographs(Protocol):
    """An opened index, as far as its tight crops need it: photographs by number, the network, the layers."""

    @property
    def name(self) -> str: ...
    @property
    def store(self) -> Store: ...
    @property
    def layers(self) -> dict[str, int]: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def tight_crops(self) -> TightCrops: ...
    @property
    def tight_found(self) -> dict[tuple[Seat, float], TightCrop | None]: ...

    def network(self) -> Network: ...
    def watching(self) -> AbstractContextManager[Progress]: ...
    def stats(self, layer: str) -> dict[str, Any]: ...
    def path(self, image: int) -> str: ...
    def digest(self, image: int) -> str: ...
    def photograph(self, image: int) -> bytes: ...
    def placement(self, image: int) -> Placement: ...
    def field(self, layer: str, image: int | None = None) -> ReceptiveField: ...


@with_own_settings
def tightened(
    index: Photographs,
    seats: Mapping[Unit, Sequence[Seat]],
    share: float,
    progress: Progress | None = None,
    run: Run | None = None,
    must_keep: bool = False,
) -> Iterator[tuple[Unit, dict[Seat, TightCrop | None]]]:
    """The tight crops of these patches, unit by unit: the kept ones first, then each unit as soon as it is kept.

    A patch whose photograph has changed or is gone is named in a note and left out. The network is loaded only if
    something is missing. Crops that cannot be kept are an error with `must_keep`, and a note without.

    Raises StoreError if a layer is not as the index has it or the crops cannot be kept, SourceError if the source has
    disappeared, and what `OpenIndex.network` raises.
    """
    shown = progress or Silent()
    library = Library(index, share, shown, must_keep)
    missing: dict[Unit, list[Seat]] = {}
    for unit, of_unit in seats.items():
        lacking = library.lacking(unit, of_unit)
        if lacking:
            missing[unit] = lacking
        else:
            yield unit, library.found(unit, of_unit)
    if not missing:
        return
    library.check()
    total, left = sum(map(len, seats.values())), sum(map(len, missing.values()))
    shown.begin(total, total - left, "tight crops")
    todo = {unit: len(of_unit) for unit, of_unit in missing.items()}
    try:
        for seat, crop in _searched(index, [seat for of_unit in missing.values() for seat in of_unit], share, run):
            shown.advance(1)
            if isinstance(crop, PhotographError):
                shown.note(f"{index.path(seat.image)}: {crop}")
            else:
                library.add(seat, crop)
            todo[seat.unit] -= 1
            if not todo[seat.unit]:
                library.keep(seat.unit)
                yield seat.unit, library.found(seat.unit, seats[seat.unit])
    finally:
        library.keep_all()


class Library:
    """Reads and keeps the crops of an index, and says so once if they cannot be kept."""

    def __init__(self, index: Photographs, share: float, progress: Progress, must_keep: bool) -> None:
        self._must_keep = must_keep
        self._index, self._share, self._progress = index, share, progress
        self._store: TightCrops = index.tight_crops
        self._crops: dict[Unit, Crops] = {}
        self._changed: set[Unit] = set()
        self._withheld: set[Unit] = set()
        self._unkept = False

    def lacking(self, unit: Unit, seats: Iterable[Seat]) -> list[Seat]:
        """Those of the patches, each once, whose crop is not kept."""
        kept = self._crops[unit] = self._read(unit)
        return [seat for seat in dict.fromkeys(seats) if self._where(seat) not in kept]

    def found(self, unit: Unit, seats: Iterable[Seat]) -> dict[Seat, TightCrop | None]:
        crops = self._crops[unit]
        return {seat: crops[where] for seat in seats if (where := self._where(seat)) in crops}

    def add(self, seat: Seat, crop: TightCrop | None) -> None:
        self._crops[seat.unit][self._where(seat)] = crop
        self._changed.add(seat.unit)

    def keep(self, unit: Unit) -> None:
        """Write the unit's crops, with those that another process has written meanwhile."""
        if unit not in self._changed or self._unkept:
            return
        self._changed.discard(unit)
        crops = {**self._read(unit), **self._crops[unit]}
        if unit in self._withheld:
            return  # the file may hold more than was found now
        try:
            self._store.write(unit, crops)
        except OSError as error:
            self._refused(error.strerror or str(error))

    def check(self) -> None:
        """Find out, before any work, whether crops can be kept."""
        why = unwritable(self._store.folder)
        if why is not None:
            self._refused(why)

    def _refused(self, why: str) -> None:
        self._unkept = True
        text = f"the tight crops cannot be kept in {str(self._store.folder)!r} ({why})"
        if self._must_keep:
            raise StoreError(f"{text}: what is there stays; mend that and run the same command again")
        self._progress.note(f"{text}: they are shown this once")

    def keep_all(self) -> None:
        for unit in sorted(self._changed):
            self.keep(unit)

    def _read(self, unit: Unit) -> Crops:
        try:
            return self._store.read(unit)
        except Misfit as damage:
            self._store.set_aside(unit)
            self._progress.note(f"the tight crops kept for {unit} are damaged ({damage}): set aside, computed again")
        except UnreadableError as error:
            if self._must_keep:
                raise
            if unit not in self._withheld:
                self._progress.note(f"{error}: tight crops of {unit} are computed again and not kept")
            self._withheld.add(unit)
        return {}

    def _where(self, seat: Seat) -> Where:
        return Where(self._index.digest(seat.image), seat.place, self._share)


@with_own_settings
def measured_again(
    index: Photographs, crops: Mapping[Seat, TightCrop], run: Run | None = None
) -> Iterator[tuple[Seat, TightCrop | PhotographError | None]]:
    """What the boxes of these crops retain now, and what is left without them; in any order."""
    return _carried_out(index, list(crops), lambda seat, subject, _: measured(subject, crops[seat].box), run)


def _searched(
    index: Photographs, seats: Sequence[Seat], share: float, run: Run | None
) -> Iterator[tuple[Seat, TightCrop | PhotographError | None]]:
    return _carried_out(index, seats, lambda _, subject, rough: tight_crop(subject, share, rough=rough), run)


def _carried_out(
    index: Photographs, seats: Sequence[Seat], probing: Callable[[Seat, Subject, bool], Probing], run: Run | None
) -> Iterator[tuple[Seat, TightCrop | PhotographError | None]]:
    """Probe these patches, one layer and input size after the other."""

    def batch_of(seat: Seat) -> tuple[int, tuple[int, int]]:
        width, height = index.placement(seat.image).input
        return layers[seat.unit.layer], (height, width)

    layers = {layer: number for number, layer in enumerate(index.layers)}
    order = {unit: number for number, unit in enumerate(dict.fromkeys(seat.unit for seat in seats))}
    ordered = sorted(seats, key=lambda seat: (batch_of(seat), order[seat.unit]))
    for (_, size), group in groupby(ordered, key=batch_of):
        alike = list(group)
        prober, lanes = _prober(index, alike[0].unit.layer, size, run or Run())
        jobs: Iterator[tuple[Seat, Callable[[], Probing]]] = (
            (seat, partial(_begun, index, seat, probing, prober)) for seat in alike
        )
        running: Lanes[Seat] = Lanes(prober, lanes)
        yield from running.run(jobs)


def _prober(index: Photographs, layer: str, size: tuple[int, int], run: Run) -> tuple[Prober, int]:
    """A prober for a layer and inputs of (height, width), with its number of lanes.

    It always computes in float32 with the fastest executor that takes the network, whatever the index was built with:
    what a crop retains is a claim about the network, not about a precision. Only the way to the crop is computed in
    bfloat16, if an executor made for this device supports it.
    """
    network = index.network()
    network.layer(layer)
    taps = survey(network.module, torch.zeros(1, 3, *size), [layer])
    if taps[0].layout.channels != index.layers[layer]:
        raise StoreError(
            f"layer {layer} of {network.name} differs from that in {index.name}: name its network with --model"
        )
    device = executors.kind(executors.DEFAULT).default_device()
    batch_size = BATCH.get(torch.device(device).type, BATCH["cpu"])
    lanes = run.workers if device == "cpu" else 1
    setting = Setting(device=device, precision="fp32", batch_size=batch_size, threads=1)
    able = executors.usable(network, device, "bf16")
    for name in executors.usable(network, device, "fp32"):
        with suppress(RequestError):  # it turns out not to take this network
            exact, rough = executors.build(name, network, taps, setting, lanes), None
            if name != executors.DEFAULT and name in able:  # the default takes bfloat16 also where that is slow
                rough = partial(executors.build, name, network, taps, replace(setting, precision="bf16"), lanes)
            return Prober(exact, rough, batch_size, size), lanes + 1  # one prepares its batch while the others compute
    raise RequestError(f"no executor takes {network.name} on {device}")


def _begun(
    index: Photographs, seat: Seat, probing: Callable[[Seat, Subject, bool], Probing], prober: Prober
) -> Probing:
    """Load the photograph and begin. Raises PhotographError."""
    pixels = prepare(index.photograph(seat.image), index.preprocessing)
    with torch.inference_mode():
        picture = normalized(pixels.tensor[None].to(prober.exact.device), index.preprocessing)
        blur, noise = blurred(picture), noisy(picture)
    layer, channel = seat.unit.layer, seat.unit.channel
    field = index.field(layer, seat.image)
    position = Position(*divmod(seat.place, field.grid[1]))
    whole = Box(0, 0, field.input[1], field.input[0])
    domain = whole if field.status == "whole_input" else on_grid(field.group(channel).seen(position), field.input)
    subject = Subject(
        picture=picture[0],
        blurred=blur[0],
        noise=noise[0],
        spot=Spot(channel, seat.place),
        domain=domain,
        center=field.center(channel, position),
        spread=float(index.stats(layer)["std"][channel]),
    )
    return probing(seat, subject, prober.has_rough)
