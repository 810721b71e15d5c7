"""Ctrl-C and SIGTERM stop a command in good order: what is finished is kept, and the message says how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM, as from a batch system whose time is up."""


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt and SIGTERM Terminated within the block, but only the first of them does.

    Stopping takes as long as the batches in hand. A second signal must not break into that: Python would then end
    under threads that still compute, which aborts the process.
    """

    def stop(number: int, _: object) -> None:
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, signal.SIG_IGN)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {which: signal.signal(which, stop) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is stop:
            for which, handler in before.items():
                signal.signal(which, handler)
