"""Open an index for a command, or build one with progress, a clean stop and a report."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from patchmine.cli.stopping import starting, stoppable

if TYPE_CHECKING:
    from patchmine.index import Index
    from patchmine.mining.build import Report
    from patchmine.system.progress import Progress

_BEGAN = perf_counter()  # commands import this module before torch

_OFTEN = 700  # CPython's own threshold


def opened(
    index: Path | None, source: str | None = None, model: str | None = None, weights: Path | None = None
) -> Index:
    """Open the index that a command reads; a signal while its network loads ends the process cleanly."""
    from patchmine.index import open_index
    from patchmine.kept.embedded import FOLDER as EMBEDDED

    found = open_index(index, source)
    if source is not None and not (found.directory / EMBEDDED).is_dir():
        _ = found.source  # a folder that is not there is refused before the work; embedded pictures need none
    if model is not None:
        from patchmine.models import word_for_index

        with starting():
            word_for_index(found.job, model)  # refuses another network before the work
    found.use(model, weights, loading=starting, watching=_watching)
    return found


@contextmanager
def _watching() -> Iterator[Progress]:
    """Show the progress of tight crops; a signal stops them cleanly, with those that are found kept."""
    from patchmine.cli import progress
    from patchmine.system import allocator

    allocator.keep_flat()  # before torch starts its threads
    _collect_again()
    with stoppable(), progress.shown() as display:
        yield display


def _collect_again() -> None:
    """Look for garbage often again, but not among what was imported. `__main__` makes it seldom for the imports."""
    gc.freeze()
    gc.set_threshold(_OFTEN, *gc.get_threshold()[1:])


def carry_out(
    work: Callable[[Progress], Report],
    directory: Path,
    json: bool,
    profile: bool = False,
    then: Callable[[], None] = lambda: None,
) -> None:
    """Do the work, which builds an index in `directory`, and print its report or, if interrupted, how to resume.

    With `profile` the report tells where the time went. `then` does what is to be done with the finished index before
    the report.
    """
    from patchmine.system import allocator

    allocator.keep_flat()  # before torch starts its threads
    with starting():
        import patchmine.mining.build  # noqa: F401
    imported = perf_counter() - _BEGAN
    _collect_again()
    try:
        with stoppable():
            from patchmine.cli import progress

            with progress.shown() as display:
                report = work(display)
    except KeyboardInterrupt as interrupt:
        from patchmine.mining.workspace import Workspace

        raise type(interrupt)(Workspace.at(directory).kept() or "nothing was computed yet") from None

    then()

    from patchmine.cli.output import print_json
    from patchmine.cli.summary import print_report

    if json:
        print_json(report.as_dict())
    else:
        print_report(report)
        if profile and report.mined:
            from patchmine.cli.summary import print_profile

            print_profile(report, imported)
