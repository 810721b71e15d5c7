"""`python -m patchmine` is `patchmine`."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading

READING = {"top", "sheet", "units", "name", "similar", "fires", "info"}
"""Commands that open an index and are short enough for their start-up to count."""

SELDOM = 100_000
"""After so many new objects Python looks for garbage, instead of after 700: importing makes up to half a million that
stay, and looking through them is a tenth of a start. `running` sets it back before long work."""


def main() -> None:
    """The console script. Until there is something to lose, Ctrl-C just ends the process: no traceback of imports."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if {*READING, "index"}.intersection(sys.argv[1:2]):
        gc.set_threshold(SELDOM, *gc.get_threshold()[1:])
    from patchmine.cli import main as run

    if READING.intersection(sys.argv[1:2]) and "--help" not in sys.argv:
        # Here, at the bottom of the stack. Deep inside our own imports, CPython 3.11 may map and unmap a chunk of its
        # frame stack at thousands of calls, which costs up to a fifth of a cold query.
        import h5py  # noqa: F401
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except SystemExit as leaving:
        _leave(leaving.code)
        raise


def _leave(code: object) -> None:
    """End the process here, after what Python does first at its end: it would free every object one by one, which takes
    a tenth of the time of a query, and half a second with torch."""
    from patchmine.cli.stopping import waits_for_threads

    if not isinstance(code, int | None):
        return
    if waits_for_threads:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
        atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # Python reports it
    os._exit(code or 0)


if __name__ == "__main__":
    main()
