"""`patchmine site`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchmine.cli import options


def site(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write the pages to.")],
    layers: options.Layers = None,
    named: Annotated[
        list[str] | None,
        typer.Option("--units", metavar="U", help="Only this unit; may be repeated.", show_default=False),
    ] = None,
    pointers_only: Annotated[
        bool,
        typer.Option("--pointers-only", help="Name the photographs and places, and show no picture."),
    ] = False,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
) -> None:
    """Write the pages of `serve` as plain files, for any web server.

    Run the same command again to resume.

    Example: `patchmine site -o pages --layers blocks.6`
    """
    from patchmine.cli import progress
    from patchmine.cli.output import print_json, print_line
    from patchmine.cli.running import opened
    from patchmine.cli.stopping import stoppable
    from patchmine.errors import RequestError

    try:
        from patchmine.web.site import chosen, export
    except ModuleNotFoundError as error:
        raise RequestError(f"site needs {error.name}: pip install 'patchmine[web]'") from None
    at = opened(index, source)
    wanted = chosen(at, layers or [], named or [])
    try:
        with stoppable(), progress.shown() as display:
            report = export(at, out, wanted, pointers_only, display)
    except KeyboardInterrupt as interrupt:
        raise type(interrupt)(f"what is written in {str(out)!r} stays; run the same command to resume") from None
    if json:
        print_json(report.as_dict())
    else:
        print_line(str(out / "index.html"))
        print_line(
            f"{report.pages:,} pages and {report.pictures:,} pictures, {report.bytes / 1e6:.1f} MB written "
            f"in {report.seconds:.0f} s"
        )
