"""`patchmine` commands in processes that are forked from one that has loaded torch, which saves seconds of start-up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["timm", "patchmine.cli", "patchmine.mining.build", "pytest"])


class Command:
    """A command that runs. Its messages go to a file; its output is dropped."""

    def __init__(self, words: Sequence[str], errors: Path) -> None:
        self.errors = errors
        self.process = FORKSERVER.Process(target=_run, args=(list(words), errors))
        self.process.start()

    def wait(self) -> tuple[int, str]:
        """Its exit code, as a shell has it negative for a signal, and its messages."""
        self.process.join()
        assert self.process.exitcode is not None
        text = self.errors.read_text(errors="replace") if self.errors.exists() else ""
        self.errors.unlink(missing_ok=True)
        return self.process.exitcode, text

    def wait_until(self, reached: Callable[[], bool]) -> float:
        """Wait until it is true or the command has ended; the time by the monotonic clock."""
        while not reached() and self.process.is_alive():
            time.sleep(0.002)
        return time.monotonic()

    def ended_within(self, seconds: float) -> bool:
        """Wait so long; whether the command has ended."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)


def _run(words: list[str], errors: Path) -> None:
    with errors.open("ab") as file:
        os.dup2(file.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["patchmine", *words]
    from patchmine.cli import main

    main()
