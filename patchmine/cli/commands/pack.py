"""`patchmine pack` and `patchmine unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchmine.cli import options


def pack(
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="The file. Default: the index's name and .tar.", show_default=False
        ),
    ] = None,
    force: options.Force = False,
    index: options.IndexDir = None,
) -> None:
    """Pack an index into one file, with the digest of everything in it.

    Photographs are not part of an index; `patchmine embed` puts pictures of the top patches into it.

    Example: `patchmine pack -i imagenet-val.patchmine -o imagenet-val.tar`
    """
    from patchmine.buckets.copies import bring_all
    from patchmine.cli import progress
    from patchmine.cli.output import print_line
    from patchmine.cli.stopping import stoppable
    from patchmine.index import find_index
    from patchmine.kept import packing

    directory = find_index(index)
    bring_all(directory)
    target = out or Path(f"{directory.resolve().name}.tar")
    with stoppable(), progress.shown() as display:
        count = packing.pack(directory, target, force, display)
    print_line(f"{target}: {count} files, {target.stat().st_size / 1e6:.0f} MB")


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file that patchmine pack wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="DIR", help="The index. Default: its name when it was packed.", show_default=False
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Unpack an index, and check every file against its digest.

    Example: `patchmine unpack imagenet-val.tar`
    """
    from patchmine.cli import progress
    from patchmine.cli.output import print_line
    from patchmine.cli.stopping import stoppable
    from patchmine.kept import packing

    with stoppable(), progress.shown() as display:
        directory, count = packing.unpack(file, out, force, display)
    print_line(f"{directory}: {count} files, each as it was packed")
