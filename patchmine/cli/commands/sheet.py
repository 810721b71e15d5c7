"""`patchmine sheet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.index import Index, IndexedUnit

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
        str | None,
        typer.Option(
            "--layout",
            help="strip: a row of patches for each unit; grid: a block for each; spectrum: its whole range; context: "
            "whole photographs, with the boxes of the fields and the tight crop; facets: a map of the patches, and a "
            "row for each facet; queries: a trial of psychophysics; zeiler: nine projections beside their nine "
            "patches, as in figure 2 of Zeiler & Fergus 2013; compare: beside synthetic images; orders: by activation "
            "and by relevance, side by side; layer: many units over the pages of a PDF, with contents. "
            f"Default: {defaults.LAYOUTS[0]}, or layer for --layer alone in a PDF.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "-k",
            metavar="K",
            help="Patches of each unit. Default: 8; 25 for grid and spectrum; 9 for zeiler, compare, queries, orders, "
            "layer.",
            show_default=False,
        ),
    ] = None,
    width: Annotated[
        str | None,
        typer.Option(
            "--width",
            metavar="W",
            help="Make a figure for a paper, exactly as wide as a column (or, with a 2, both columns) of "
            f"{', '.join(defaults.VENUES)}, or a length such as 89mm. Text has that venue's size; title and facts are "
            "left to the caption.",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        int | None, typer.Option("--columns", metavar="N", help="Tiles side by side.", show_default=False)
    ] = None,
    caption: Annotated[
        str | None,
        typer.Option(
            "--caption",
            metavar="TEMPLATE",
            help="What stands below each patch, such as '{name} {value:.2f}': its name, layer, channel, rank, value, "
            "class, retained, area or image. \\n begins a new line, '' leaves it out.",
            show_default=False,
        ),
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            "--frame", help="Frame each patch in a color that says its class, or its sign.", show_default=False
        ),
    ] = None,
    scale_bar: Annotated[
        bool, typer.Option("--scale-bar", help="Add a bar in source pixels below each patch.")
    ] = False,
    dpi: Annotated[
        int | None,
        typer.Option(
            "--dpi",
            metavar="N",
            help="Dots per inch of a PNG (default 200). In a PDF or SVG photographs keep their own pixels, or at most "
            "this many per inch (default of the layout layer: 300).",
            show_default=False,
        ),
    ] = None,
    provenance: Annotated[
        bool,
        typer.Option("--provenance", help="Write the patches as .csv and a caption in plain words as .txt beside it."),
    ] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print the LaTeX that includes the figure.")] = False,
    groups: Annotated[int, typer.Option("--groups", metavar="N", help="Facets of a unit in --layout facets.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of --layout queries and compare.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if a photograph cannot be shown.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files of --provenance that patchmine did not write.")
    ] = False,
    project: options.Project = None,
    attribution: Annotated[
        str | None,
        typer.Option(
            "--attribution",
            metavar="METHOD",
            help="Draw over each crop of --layout context what in it drives the unit, by one of "
            f"{', '.join(defaults.PROJECTIONS)}. Loads the network; needs the extra 'attribution'.",
            show_default=False,
        ),
    ] = None,
    crop: options.Crop = None,
    share: options.Share = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
) -> None:
    """Draw several units on one page, or a whole layer over many.

    Choose the units with `--unit`, or with `--match` and `--layer`.

    Example: `patchmine sheet --unit blocks.2:5 --unit blocks.3:70 --width icml --provenance -o figure.pdf`
    """
    from patchmine.cli.commands._figure import Figure, style_asked
    from patchmine.cli.deliver import Form
    from patchmine.cli.output import print_line
    from patchmine.cli.running import opened
    from patchmine.errors import RequestError

    form = Form(out=out)
    style = style_asked(width, columns, caption, frame, scale_bar)
    if project is not None and layout != "zeiler":
        raise RequestError(f"--layout {layout or defaults.LAYOUTS[0]} cannot show --project: use --layout zeiler")
    if attribution is not None and layout != "context":
        raise RequestError(f"--layout {layout or defaults.LAYOUTS[0]} cannot show --attribution: use --layout context")
    if layout == "layer" and out.suffix.lower() != ".pdf":
        raise RequestError(f"--layout layer fills pages, which {out.name} cannot hold: end its name in .pdf")
    if latex and out.suffix.lower() == ".svg":
        raise RequestError("--latex includes a PDF or PNG, not an SVG: end the name of the sheet in .pdf")
    if provenance:
        from patchmine.sheets.provenance import check_beside

        check_beside(out, force)
    at = opened(index, source, model, weights)
    units = _meant(at, unit or [], layer, match)
    whole = out.suffix.lower() == ".pdf" and not unit and match is None
    chosen = layout or ("layer" if whole else defaults.LAYOUTS[0])
    if len(units) > MOST and chosen != "layer":
        raise RequestError(
            f"{len(units)} units do not fit on a page: choose up to {MOST} with --unit or --match, or --layout layer "
            "with a .pdf"
        )
    figure = Figure(
        at,
        units,
        chosen,
        style,
        k=k,
        crop=crop or ("tight" if chosen == "context" else form.crop),
        share=share,
        project=project or defaults.PROJECTION,
        attribution=attribution,
        groups=groups,
        seed=seed,
    )
    figure.draw(form, dpi, strict)
    if width is not None and width in defaults.TALLEST:
        figure.check_height(width)
    if provenance:
        figure.deliver_beside(out)
    print_line(str(out))
    if latex:
        for line in figure.latex(out, wide=width is not None and width.endswith("2")).splitlines():
            print_line(line)


def _meant(index: Index, names: list[str], layer: str | None, match: str | None) -> list[IndexedUnit]:
    from patchmine.errors import RequestError, UnitError

    if names:
        if match is not None:
            raise RequestError(f"--unit and --match {match} exclude each other: give only one of them")
        return [index.unit(name, layer) for name in names]
    if layer is None and match is None:
        raise RequestError("no units given: give --unit U (as often as you like), --match PATTERN or --layer L")
    units = list(index.units(layer, match))
    if not units:
        raise UnitError(f"no unit matches --match {match}: patchmine units lists them all")
    return units
