"""Timing of a run: seconds by stage, summed over all threads."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stages:
    """Seconds by stage, summed over threads. Time between two tasks of a thread counts as the stage `wait`.

    All methods are thread-safe.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._thread = threading.local()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the duration of the block, in seconds, to `stage`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add(stage, perf_counter() - start)

    def waited(self) -> None:
        """Mark the start of a task: the time since this thread's last task counts as `wait`."""
        last = getattr(self._thread, "done", None)
        if last is not None:
            self.add("wait", perf_counter() - last)

    def done(self) -> None:
        """Mark the end of a task of this thread."""
        self._thread.done = perf_counter()

    def add(self, stage: str, seconds: float) -> None:
        """Add what another process has measured."""
        with self._lock:
            self.seconds[stage] += seconds
