"""Long work that a page starts: it shows its progress, can be stopped, and is kept as a command keeps it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event, Lock
from typing import Any

from patchmine import defaults
from patchmine.errors import PatchmineError, RequestError, nearest
from patchmine.index import Index
from patchmine.reading.cropped import seat_of
from patchmine.system.printable import printable
from patchmine.system.progress import Skipped, of_count
from patchmine.units import Unit
from patchmine.web.facts import SHOWN
from patchmine.web.live.asking import BusyError

KINDS = ("tight", "synthetic", "compare")
_MOST, _WAITING = 100, 16  # jobs that are remembered, and that may wait


class Stopped(KeyboardInterrupt):
    """Ends work where Ctrl-C would end it on the command line."""


class Job:
    """One piece of work and how far it is; it is the `Progress` of its own work."""

    def __init__(self, number: int, kind: str, unit: Unit) -> None:
        self.number, self.kind, self.unit = number, kind, unit
        self.state, self.message, self.what = "waiting", "", ""
        self.done, self.total = 0, 0
        self.stop = Event()

    def begin(self, total: int, done: int, what: str = "photographs") -> None:
        self.total, self.done, self.what = total, done, of_count(total, what)

    def advance(self, count: int, skipped: Sequence[Skipped] = ()) -> None:
        self.done += count
        self.message = skipped[-1][1] if skipped else self.message
        if self.stop.is_set():
            raise Stopped

    def committed(self, shards: int, of: int) -> None: ...

    def note(self, text: str) -> None:
        self.message = text

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "stopped")

    def as_dict(self) -> dict[str, Any]:
        return {
            "job": self.number,
            "kind": self.kind,
            "unit": str(self.unit),
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "what": self.what,
            "message": printable(self.message),
        }


class Jobs:
    """One job at a time, in a thread of its own that leaves a core to the pages."""

    def __init__(self, loading: Lock) -> None:
        self._pool = ThreadPoolExecutor(1, "jobs")
        self._loading = loading
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._numbers = count(1)
        self._lock = Lock()

    def start(self, index: Index, kind: str, unit: Unit) -> Job:
        """Start work on a unit, or return what is at it already. Raises RequestError, and BusyError."""
        if kind not in KINDS:
            raise RequestError(f"unknown kind {kind!r}{nearest(kind, KINDS)}")
        with self._lock:
            open_jobs = [job for job in self._jobs.values() if not job.ended]
            for job in open_jobs:
                if (job.kind, job.unit) == (kind, unit) and not job.stop.is_set():
                    return job
            if len(open_jobs) >= _WAITING:
                raise BusyError("too much work waits already: stop some of it, or try again later")
            job = Job(next(self._numbers), kind, unit)
            self._jobs[job.number] = job
            while len(self._jobs) > _MOST:
                self._jobs.popitem(last=False)
        self._pool.submit(self._work, job, index)
        return job

    def get(self, number: int) -> Job:
        """Raises RequestError for a number that no job has."""
        try:
            return self._jobs[number]
        except KeyError:
            raise RequestError(f"no job {number}") from None

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def close(self) -> None:
        """Stop all work at its next step."""
        for job in self.all():
            job.stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait until the work has stopped and what it found is kept."""
        self._pool.shutdown()

    def _work(self, job: Job, index: Index) -> None:
        if job.stop.is_set():
            job.state = "stopped"
            return
        job.state = "running"
        try:
            with self._loading:
                index.network()
            job.advance(0)
            _WORK[job.kind](index, job)
            job.state = "done"
        except Stopped:
            job.state = "stopped"
        except PatchmineError as error:
            job.state, job.message = "failed", str(error)
        except Exception as error:
            job.state, job.message = "failed", f"a bug of patchmine: {error!r}"
            raise


def _tight(index: Index, job: Job) -> None:
    from patchmine.tight.tightening import tightened

    seats = {job.unit: [seat_of(patch) for patch in index.unit(job.unit).top(SHOWN)]}
    run = defaults.Run(workers=max(1, (os.cpu_count() or 2) - 1))
    for _ in tightened(index, seats, defaults.TIGHT_SHARE, job, run, must_keep=True):
        pass


def _synthetic(index: Index, job: Job) -> None:
    from patchmine.synthesis.library import images_of
    from patchmine.synthesis.recipe import Recipe

    images_of(index, job.unit, Recipe(), progress=job)


def _compare(index: Index, job: Job) -> None:
    from patchmine.questions.compare import compare
    from patchmine.synthesis.recipe import BESIDE

    compare(index.unit(job.unit), BESIDE, progress=job)


_WORK = {"tight": _tight, "synthetic": _synthetic, "compare": _compare}

__all__ = ["KINDS", "Job", "Jobs"]
