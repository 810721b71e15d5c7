"""`patchmine units`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchmine.cli import options
from patchmine.defaults import SHARES, SORTS

if TYPE_CHECKING:
    from patchmine.index import Index

SCORES = ("mono", "c2", "mis", "share_of_top", "label_fit")
KEYS = (*SORTS, "facets", *SCORES)
RANGE = "LOW:HIGH"


def units(
    layer: options.Layer = None,
    match: Annotated[
        str | None,
        typer.Option(
            "--match",
            metavar="PATTERN",
            help="Only units whose name or LAYER:CHANNEL matches this shell pattern.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="PATTERN",
            help="Only units whose label matches this shell pattern.",
            show_default=False,
        ),
    ] = None,
    frequency: Annotated[
        str | None,
        typer.Option(
            "--frequency",
            metavar=RANGE,
            help="Only units that are above 0 on such a share of the photographs, as in 0.001:0.1 or 0.001:.",
            show_default=False,
        ),
    ] = None,
    maximum: Annotated[
        str | None,
        typer.Option(
            "--maximum",
            metavar=RANGE,
            help="Only units whose highest activation lies in this range.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="KEY",
            help=f"Sort by {', '.join(KEYS)}; numbers in descending order, but tight crops from the smallest on.",
            show_default=False,
        ),
    ] = None,
    facets: Annotated[
        bool,
        typer.Option("--facets", help="Add the number of different things that the top patches of each unit show."),
    ] = False,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores",
            help=f"Add scores of how one-minded each unit is: {', '.join(SCORES)}, facets. Kept in the index.",
        ),
    ] = False,
    index: options.IndexDir = None,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """List the units of an index, with their names, labels and statistics.

    Example: `patchmine units --layer blocks.6 --label dog --sort hits`
    """
    scores = scores or sort in SCORES
    if facets or scores or sort == "facets":
        # There are thousands of small matrices: BLAS threads gain nothing, and cost ten times as much on busy cores.
        # BLAS reads this when numpy is loaded.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from patchmine.cli.deliver import Form
    from patchmine.cli.output import print_line, print_table
    from patchmine.errors import RequestError, nearest
    from patchmine.index import open_index
    from patchmine.labels.of_index import said
    from patchmine.reading.answers import unit_row, worded
    from patchmine.reading.tables import flat, in_order

    form = Form(json, csv)
    if sort is not None and sort not in KEYS:
        raise RequestError(f"unknown --sort {sort!r}{nearest(sort, KEYS)}")
    often, high = _range("--frequency", frequency), _range("--maximum", maximum)
    opened = open_index(index)
    chosen = list(opened.units(layer, match, label))
    if chosen and (frequency or maximum):
        numbers = [(unit, unit.statistics) for unit in chosen]
        chosen = [unit for unit, of in numbers if _within(of.positive, often) and _within(of.maximum, high)]
        if not chosen:
            raise RequestError("no unit has such a --frequency and --maximum: widen them")
    found = [unit.summary() for unit in chosen]
    if not found and label is not None:
        known = {unit.label or "" for unit in opened.units(layer)} - {""}
        raise RequestError(f"no unit has the label {label!r}{nearest(label, known)}")
    if not found:
        raise RequestError(f"no unit matches {match!r}: give a pattern such as '*_41*' or 'blocks.6:*'")
    if facets or sort == "facets":
        _add_facets(opened, found)
    scored = _add_scores(opened, layer, found) if scores else {}
    if sort is not None:
        found = in_order(found, sort)
    about = opened.labels.about

    def text() -> None:
        shares = [key for key in SHARES if any(unit[key] is not None for unit in found)]
        rows = [{**unit_row(unit, shares), **_shown(unit)} for unit in found]
        print_table([list(row.values()) for row in rows], list(rows[0]))
        print_line(f"labels: {said(about)}")
        for line in scored.get("lacking", {}).items():
            print_line("no {}: {}".format(*line))

    document = {"index": opened.name, "labels": about, **({"scores": scored} if scored else {}), "units": found}
    form.print(lambda: document, lambda: (flat(worded(unit)) for unit in found), list(flat(found[0])), text)


def _range(option: str, text: str | None) -> tuple[float, float]:
    """The range that a text means; each end may be missing. Raises RequestError."""
    from patchmine.errors import RequestError

    low, colon, high = (text or ":").partition(":")
    try:
        ends = float(low or "-inf"), float(high or "inf")
    except ValueError:
        ends = (0.0, 0.0)
        colon = ""
    if not colon or not ends[0] <= ends[1]:
        raise RequestError(f"{option} {text!r} is not a range: write LOW:HIGH, as in 0.001:0.1, or LOW: or :HIGH")
    return ends


def _within(number: float, ends: tuple[float, float]) -> bool:
    return ends[0] <= number <= ends[1]


def _add_facets(index: Index, units: list[dict[str, Any]]) -> None:
    from patchmine.questions.facets import facets

    counts = {layer: facets(index.store, layer) for layer in {unit["layer"] for unit in units}}
    for unit in units:
        unit["facets"] = int(counts[unit["layer"]][unit["channel"]])


def _add_scores(index: Index, layer: str | None, units: list[dict[str, Any]]) -> dict[str, Any]:
    """Add the scores to each unit; returns what holds for all of them."""
    from patchmine.cli import progress
    from patchmine.cli.stopping import stoppable
    from patchmine.units import Unit

    with stoppable(), progress.shown() as display:
        found = index.scores(layer, display)
    for unit in units:
        unit["scores"] = found.of(Unit(unit["layer"], unit["channel"]))
    return found.about


def _shown(unit: dict[str, Any]) -> dict[str, str | None]:
    """The scores of a unit as cells of a table; none without scores."""
    return {name: None if score is None else f"{score:.3g}" for name, score in unit.get("scores", {}).items()}
