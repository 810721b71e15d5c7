"""SIGTERM stops a command as Ctrl-C does: what is finished is kept, and the message says how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM, as from a batch system whose time is up."""


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM raises Terminated within the block."""

    def raised(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, raised)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
