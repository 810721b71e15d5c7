"""`patchmine embed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options
from patchmine.defaults import Run

if TYPE_CHECKING:
    from patchmine.index import Index

RUN = Run()


def embed(
    k: Annotated[int, typer.Option("-k", metavar="K", help="Best patches of each unit.")] = defaults.K,
    workers: options.Workers = RUN.workers,
    index: options.IndexDir = None,
    source: options.Moved = None,
) -> None:
    """Put pictures of the top patches into the index, so that others can look at them without the photographs.

    The index then holds what the network sees of each photograph with a top patch, as a JPEG in full resolution, and
    every sheet is drawn from these. You can stop it at any time; run the same command again to resume.

    Example: `patchmine embed -i imagenet-val.patchmine`
    """
    from patchmine.cli.output import print_line
    from patchmine.cli.running import opened

    print_line(embedded(opened(index, source), k, workers))


def embedded(index: Index, k: int, workers: int) -> str:
    """Embed with progress; returns what the index holds then, in words."""
    from patchmine.cli import progress
    from patchmine.cli.stopping import stoppable
    from patchmine.reading.answers import counted

    with stoppable(), progress.shown() as display:
        held, size = index.embed(k, workers=workers, progress=display)
        index.deliver()
    return f"{index.name} holds pictures of {counted(held, 'photograph', 'photographs')}, {size / 1e6:.0f} MB"
