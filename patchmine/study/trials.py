"""The crossed factors canvas, padding, and objective: which trials to run, their cost, and their results.

A trial is a batch of synthetic images that differ only in their initial noise. All trials of a unit share one recipe:
Fourier coefficients and a jitter that wraps around, because any other would bring borders into a canvas without one.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from patchmine.errors import PatchmineError, UnitError
from patchmine.photographs.placement import Preprocessing
from patchmine.ranking import Float32
from patchmine.study.instruments.padding import Mode, check_room, padded
from patchmine.study.instruments.peaks import APART, Peaks, peaks
from patchmine.study.instruments.torus import check_torus
from patchmine.study.settings import Settings
from patchmine.synthesis.ascent import Ascent
from patchmine.synthesis.canvas import whole
from patchmine.synthesis.keeping import DEAD
from patchmine.synthesis.library import VERSION
from patchmine.synthesis.recipe import Recipe
from patchmine.system import digests
from patchmine.system.atomic import write_atomically


@dataclass(frozen=True, order=True)
class Trial:
    """A canvas of `side` x `side` input pixels, the padding of every layer, and the objective and method."""

    side: int
    padding: Mode = "zeros"
    objective: str = "channel"
    method: str = "fourier"

    def __str__(self) -> str:
        method = "" if self.method == "fourier" else f", {self.method}"
        return f"{self.side} px, {self.padding}, {self.objective}{method}"


@dataclass(frozen=True)
class Subject:
    """The unit under study, with everything that its trials need.

    `native` is the side that the network was trained at, `stride` the stride of the layer, and `pattern` the side of
    the unit's field (the effective one if it is known), all in input pixels. `origin` (y, x) is the center of the field
    of the first position; whole numbers are pixel centers. `fixed` says why the layer allows only the trained canvas
    and no torus; otherwise it is None.
    """

    module: nn.Module
    layer: str
    channel: int
    preprocessing: Preprocessing
    native: int
    stride: int
    pattern: int
    weights: str = ""
    origin: tuple[float, float] = (0.0, 0.0)
    fixed: str | None = None

    def places(self, one: Peaks) -> NDArray[np.float64]:
        """The centers of the unit's fields at its peaks: float64 (peaks, 2), y, x in pixels of the canvas."""
        found = one.cells * self.stride + np.array(self.origin)
        return found % (np.array(one.grid) * self.stride) if one.wraps else found

    def sides(self) -> list[int]:
        """Canvas sides from one field up to four times the network's input, in whole strides, as the torus requires."""
        wanted = [self.pattern, *(round(self.native * share) for share in (0.5, 0.75, 1, 1.5, 2, 3, 4))]
        rounded = {max(2, -(-side // self.stride)) * self.stride for side in wanted if side >= self.pattern}
        return sorted(side for side in rounded | {self.base} if side <= 4 * self.base)

    @property
    def base(self) -> int:
        """The native side, in whole strides."""
        if self.fixed:
            return self.native
        return max(2, round(self.native / self.stride)) * self.stride


def recipe_of(trial: Trial, settings: Settings) -> Recipe:
    """The recipe of a trial: hashed, and passed to `ascent`."""
    return Recipe(
        trial.objective,
        trial.method,
        settings.steps,
        settings.seed,
        jitter=settings.jitter,
        images=settings.seeds,
        wrap=True,
    ).settled()


@dataclass(frozen=True)
class Result:
    """The result of a trial: pictures uint8 (seeds, side, side, 3) and maps float32 (seeds, grid, grid), or a refusal.

    `moved` are the maps of the same images rolled by half the canvas, in whole strides; on a torus they equal `maps`,
    rolled.
    """

    trial: Trial
    pictures: NDArray[np.uint8]
    maps: Float32
    moved: Float32
    seconds: float
    refused: str | None = None

    @property
    def maxima(self) -> Float32:
        found: Float32 = self.maps.max((1, 2)) if len(self.maps) else np.zeros(0, np.float32)
        return found

    def kept_when_moved(self, subject: Subject) -> float | None:
        """The share of the activation at the peaks that remains when the image moves by half the canvas, as the median
        over all peaks of all seeds; 1 means no change. None without peaks, or without a whole number of strides to move
        by."""
        if subject.fixed:
            return None
        half = self.trial.side // subject.stride // 2
        left = []
        for one, moved in zip(self.peaks(subject, APART), self.moved, strict=True):
            y, x = ((one.cells + half) % np.array(one.grid)).T
            left += list(moved[y, x] / one.values)
        return float(np.median(left)) if left else None

    def peaks(self, subject: Subject, apart: float, reference: float | None = None) -> list[Peaks]:
        """The peaks for each seed; `apart` is a share of the field's side."""
        wraps = self.trial.padding == "circular"
        cells = apart * subject.pattern / subject.stride
        return [peaks(one, cells, wraps=wraps, reference=reference) for one in self.maps]


def plan(subject: Subject, sides: Sequence[int] = ()) -> list[Trial]:
    """All trials, the most informative first, so that a small budget cuts off the least informative. `sides` restricts
    the canvases, each rounded to whole strides; the trained canvas is always included."""
    if subject.fixed:
        return [Trial(subject.base), Trial(subject.base, method="pixels")]
    wanted = {max(2, round(side / subject.stride)) * subject.stride for side in sides}
    sides = sorted(wanted | {subject.base}) if sides else subject.sides()
    native, larger = subject.base, [side for side in sides if side > subject.base]
    smaller = [side for side in reversed(sides) if side < subject.base]
    both: tuple[Mode, Mode] = ("zeros", "circular")
    order = [Trial(native, padding) for padding in both]
    order += [Trial(side, padding) for side in (*larger[:1], *smaller[:1]) for padding in both]
    order += [Trial(native, objective="neuron"), Trial(native, method="pixels"), Trial(native, "reflect")]
    for side in (*larger[1:2], *smaller[1:], *larger[2:]):
        order += [Trial(side, padding) for padding in both]
    order += [Trial(side, objective="neuron") for side in (*smaller[:1], *larger[:2])]
    order += [Trial(side, "reflect") for side in (*larger[:2], *smaller[:1])]
    return order


def affordable(subject: Subject, trials: Sequence[Trial], step_s: float, settings: Settings, budget_s: float) -> int:
    """The number of trials, counted from the first, that fit into the budget.

    `step_s` is the time of one step on the native canvas; the cost of a step grows with the area.
    """
    spent = 0.0
    for number, trial in enumerate(trials):
        spent += price(subject, trial, step_s, settings)
        if spent > budget_s:
            return number
    return len(trials)


def price(subject: Subject, trial: Trial, step_s: float, settings: Settings) -> float:
    """The expected duration of a trial in seconds."""
    return step_s * settings.steps * (trial.side / subject.base) ** 2


def step_seconds(subject: Subject, settings: Settings) -> float:
    """The mean duration in seconds of a step of all seeds on the native canvas, not counting the first."""
    ascent = Ascent(subject.module, subject.layer, whole((subject.base, subject.base)), subject.preprocessing)
    recipe = replace(recipe_of(Trial(subject.base), settings), steps=4)
    ends: list[float] = []
    ascent.run([subject.channel], recipe, advance=lambda _done, _of: ends.append(perf_counter()))
    return (ends[-1] - ends[0]) / max(len(ends) - 1, 1)  # a single step if it stopped at once


@dataclass
class Laboratory:
    """Runs the trials of one subject and caches each in `folder` as soon as it is done."""

    subject: Subject
    settings: Settings
    folder: Path
    modules: dict[str, nn.Module] = field(default_factory=dict)

    def result(self, trial: Trial) -> Result:
        """The result of a trial: from the cache, or computed."""
        return self.kept(trial) or self.made(trial)

    def _file(self, trial: Trial) -> Path:
        subject = self.subject
        unit = [subject.layer, subject.channel, subject.weights, subject.native]
        about = [VERSION, asdict(trial), asdict(self.settings), *unit, asdict(recipe_of(trial, self.settings))]
        return self.folder / f"{digests.of_json(about)[:16]}.npz"

    def kept(self, trial: Trial) -> Result | None:
        """The cached result of a trial, or None if it is missing or unreadable."""
        try:
            with self._file(trial).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                arrays = (file["pictures"], file["maps"], file["moved"])
                return Result(trial, *arrays, float(about["seconds"]), about["refused"])
        except (OSError, ValueError, KeyError, EOFError, zlib.error, BadZipFile):
            return None

    def made(self, trial: Trial) -> Result:
        """Compute the result of a trial, even if it is cached."""
        subject, start = self.subject, perf_counter()
        try:
            module, size = self._module(trial.padding), (trial.side, trial.side)
            check_room(module, subject.layer, size)
            ascent = Ascent(module, subject.layer, whole(size), subject.preprocessing)
            found = ascent.run([subject.channel], recipe_of(trial, self.settings))
            if trial.padding == "zeros" and not any(one.alive for one in found):
                raise UnitError(f"{subject.layer}:{subject.channel} {DEAD}")
        except PatchmineError as error:
            result = Result(trial, *_nothing(), perf_counter() - start, str(error))
            self._keep(result)
            return result
        pictures, maps = np.stack([one.picture for one in found]), np.stack([one.activations for one in found])
        half = trial.side // subject.stride // 2 * subject.stride
        rolled = torch.from_numpy(np.roll(pictures, (half, half), (1, 2))).permute(0, 3, 1, 2)
        moved = ascent.activations(rolled)[:, subject.channel].float().cpu().numpy().copy()
        result = Result(trial, pictures, maps, moved, perf_counter() - start)
        self._keep(result)
        return result

    def everything(self, result: Result) -> Iterator[Float32]:
        """The maps of all channels of the layer, (channels, grid, grid), for each image of a trial in turn."""
        size = (result.trial.side, result.trial.side)
        module, subject = self._module(result.trial.padding), self.subject
        ascent = Ascent(module, subject.layer, whole(size), subject.preprocessing)
        for picture in torch.from_numpy(result.pictures).permute(0, 3, 1, 2):
            yield ascent.activations(picture[None])[0].float().cpu().numpy()

    def _module(self, padding: Mode) -> nn.Module:
        """The network with this padding; a torus is verified."""
        if padding not in self.modules:
            module, base = padded(self.subject.module, padding), self.subject.base
            if padding == "circular":
                check_torus(module, self.subject.layer, (base, base))
            self.modules[padding] = module
        return self.modules[padding]

    def _keep(self, result: Result) -> None:
        buffer = io.BytesIO()
        about: dict[str, Any] = {"seconds": result.seconds, "refused": result.refused}
        told = np.array(json.dumps(about))
        np.savez_compressed(buffer, about=told, pictures=result.pictures, maps=result.maps, moved=result.moved)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file(result.trial), [buffer.getvalue()])


def _nothing() -> tuple[NDArray[np.uint8], Float32, Float32]:
    none = np.zeros((0, 1, 1), np.float32)
    return np.zeros((0, 1, 1, 3), np.uint8), none, none


__all__ = ["Laboratory", "Result", "Subject", "Trial", "affordable", "plan", "step_seconds"]
