"""Ctrl-C and SIGTERM stop a command cleanly: finished work is kept, and a message says how to resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


waits_for_threads = True
"""Whether the process ends only when its threads have ended."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as from a batch system whose time is up."""


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Send both signals to the handler within the block, and restore the previous handlers afterwards."""
    before = {which: signal.signal(which, handler) for which in CODES}
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handler:
            for which, old in before.items():
                signal.signal(which, old)


def starting() -> AbstractContextManager[None]:
    """End the process at a signal while torch is imported, which swallows exceptions and then fails in odd ways."""

    def end(number: int, _: FrameType | None) -> None:
        os.write(2, b"patchmine: interrupted before it began; nothing is lost\n")
        os._exit(CODES[signal.Signals(number)])

    return handled(end)


def stoppable() -> AbstractContextManager[None]:
    """The first SIGINT or SIGTERM within the block raises KeyboardInterrupt or Terminated; later ones do nothing.

    Stopping takes as long as the batches in progress. A second signal must not interrupt it: Python would then exit
    while threads still compute, which aborts the process.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for which in CODES:
            signal.signal(which, signal.SIG_IGN)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    return handled(stop)
