"""`patchmine sheet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.index import Index, IndexedUnit
    from patchmine.sheets.page import Page

ZEILER_K = 9
"""Patches of a unit in the layout zeiler."""

MOST = 64
"""Units on one page."""


def sheet(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="SHEET", help="File of the sheet: .png, .pdf or .svg.")],
    unit: options.Units = None,
    layer: options.Layer = None,
    match: Annotated[
        str | None,
        typer.Option(
            "--match",
            metavar="PATTERN",
            help="Units whose name or LAYER:CHANNEL matches this shell pattern.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="strip: a row of patches for each unit; zeiler: nine projections beside their nine patches, as in "
            "figure 2 of Zeiler & Fergus 2013; context: whole photographs, faded but for their tight crops.",
        ),
    ] = defaults.LAYOUTS[0],
    k: Annotated[int, typer.Option("-k", metavar="K", help="Patches of each unit; zeiler always has 9.")] = 8,
    project: options.Project = None,
    crop: options.Crop = None,
    share: options.Share = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
) -> None:
    """Draw several units on one page.

    Choose the units with `--unit`, or with `--match` and `--layer`.

    Example: `patchmine sheet --unit blocks.2:5 --unit blocks.3:70 --layout zeiler -o figure.pdf`
    """
    from patchmine.cli.deliver import Form
    from patchmine.cli.output import print_line
    from patchmine.cli.running import opened
    from patchmine.errors import RequestError

    form = Form(out=out)
    if project is not None and layout != "zeiler":
        raise RequestError(f"--layout {layout} cannot show --project {project}: use --layout zeiler")
    at = opened(index, source, model, weights)
    units = _meant(at, unit or [], layer, match)
    if layout == "context" and crop not in (None, "tight"):
        raise RequestError(f"--layout context shows tight crops, not --crop {crop}: leave --crop out")
    if crop == "tight" and layout != "context":
        at.tight(units, ZEILER_K if layout == "zeiler" else k, share)
    if layout == "zeiler":
        form.draw(lambda: _zeiler(at, units, project or defaults.PROJECTION, crop or form.crop, share))
    elif layout == "context":
        form.draw(lambda: _context(at, units, k, share))
    else:
        form.draw(lambda: _strips(units, k, crop or form.crop, share))
    print_line(str(out))


def _strips(units: list[IndexedUnit], k: int, crop: str, share: float | None) -> Page:
    from patchmine.sheets.layouts.strips import strips_page

    return strips_page([(unit, unit.top(k, crop=crop, share=share)) for unit in units], k)


def _context(index: Index, units: list[IndexedUnit], k: int, share: float | None) -> Page:
    from patchmine.sheets.layouts.context import context_page

    index.tight(units, k, share)
    return context_page([(unit, unit.top(k, crop="tight", share=share)) for unit in units])


def _zeiler(index: Index, units: list[IndexedUnit], method: str, crop: str, share: float | None) -> Page:
    from patchmine.cli import progress
    from patchmine.sheets.layouts.zeiler import SIDE, zeiler_page

    with progress.shown() as display:
        projector = index.projector(method, progress=display)
        return zeiler_page([(unit, unit.top(SIDE * SIDE, crop=crop, share=share)) for unit in units], projector)


def _meant(index: Index, names: list[str], layer: str | None, match: str | None) -> list[IndexedUnit]:
    from patchmine.errors import RequestError, UnitError

    if names:
        if match is not None:
            raise RequestError(f"--unit and --match {match} exclude each other: give only one of them")
        units = [index.unit(name, layer) for name in names]
    elif layer is None and match is None:
        raise RequestError("no units given: give --unit U (as often as you like), --match PATTERN or --layer L")
    else:
        units = list(index.units(layer, match))
        if not units:
            raise UnitError(f"no unit matches --match {match}: patchmine units lists them all")
    if len(units) > MOST:
        raise RequestError(f"{len(units)} units do not fit on a page: choose up to {MOST} with --unit or --match")
    return units
