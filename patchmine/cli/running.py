"""How commands open an index, and how they make one: shown while it lasts, stoppable, reported at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from patchmine.cli.stopping import starting, stoppable

if TYPE_CHECKING:
    from patchmine.index import Index
    from patchmine.mining.build import Report
    from patchmine.system.progress import Progress


def opened(
    index: Path | None, source: str | None = None, model: str | None = None, weights: Path | None = None
) -> Index:
    """The index that a reading command means; a signal while its network loads ends the process cleanly."""
    from patchmine.index import open_index

    found = open_index(index, source)
    found.use(model, weights, loading=starting)
    return found


def carry_out(work: Callable[[Progress], Report], directory: Path, json: bool) -> None:
    """Do the work, which leaves an index in `directory`, and print the report; if stopped, say how to resume."""
    from patchmine.system import allocator

    allocator.keep_flat()  # before torch starts its threads
    with starting():
        import patchmine.mining.build  # noqa: F401
    try:
        with stoppable():
            from patchmine.cli import progress

            with progress.shown() as display:
                report = work(display)
    except KeyboardInterrupt as interrupt:
        from patchmine.mining.workspace import Workspace

        raise type(interrupt)(Workspace(directory).kept() or "nothing had been computed yet") from None

    from patchmine.cli.output import print_json
    from patchmine.cli.summary import print_report

    if json:
        print_json(report.as_dict())
    else:
        print_report(report)
