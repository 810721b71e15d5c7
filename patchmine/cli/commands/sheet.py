"""`patchmine sheet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.reading.opened import Index, IndexedUnit

MOST = 64
"""Units on one page."""


def sheet(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="SHEET", help="The page: .png, .pdf or .svg.")],
    unit: options.Units = None,
    layer: options.Layer = None,
    match: Annotated[
        str | None,
        typer.Option("--match", metavar="PATTERN", help="Units whose name fits a shell pattern.", show_default=False),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="strip: a row of patches for each unit; zeiler: nine projections beside their nine patches, as in "
            "figure 2 of Zeiler & Fergus 2013.",
        ),
    ] = defaults.LAYOUTS[0],
    k: Annotated[int, typer.Option("-k", metavar="K", help="Patches in a strip.")] = 8,
    project: options.Project = None,
    crop: options.Crop = None,
    share: options.Share = defaults.SHARE,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
) -> None:
    """Several units on one page.

    Example: `patchmine sheet --unit blocks.2:5 --unit blocks.3:70 --layout zeiler -o figure.pdf`
    """
    from patchmine.cli.errors import say
    from patchmine.errors import RequestError, nearest
    from patchmine.reading.opened import open_index
    from patchmine.sheets import check_target, draw_strips, draw_zeiler

    check_target(out)
    if layout not in defaults.LAYOUTS:
        raise RequestError(f"there is no layout {layout!r}{nearest(layout, defaults.LAYOUTS)}")
    if project is not None and layout != "zeiler":
        raise RequestError(f"--layout {layout} has no place for --project {project}: use --layout zeiler")
    opened = open_index(index, source)
    units = _meant(opened, unit or [], layer, match)
    if layout == "zeiler":
        method = project or defaults.PROJECTION
        from patchmine.cli import progress

        with progress.shown() as display:
            projector = opened.projector(method, model=model, weights=weights, progress=display)
            missing = draw_zeiler(units, out, projector, crop=crop or "auto", share=share)
    else:
        missing = draw_strips(units, out, k=k, crop=crop or "auto", share=share)
    if missing:
        say(f"{len(missing)} photographs could not be shown; {missing[0]}")
    print(out)


def _meant(index: Index, names: list[str], layer: str | None, match: str | None) -> list[IndexedUnit]:
    from patchmine.errors import RequestError, UnitError

    if names:
        if match is not None:
            raise RequestError(f"--unit and --match {match} exclude each other: give one of them")
        units = [index.unit(name, layer) for name in names]
    elif layer is None and match is None:
        raise RequestError("which units? give --unit U (as often as you like), --match PATTERN or --layer L")
    else:
        units = list(index.units(layer, match))
        if not units:
            raise UnitError(f"no unit fits --match {match}: see what there is with patchmine units")
    if len(units) > MOST:
        raise RequestError(f"{len(units)} units do not fit on a page: choose up to {MOST} with --unit or --match")
    return units
