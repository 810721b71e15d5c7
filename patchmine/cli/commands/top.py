"""`patchmine top`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.index import Index, IndexedUnit, Patches
    from patchmine.sheets.page import Page


def top(
    unit: options.Unit,
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many patches.")] = defaults.K,
    pick: Annotated[
        str, typer.Option("--pick", help=f"Which patches to show: {', '.join(defaults.PICKS)}.")
    ] = defaults.PICKS[0],
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="What ranks the photographs: the unit's activation, or its relevance to the network's decision.",
        ),
    ] = defaults.BY[0],
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            help=f"Of --by relevance: {', '.join(defaults.SCORES)}. sum and max are over the positions; normed is the "
            "share of the layer's relevance in that photograph.",
            show_default=False,
        ),
    ] = None,
    of_class: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Only photographs of this class or noun.", show_default=False),
    ] = None,
    not_class: Annotated[
        str | None,
        typer.Option(
            "--not-class", metavar="NAME", help="Leave out photographs of this class or noun.", show_default=False
        ),
    ] = None,
    diverse: Annotated[
        bool, typer.Option("--diverse", help="At most one photograph of each class, and no near duplicates.")
    ] = False,
    layer: options.Layer = None,
    crop: options.Crop = None,
    share: options.Share = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of --pick random.")] = 0,
    out: options.Sheet = None,
    project: options.Project = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """Find the patches of real photographs that drive a unit hardest.

    `--pick` chooses others: the weakest, a random sample, those at a quantile, or some from the unit's whole range.
    `--by relevance` finds where the unit matters most for what the network decides: see `patchmine index --relevance`.

    Example: `patchmine top --unit blocks.6:33 -k 25 -o fish.png`
    """
    from patchmine.cli.deliver import Form, print_labels
    from patchmine.cli.output import print_line
    from patchmine.cli.running import opened
    from patchmine.errors import RequestError

    form = Form(json, csv, out)
    if project is not None and out is None:
        raise RequestError(f"--project {project} needs a sheet to draw on: add -o SHEET.png")
    at = opened(index, source, model, weights)
    found = at.unit(unit, layer)
    patches = found.top(
        k,
        pick,
        crop or form.crop,
        seed,
        share,
        of_class=of_class,
        not_class=not_class,
        diverse=diverse,
        by=by,
        score=score or defaults.SCORES[0],
    )
    form.draw(
        lambda: _page(found, patches) if project is None else _projected(at, found, patches, project), len(patches)
    )

    def also() -> None:
        from patchmine.reading.statistics import left_out

        not_finite = left_out(at.store, at.name, found.unit)
        if not_finite is not None:
            print_line(not_finite)
        print_labels(at.labels, [found])

    form.answer(patches, f"{_named(found)} in {at.name}: {pick}{_ranked(at, patches)}", also)


def _ranked(index: Index, patches: Patches) -> str:
    """What the values are, if they are not activations."""
    if patches.by == "activation":
        return ""
    from patchmine.relevance.kept import kept

    return f" by relevance ({patches.score}) to {kept(index).origin.decision}"


def _named(unit: IndexedUnit) -> str:
    """The unit's name and, if it has a label, how far that holds."""
    beside = unit.support.beside
    return f"{unit.name} ({unit.unit})" if beside is None else f"{unit.name} · {beside} · {unit.unit}"


def _page(unit: IndexedUnit, patches: Patches) -> Page:
    if patches.pick == "spectrum":
        from patchmine.sheets.layouts.bands import spectrum_page

        return spectrum_page(unit, patches, unit.index.store.column(unit.unit.layer, unit.unit.channel)[0])
    from patchmine.sheets.layouts.grid import grid_page

    return grid_page(unit, patches)


def _projected(index: Index, unit: IndexedUnit, patches: Patches, method: str) -> Page:
    from patchmine.cli import progress
    from patchmine.sheets.layouts.pairs import pairs_page

    with progress.shown() as display:
        return pairs_page(unit, patches, index.projector(method, progress=display))
