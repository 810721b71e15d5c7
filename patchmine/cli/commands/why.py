"""`patchmine why`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchmine.cli import options
from patchmine.study.settings import BUDGET_S, Settings

if TYPE_CHECKING:
    from patchmine.index import Index
    from patchmine.units import Unit


def why(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the report.", show_default=False)],
    unit: options.Units = None,
    budget: Annotated[
        float, typer.Option(metavar="S", help="Seconds for each unit; fewer seconds leave out the largest canvases.")
    ] = BUDGET_S,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Synthetic images of each kind; more give narrower intervals.")
    ] = Settings.seeds,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of each ascent.")] = Settings.steps,
    canvas: Annotated[
        list[int] | None,
        typer.Option(
            "--canvas",
            metavar="PX",
            help="Side of a canvas; may be repeated. Default: from the field up to four inputs, as the budget allows.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed; another seed starts from other noise.")] = Settings.seed,
    layer: options.Layer = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
) -> None:
    """Find out why a synthetic image repeats its motif, such as six fish: pitch, canvas, corner, data or noise.

    The command makes synthetic images on canvases of growing size, with zero, reflected and circular padding. It counts
    the peaks of the unit in them and in photographs, and writes report.md, report.json and a page as PDF and PNG. Run
    the same command again to resume.

    Example: `patchmine why --unit blocks.4:50 -o why-50`
    """
    from patchmine.cli.running import opened
    from patchmine.errors import RequestError
    from patchmine.system import allocator
    from patchmine.system.atomic import unwritable

    allocator.keep_flat()  # before torch starts its threads
    if not unit:
        raise RequestError("no unit given: give --unit U, as in --unit blocks.4:50 (may be repeated)")
    counts = [("--budget", budget), ("--steps", steps), *(("--canvas", px) for px in canvas or ())]
    for name, value in counts:
        if value < 1:
            raise RequestError(f"{name} must be at least 1, not {value:g}")
    if out.exists() and not out.is_dir():
        raise RequestError(f"{str(out)!r} is a file: give a folder for the report with -o DIR")
    if why := unwritable(out):
        raise RequestError(f"the report cannot be written to {str(out)!r} ({why}): give another folder with -o DIR")
    at = opened(index, source, model, weights)
    units = [at.unit(one, layer).unit for one in unit]
    documents = _studied(at, units, out, budget, Settings(steps, seeds, seed), canvas or [])
    _print(at, documents, out, json)


def _studied(
    opened: Index,
    units: list[Unit],
    out: Path,
    budget: float,
    settings: Settings,
    sides: list[int],
) -> list[dict[str, Any]]:
    """The report of each unit; an interrupt reports where the finished images are kept."""
    from patchmine.cli import progress
    from patchmine.cli.errors import say
    from patchmine.cli.stopping import starting, stoppable
    from patchmine.defaults import Run
    from patchmine.errors import PatchmineError

    with starting():
        import torch

        import patchmine.study.report as report
        from patchmine.study import why as studying
    torch.set_num_threads(Run().workers)
    network = opened.network()
    documents: list[dict[str, Any]] = []
    try:
        with stoppable():
            for unit in units:
                folder = out if len(units) == 1 else out / f"{unit.layer}-{unit.channel}"
                try:
                    with progress.shown() as display:
                        found = studying.study(opened, unit, network, folder, budget, settings, display, sides)
                except PatchmineError as error:
                    if len(units) == 1:
                        raise
                    say(f"left out: {error}")
                    continue
                documents.append(dict(report.write_report(found, opened, folder)))
    except KeyboardInterrupt as interrupt:
        kept = f"finished images are kept in {str(out)!r}; run the same command to resume"
        raise type(interrupt)(kept) from None
    if len(units) > 1:
        report.write_summary(documents, out)
    return documents


def _print(opened: Index, documents: list[dict[str, Any]], out: Path, json: bool) -> None:
    from patchmine.cli.output import print_json, print_line, print_table

    if json:
        print_json({"index": opened.name, "reports": documents})
        return
    if len(documents) == 1:
        print_line(documents[0]["conclusion"])
        print_line("")
        rows = [(verdict["question"], verdict["word"], verdict["because"]) for verdict in documents[0]["verdicts"]]
        print_table(rows, ["question", "verdict", "because"])
        print_line(f"{out / 'report.md'}, report.pdf, report.png, report.json")
        return
    from patchmine.study.report import COLUMNS, summary

    print_table([tuple(map(str, row.values())) for row in summary(documents)], list(COLUMNS))
    print_line(str(out / "summary.md"))
