"""Ctrl-C and SIGTERM stop a command in good order: what is finished is kept, and the message says how to go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Terminated(KeyboardInterrupt):
    """SIGTERM, as from a batch system whose time is up."""


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Both signals go to the handler within the block, and afterwards to whom they went before."""
    before = {which: signal.signal(which, handler) for which in CODES}
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handler:
            for which, old in before.items():
                signal.signal(which, old)


def starting() -> AbstractContextManager[None]:
    """For the import of torch, which swallows exceptions and then fails in odd ways: the process ends at once."""

    def end(number: int, _: FrameType | None) -> None:
        os.write(2, b"patchmine: interrupted before it began; nothing is lost\n")
        os._exit(CODES[signal.Signals(number)])

    return handled(end)


def stoppable() -> AbstractContextManager[None]:
    """SIGINT raises KeyboardInterrupt and SIGTERM Terminated within the block, but only the first of them does.

    Stopping takes as long as the batches in hand. A second signal must not break into that: Python would then end
    under threads that still compute, which aborts the process.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for which in CODES:
            signal.signal(which, signal.SIG_IGN)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    return handled(stop)
