"""Where the time of a run goes: seconds by stage, over all threads."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stages:
    """Seconds by stage. Every thread may add; the time between two tasks of a thread is its stage `wait`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._thread = threading.local()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self._add(stage, perf_counter() - start)

    def waited(self) -> None:
        """A thread begins a task: the time since its last one was waiting."""
        last = getattr(self._thread, "done", None)
        if last is not None:
            self._add("wait", perf_counter() - last)

    def done(self) -> None:
        """A thread has ended a task."""
        self._thread.done = perf_counter()

    def _add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self.seconds[stage] += seconds
