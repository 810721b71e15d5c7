"""`patchmine import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchmine.cli import options
from patchmine.defaults import Run

RUN = Run()
KINDS = ("pointers",)


def import_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What to read: {', '.join(KINDS)}.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file that patchmine export wrote.")],
    source: Annotated[
        str, typer.Option("--source", metavar="SOURCE", help="Your copy of the photographs, under any names.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Cut the patches into this folder.", show_default=False),
    ] = None,
    force: options.Force = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a photograph is not there.")] = False,
    workers: options.Workers = RUN.workers,
    json: options.Json = False,
) -> None:
    """Find the photographs that pointers point at, by their digests, and cut out the patches.

    The pointers need no index, and hold no pixel: `patchmine export pointers` wrote them.

    Example: `patchmine import pointers patches.json --source imagenet-val/ -o patches`
    """
    from patchmine.cli import progress
    from patchmine.cli.output import print_json, print_line
    from patchmine.cli.stopping import stoppable
    from patchmine.errors import RequestError, SourceError, nearest
    from patchmine.exports import pointers
    from patchmine.sources import open_source
    from patchmine.system.atomic import check_new, whole_folder

    if kind not in KINDS:
        raise RequestError(f"unknown import {kind!r}{nearest(kind, KINDS)}")
    if out is not None:
        check_new(out, True, force)
    found = pointers.read(file)
    photographs = open_source(source)
    with stoppable(), progress.shown() as display:
        paths = pointers.located(found, photographs, workers, display)
        if out is not None:
            with whole_folder(out) as making:
                cut = [fault is None for fault in pointers.cut_out(found, paths, photographs, making)]
    patches = [pointers.described(pointer, paths.get(pointer.digest)) for pointer in found]
    wanted = len({pointer.digest for pointer in found})
    if json:
        counts = {"photographs": wanted, "found": len(paths)}
        print_json({"file": str(file), "source": photographs.spec, **counts, "patches": patches})
    else:
        print_line(f"{len(paths)} of {wanted} photographs found in {source}")
        if out is not None:
            print_line(f"{out}: {sum(cut)} of {len(found)} patches")
    if strict and len(paths) < wanted:
        lost = next(pointer for pointer in found if pointer.digest not in paths)
        raise SourceError(
            f"{wanted - len(paths)} of {wanted} photographs are not in {source!r}, such as {lost.image!r}: give "
            "another --source, or leave --strict out"
        )
