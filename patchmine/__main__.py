"""`python -m patchmine` is `patchmine`."""

from __future__ import annotations

import signal


def main() -> None:
    """The console script. Until there is something to lose, Ctrl-C just ends the process: no traceback of imports."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from patchmine.cli import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
