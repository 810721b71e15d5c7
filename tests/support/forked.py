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
FORKSERVER.set_forkserver_preload(["timm", "patchmine.mining.build", "pytest"])


class Command:
    """A command that runs. Its messages go to a file; its output is dropped."""

    def __init__(self, words: Sequence[str], errors: Path) -> None:
        self.errors = errors
        self.process = FORKSERVER.Process(target=_run, args=(list(words), errors))
        self.process.start()
        self.started = time.monotonic()

    def wait(self) -> tuple[int, str]:
        """Its exit code, as a shell has it negative for a signal, and its messages."""
        self.process.join()
        assert self.process.exitcode is not None
        text = self.errors.read_text(errors="replace") if self.errors.exists() else ""
        self.errors.unlink(missing_ok=True)
        return self.process.exitcode, text

    def ended_within(self, seconds: float, counting: Callable[[], bool]) -> bool:
        """Wait so long, from the moment when `counting` is true; whether the command ended before."""
        start = self.started
        while time.monotonic() - start <= seconds:
            self.process.join(0.002)
            if self.process.exitcode is not None:
                return True
            if not counting():
                start = time.monotonic()
        return False

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
