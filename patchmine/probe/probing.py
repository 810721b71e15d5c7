"""`patchmine probe`: how much of a unit's activation remains when its top patches are changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from patchmine import defaults
from patchmine.errors import PhotographError, UnitError
from patchmine.fields.cropping import Cropping
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.networks.taps import Tap, maps
from patchmine.photographs.decode import normalized, prepare
from patchmine.probe.conditions import CONDITIONS, Condition, Shown
from patchmine.probe.verdict import Float64, Retained, Verdict, retained
from patchmine.questions.look import surveyed
from patchmine.reading import statistics
from patchmine.reading.answers import Answer, listed
from patchmine.reading.opened import OpenIndex, OpenUnit
from patchmine.reading.patch import Patch
from patchmine.reading.tables import Columns
from patchmine.system.progress import Progress, Silent
from patchmine.units import Box, Position, Unit

AROUND = 1
"""Cells around the patch's own at which the unit is read, and its largest activation counts."""

PICTURED = 8
"""Patches whose changed pictures are kept for the sheet."""


@dataclass(frozen=True)
class Changed:
    """One patch under every condition: the activations, and the pictures that gave them, uint8 (3, height, width).

    `plain` is the photograph as it is, `unrelated` another photograph at the same place. `box` is the patch in input
    pixels. Pictures are kept for the first patches only.
    """

    patch: Patch
    box: Box
    plain: float
    unrelated: float
    values: tuple[float, ...]
    pictures: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Probe(Answer):
    """What remains under each condition, and the verdict. `changed` are the patches, best first."""

    columns: ClassVar[Columns] = {"name": str, "retained": float, "low": float, "high": float}
    header: ClassVar[Sequence[str]] = ("condition", "retained", "from", "to", "")

    unit: OpenUnit
    conditions: list[Retained]
    changed: list[Changed]
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """The document of `probe --json`."""
        return {
            "index": self.unit.index.name,
            "unit": self.unit.as_dict(),
            "patches": len(self.changed),
            "conditions": self.rows(),
            "verdict": str(self.verdict),
            "kind": self.verdict.kind,
            "sure": self.verdict.sure,
        }

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"name": one.name, "retained": round(one.retained, 6), "low": _rounded(one.low), "high": _rounded(one.high)}
            for one in self.conditions
        ]

    def shown(self) -> list[tuple[object, ...]]:
        return [
            (one.name, f"{one.retained:.0%}", _percent(one.low), _percent(one.high), condition.words)
            for one, condition in zip(self.conditions, CONDITIONS, strict=True)
        ]

    def __repr__(self) -> str:
        return listed(f"{self.unit.name}: {self.verdict}", self.shown(), self.header, len(self.conditions))


@with_own_settings
def probe(
    unit: OpenUnit,
    *,
    k: int = defaults.K,
    cropping: Cropping | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Probe:
    """Show the k best patches of a unit to the network under every condition, and judge.

    The patch is what the cropping shows. The unit is read at the patch's own position and AROUND cells around it, so
    that a change elsewhere in the photograph does not count. Raises UnitError for a unit that never fires or hardly
    responds to its patches, PhotographError if no photograph can be read, SourceError if the source has gone, and what
    `OpenIndex.network` raises.
    """
    index, shown = unit.index, progress or Silent()
    if not unit.statistics.finite:
        raise UnitError(f"{statistics.left_out(index.store, index.name, unit.unit)}; choose another unit")
    if unit.statistics.dead:
        raise UnitError(f"{unit.unit} is dead on the photographs of {index.name}; choose another unit")
    _ = index.source  # a folder that has gone is refused before the work
    wanted = cropping or Cropping("auto")
    patches = unit.top(k, crop=wanted.crop, share=wanted.share)
    laboratory = _Laboratory(index, unit.unit, index.network())
    hosts = _hosts(index, [patch.image_id for patch in patches], seed)
    shown.begin(len(patches), 0, f"patches of {unit.name}")
    changed: list[Changed] = []
    failed = ""
    for number, patch in enumerate(patches):
        try:
            changed.append(laboratory.changed(patch, patches.cropping, hosts, seed + number, len(changed) < PICTURED))
        except PhotographError as error:
            failed = f"{patch.image}: {error}"
            shown.note(f"left out: {failed}")
        shown.advance(1)
    if not changed:
        raise PhotographError(f"no patch of {unit.unit} can be shown; {failed}")
    plain, unrelated = (np.array([getattr(one, key) for one in changed]) for key in ("plain", "unrelated"))
    values: Float64 = np.array([one.values for one in changed]).T
    found = [retained(unit.unit, one.name, row, plain, unrelated) for one, row in zip(CONDITIONS, values, strict=True)]
    return Probe(unit, found, changed, Verdict.of({one.name: one for one in found}))


def _hosts(index: OpenIndex[Any], taken: Sequence[int], seed: int) -> Iterator[int]:
    """Photographs of the index in random order, without end: those not `taken`, if there are others."""
    order = np.random.default_rng(seed).permutation(len(index)).tolist()
    free = set(order) - set(taken)
    return cycle([image for image in order if image in free or not free])


class _Laboratory:
    """The network of an index, for the changes of one unit's patches."""

    def __init__(self, index: OpenIndex[Any], unit: Unit, network: Network) -> None:
        self._index, self._unit, self._network = index, unit, network
        self._taps: dict[tuple[int, int], tuple[Tap, ...]] = {}

    def changed(self, patch: Patch, cropping: Cropping, hosts: Iterator[int], seed: int, keep: bool) -> Changed:
        """The patch under every condition. Raises PhotographError if the photograph cannot be read."""
        assert patch.field is not None
        pixels = self._pixels(patch.image_id)
        box = patch.input_box if patch.cropped else cropping.box(patch.field, self._unit.channel, patch.position)
        y, x = patch.field.center(self._unit.channel, patch.position)
        size = (pixels.shape[1], pixels.shape[2])
        shown = Shown(pixels, box, (x + 0.5, y + 0.5), self._host(hosts, patch.image_id, size), seed)
        groups = [pixels[None], shown.host[None], *(condition.change(shown) for condition in CONDITIONS)]
        batch = torch.cat(groups).round().clamp(0, 255).to(torch.uint8)
        activations = np.split(self._read(batch, patch.position), np.cumsum([len(group) for group in groups])[:-1])
        weakest = [False, False, *(condition.weakest for condition in CONDITIONS)]
        chosen = [
            int(part.argmin() if least else part.argmax()) for part, least in zip(activations, weakest, strict=True)
        ]
        values = [float(part[which]) for part, which in zip(activations, chosen, strict=True)]
        pictures = [part[which].numpy() for part, which in zip(batch.split([*map(len, groups)]), chosen, strict=True)]
        return Changed(patch, box, values[0], values[1], tuple(values[2:]), tuple(pictures) if keep else ())

    def _read(self, batch: Tensor, at: Position) -> Float64:
        """The unit's activations (pictures,) at a position and around it."""
        size = (batch.shape[2], batch.shape[3])
        if size not in self._taps:
            self._taps[size] = surveyed(self._index, self._network, [self._unit.layer], size)[0]
        inputs = normalized(batch, self._network.preprocessing)
        found = maps(self._network.module, inputs, self._taps[size])[self._unit.layer][:, self._unit.channel]
        near = found[:, max(0, at.y - AROUND) : at.y + AROUND + 1, max(0, at.x - AROUND) : at.x + AROUND + 1]
        return near.flatten(1).amax(1).double().numpy()

    def _host(self, hosts: Iterator[int], own: int, size: tuple[int, int]) -> Tensor:
        """The next photograph that can be read and is not its own, in the size of the input."""
        for _ in range(len(self._index)):
            image = next(hosts)
            if image == own:
                continue
            try:
                pixels = self._pixels(image)
            except PhotographError:
                continue
            if pixels.shape[1:] != size:
                pixels = interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
            return pixels
        raise PhotographError("no other photograph of the index can be read, into which the patch could be pasted")

    def _pixels(self, image: int) -> Tensor:
        """float32 (3, height, width) from 0 to 255."""
        return prepare(self._index.photograph(image), self._index.preprocessing).tensor.to(torch.float32)


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"


__all__ = ["Condition", "Probe", "probe"]
