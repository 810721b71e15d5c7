"""`patchmine demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LAYERS = ("blocks.4", "blocks.5", "blocks.6")
EACH, K = 2, 6


def demo(
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the photographs, the index and the sheets."),
    ] = Path("out/demo"),
    imagenette: Annotated[
        bool, typer.Option("--imagenette", help="Download Imagenette and use its 13,394 photographs.")
    ] = False,
) -> None:
    """Try patchmine on real photographs: collect them, index them, query the index and draw contact sheets.

    Example: `patchmine demo -o out/demo`
    """
    from patchmine.cli import progress
    from patchmine.cli import samples as photographs
    from patchmine.cli.output import print_line
    from patchmine.index import open_index
    from patchmine.mining.build import build_index
    from patchmine.questions.highlights import telling_units
    from patchmine.sheets import write
    from patchmine.sheets.layouts.grid import grid_page
    from patchmine.sheets.layouts.strips import strips_page

    out.mkdir(parents=True, exist_ok=True)
    folder, index_dir = (out / name for name in (("imagenette",) * 2 if imagenette else ("photographs",) * 2))
    index_dir = index_dir.with_suffix(".patchmine")
    count = (photographs.fetch_imagenette if imagenette else photographs.collect_photographs)(folder)
    print_line(f"{count} photographs in {folder}" if imagenette else photographs.count_by_package())
    with progress.shown() as display:
        report = build_index(folder, index_dir, progress=display)
    print_line(f"{report.images} photographs indexed in {index_dir}")

    index = open_index(index_dir)
    units = telling_units(index, LAYERS, EACH)
    for unit in units:
        best = unit.top(3)
        named = ", ".join(patch.class_name or Path(patch.image).name for patch in best)
        print_line(f"{unit.unit!s:14} {best[0].value:6.2f}  {named}")
    index.use(watching=progress.shown)
    index.tight(units, K)
    strips, single = out / "sheet.png", out / f"{str(units[-1].unit).replace(':', '_')}.png"
    write(strips_page([(unit, unit.top(K, crop="tight")) for unit in units], K), strips)
    write(grid_page(units[-1], units[-1].top(K, crop="tight")), single)
    print_line(f"top {K} of each unit, cropped to what the unit needs: {strips}")
    print_line(f"one unit:           {single}")
    print_line(f"next: patchmine top -i {index_dir} --unit {units[-1].unit} --crop tight -o sheet.pdf")
