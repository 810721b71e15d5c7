"""`patchmine why`: the whole study of one unit, within a time budget, and resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from patchmine import defaults
from patchmine.errors import PatchmineError, RequestError, UnitError
from patchmine.kept import findings
from patchmine.networks.folding import finite_weights
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.reading import statistics
from patchmine.reading.opened import OpenIndex
from patchmine.study.in_photographs import InPhotographs, in_photographs
from patchmine.study.instruments.alike import Alike, responses
from patchmine.study.instruments.padding import padded
from patchmine.study.instruments.peaks import APART
from patchmine.study.instruments.torus import stride
from patchmine.study.noise import Noise, noise, unmeasured
from patchmine.study.settings import Settings
from patchmine.study.trials import Laboratory, Result, Subject, Trial, affordable, plan, price, step_seconds
from patchmine.study.verdicts import Verdict, conclusion, counted, endless, reference, verdicts
from patchmine.synthesis.library import VERSION
from patchmine.system.atomic import write_atomically
from patchmine.system.progress import Progress, Silent
from patchmine.units import Position, Unit

CELLS = "trials"
"""The folder of the cached trials."""

_REST_S = 25.0  # reserved for photographs, spectra, and the report
_FEWEST = 2  # trials that run on any budget: with a border and without


@dataclass(frozen=True)
class Study:
    """The results for one unit. `left_out` are the trials that the budget did not reach."""

    unit: Unit
    name: str
    subject: Subject
    settings: Settings
    results: dict[Trial, Result]
    left_out: list[Trial]
    seen: InPhotographs | None
    noise: Noise | None
    verdicts: list[Verdict]
    seconds: float
    evidence: str = ""

    @property
    def conclusion(self) -> str:
        return conclusion(self.verdicts)


def subject_of(index: OpenIndex[Any], unit: Unit, network: Network) -> Subject:
    """The unit in the form that the trials need."""
    field = index.field(unit.layer)
    native = min(field.input)
    seen = field.group(unit.channel).seen(Position(field.grid[0] // 2, field.grid[1] // 2))
    effective = field.effective_size(defaults.SHARE)
    side = min(max(seen.width, seen.height), effective or native, native)
    of_field = field.group(unit.channel).stride
    step, fixed = _stride(network, unit.layer, max(of_field) if of_field and min(of_field) else native)
    return Subject(
        finite_weights(network.module),
        unit.layer,
        unit.channel,
        network.preprocessing,
        native,
        step,
        max(side, 1),
        network.weights,
        field.center(unit.channel, Position(0, 0)),
        fixed,
    )


def _stride(network: Network, layer: str, of_field: int) -> tuple[int, str | None]:
    """The layer's stride in pixels, and None. If it cannot be determined, the stride of the fields, and the reason
    why the layer allows only the trained canvas."""
    try:
        down, across = stride(padded(network.module, "circular"), layer)
    except RequestError as error:
        return of_field, str(error)
    if down != across:
        fixed = f"{layer} has a stride of {down} px down and {across} px across: choose a layer with one stride"
        return of_field, fixed
    return down, None


@with_own_settings
def study(
    index: OpenIndex[Any],
    unit: Unit,
    network: Network,
    folder: Path,
    budget_s: float,
    settings: Settings | None = None,
    progress: Progress | None = None,
    sides: Sequence[int] = (),
) -> Study:
    """Run the trials that fit into the budget, examine the photographs, and judge. `sides` is passed to `plan`.

    Results are cached in `folder`, and the index keeps the verdicts. The same call resumes from there and keeps to its
    original plan. Raises UnitError for a unit that never fires, and for one of tokens.
    """
    settings, shown = settings or Settings(), progress or Silent()
    began = perf_counter()
    found = index.unit(unit)
    if not found.statistics.finite:
        raise UnitError(f"{statistics.left_out(index.store, index.name, unit)}; choose another unit")
    if found.statistics.maximum <= 0:
        raise UnitError(f"{unit} is dead: it is never above 0 on any photograph of {index.name}; choose another unit")
    if index.field(unit.layer).tokens is not None:
        raise UnitError(
            f"{unit} reads tokens: `why` changes the canvas and its padding, but a transformer has one canvas and pads "
            f"nothing; see what its synthetic image shares with patches: patchmine compare --unit {unit}"
        )
    subject = subject_of(index, unit, network)
    laboratory = Laboratory(subject, settings, folder / CELLS)
    planned = _planned(laboratory, folder, budget_s - _REST_S, shown, sides)
    shown.begin(len(planned.trials), 0, f"synthetic images of {found.name}")
    results = _made(laboratory, planned, began + budget_s - _REST_S, shown)
    left_out = [trial for trial in (*planned.trials, *planned.left_out) if trial not in results]
    cells = APART * subject.pattern / subject.stride
    seen = _or_none(lambda: in_photographs(index, unit, network, cells), shown)
    heard = _or_none(lambda: noise(results, subject, seen), shown)
    repeats = _or_none(lambda: alike(laboratory, results, seen), shown)
    judged = [*verdicts(results, subject, seen, repeats), heard.verdict if heard else unmeasured()]
    said = findings.Finding(
        [conclusion(judged)], [(verdict.question, f"{verdict.word}: {verdict.because}") for verdict in judged]
    )
    findings.write(index, unit, findings.WHY, said)
    seconds = perf_counter() - began
    return Study(
        unit, found.name, subject, settings, results, left_out, seen, heard, judged, seconds, evidence=found.evidence
    )


def alike(laboratory: Laboratory, results: Mapping[Trial, Result], seen: InPhotographs | None) -> Alike | None:
    """How alike the layer's responses to the peaks on the largest torus are; None without a torus or photographs to
    compare."""
    subject = laboratory.subject
    level, largest = reference(results, subject), endless(results, subject)
    if level is None or largest is None or seen is None or seen.vectors is None or seen.center is None:
        return None
    peaks, places = [], []
    for maps, found in zip(laboratory.everything(largest), counted(largest, subject, level), strict=True):
        peaks.append(responses(maps[:, *found.cells.T].T, seen.center, subject.channel))
        places.append(responses(maps.reshape(len(maps), -1).T, seen.center, subject.channel))
    return Alike.of(peaks, places, responses(seen.vectors, seen.center, subject.channel))


@dataclass(frozen=True)
class _Plan:
    """The trials to run, in order, and those beyond the budget. `step_s` is the time per step on the trained canvas."""

    trials: list[Trial]
    left_out: list[Trial]
    step_s: float


def _made(laboratory: Laboratory, planned: _Plan, until: float, progress: Progress) -> dict[Trial, Result]:
    """The planned results. If the machine has slowed down, only those that still fit into the time."""
    results: dict[Trial, Result] = {}
    spent = expected = 0.0
    for trial in planned.trials:
        cost = price(laboratory.subject, trial, planned.step_s, laboratory.settings)
        result = laboratory.kept(trial)
        if result is None:
            slower = max(spent / expected, 1.0) if expected else 1.0
            if len(results) >= _FEWEST and perf_counter() + slower * cost > until:
                progress.note(f"no time for {trial}: run the same command again to resume")
                continue
            result = laboratory.made(trial)
            spent, expected = spent + result.seconds, expected + cost
        results[trial] = result
        progress.advance(1)
        if result.refused:
            progress.note(f"{trial}: {result.refused}")
    return results


def _or_none(work: Callable[[], Any], progress: Progress) -> Any:
    """The result of `work`, or None with a note if it fails, so that one failure does not stop the study."""
    try:
        return work()
    except PatchmineError as error:
        progress.note(f"left out: {error}")
        return None


def _planned(laboratory: Laboratory, folder: Path, budget_s: float, progress: Progress, sides: Sequence[int]) -> _Plan:
    """The plan, from the folder or made now, and reported before the first trial begins."""
    subject, settings = laboratory.subject, laboratory.settings
    every = plan(subject, sides)
    file, about = (
        folder / "plan.json",
        {"settings": asdict(settings), "budget_s": budget_s, "sides": list(sides), "version": VERSION},
    )
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_bytes())
        if kept["about"] == about:
            trials = [Trial(**row) for row in kept["trials"]]
            done = sum(laboratory.kept(trial) is not None for trial in trials)
            progress.note(f"resuming: {done} of {len(trials)} kinds of synthetic images are done")
            return _Plan(trials, [trial for trial in every if trial not in trials], float(kept["step_s"]))
    step_s = step_seconds(subject, settings)
    count = max(affordable(subject, every, step_s, settings, budget_s), _FEWEST)
    trials, left_out = every[:count], every[count:]
    seconds = sum(price(subject, trial, step_s, settings) for trial in trials)
    progress.note(
        f"plan: {len(trials)} kinds of synthetic images, {settings.seeds} of each, {settings.steps} steps, on canvases "
        f"of {', '.join(str(side) for side in sorted({trial.side for trial in trials}))} px: about {seconds:.0f} s"
    )
    if left_out:
        progress.note(f"no time for {len(left_out)} more, such as {left_out[0]}: give a larger --budget")
    folder.mkdir(parents=True, exist_ok=True)
    document = {"about": about, "trials": [asdict(trial) for trial in trials], "step_s": step_s}
    write_atomically(file, [json.dumps(document, indent=1).encode()])
    return _Plan(trials, left_out, step_s)


def as_dict(found: Study, index: OpenIndex[Any]) -> dict[str, Any]:
    """Every number of a study, for `report.json`."""
    subject = found.subject
    return {
        "index": index.name,
        "unit": index.unit(found.unit).as_dict(),
        "native_px": subject.native,
        "stride_px": subject.stride,
        "pattern_px": subject.pattern,
        "settings": asdict(found.settings),
        "conclusion": found.conclusion,
        "verdicts": [asdict(verdict) for verdict in found.verdicts],
        "trials": [_row(result, found) for result in found.results.values()],
        "left_out": [str(trial) for trial in found.left_out],
        "seconds": round(found.seconds, 1),
    }


def _row(result: Result, found: Study) -> dict[str, Any]:
    spacing = [one.nearest() * found.subject.stride for one in result.peaks(found.subject, APART)]
    if found.subject.fixed:
        spacing = [one[:0] for one in spacing]  # cell spacings in pixels may differ down and across
    return {
        **asdict(result.trial),
        "refused": result.refused,
        "peaks": [len(one) for one in result.peaks(found.subject, APART)],
        "maximum": [float(value) for value in result.maxima],
        "spacing_px": [float(sum(one) / len(one)) if len(one) else None for one in spacing],
        "kept_when_moved": result.kept_when_moved(found.subject),
        "seconds": round(result.seconds, 2),
    }


__all__ = ["Study", "as_dict", "study", "subject_of"]
