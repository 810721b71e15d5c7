"""`patchmine between`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.between.comparison import Between
    from patchmine.index import Index
    from patchmine.sheets.page import Page


def between(
    a: Annotated[Path, typer.Argument(metavar="A", help="An index.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="An index of the same photographs: a later checkpoint, say.")],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="C...", help="More of them, each compared with A.", show_default=False),
    ] = None,
    unit: options.OneUnit = None,
    layer: options.Layer = None,
    k: Annotated[
        int, typer.Option("-k", metavar="K", help="Down to which rank the best photographs are compared.")
    ] = defaults.K,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="SHEET",
            help="Draw the patches of one unit in each index, row by row: .png, .pdf or .svg.",
            show_default=False,
        ),
    ] = None,
    crop: options.Crop = None,
    share: options.Share = None,
    source: options.Moved = None,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """Compare two networks, or two checkpoints of one, unit by unit, on the photographs that their indexes share.

    For each unit of A: how far its best photographs are those of the unit of the same name in B (rank-biased overlap),
    how far both correlate over all photographs, which unit of B correlates with it most, and what became of it: kept,
    moved, split, merged, changed, lost or died.

    Example: `patchmine between before.patchmine after.patchmine --layer blocks.6`
    """
    from patchmine.cli.deliver import Form
    from patchmine.cli.running import opened
    from patchmine.errors import RequestError

    form = Form(json, csv, out)
    if out is not None and unit is None:
        raise RequestError("a sheet shows one unit: give --unit U")
    if csv and more:
        raise RequestError("--csv prints one table: give two indexes, or --json")
    first = opened(a, source)
    others = [opened(one, source) for one in (b, *(more or ()))]
    meant = None if unit is None else first.unit(unit, layer).unit
    if layer is not None:
        first.check_layer(layer)
    found = [_compared(first, other, k=k, unit=meant, layer=layer) for other in others]
    form.draw(lambda: _page(found, crop or form.crop, share))

    def text() -> None:
        for each in found:
            _print(each, whole=unit is None and layer is None)

    document = found[0].as_dict if len(found) == 1 else lambda: {"comparisons": [each.as_dict() for each in found]}
    form.print(document, found[0].rows, list(found[0].columns), text)


def _compared(first: Index, second: Index, **asked: object) -> Between:
    """The comparison; tells if the indexes do not have the same photographs."""
    from patchmine.cli.errors import say
    from patchmine.reading.answers import counted

    found: Between = first.between(second, **asked)  # type: ignore[arg-type]
    if not len(first) == len(second) == found.shared:
        say(
            f"{first.name} has {counted(len(first), 'photograph', 'photographs')} and {second.name} {len(second)}: "
            f"compared on the {found.shared} that both have"
        )
    return found


def _page(found: list[Between], crop: str, share: float | None) -> Page:
    from patchmine.sheets.layouts.between import between_page

    return between_page(found, crop=crop, share=share)


def _print(found: Between, whole: bool) -> None:
    from patchmine.between.comparison import CHANCE
    from patchmine.cli.output import print_line, print_table
    from patchmine.reading.answers import counted

    on = counted(found.shared, "photograph", "photographs")
    print_line(f"{found.first.name} in {found.second.name}, on {on}, top {min(found.k, found.shared)}")
    if whole:
        header, rows = found.summary()
        print_table(rows, header)
    else:
        print_table(found.shown(), found.header)
        for layer, chance in found.chance.items():
            if chance is not None and layer in found.layers:
                print_line(f"{layer}: by chance the best partner reaches r = {chance:.3f} in {1 - CHANCE:.0%} of cases")
    if found.lacking:
        print_line(f"no correlations and no partners: {found.lacking}")
