"""Runs many searches at once: their probes share batches, and each lane computes one batch at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from typing import Generic, TypeVar

from torch import set_num_threads

from patchmine.errors import PhotographError
from patchmine.kept.tight_crops import TightCrop
from patchmine.tight.crop import Probing
from patchmine.tight.probes import Probe, Prober

K = TypeVar("K")

Result = TightCrop | PhotographError | None
"""A crop, None where there is none, or the reason why the photograph cannot be shown to the network."""

_AHEAD, _LEAST = 3, 32
"""Searches under way for each place in a batch, and at least: so many that a batch is seldom short of probes, and that
the patches of a sheet begin together."""


class Lanes(Generic[K]):
    """`count` threads that compute probes, a batch each."""

    def __init__(self, prober: Prober, count: int) -> None:
        self._prober, self._count = prober, count
        self._ready: dict[bool, deque[tuple[K, Probing, Probe]]] = {True: deque(), False: deque()}
        """By whether the probe must be exact: a batch is one or the other."""
        self._changed = threading.Condition()
        self._stopped = False
        self._results: SimpleQueue[tuple[K, Result] | BaseException] = SimpleQueue()

    def run(self, jobs: Iterator[tuple[K, Callable[[], Probing]]]) -> Iterator[tuple[K, Result]]:
        """Carry out the jobs and yield each result as soon as it is there.

        A job makes its search in a thread of its own and may raise PhotographError. Any other exception ends the run.
        """
        lanes = [threading.Thread(target=self._lane, name=f"tight-{number}") for number in range(self._count)]
        with ThreadPoolExecutor(self._count, "photographs") as loaders:
            try:
                for lane in lanes:
                    lane.start()
                under_way = 0
                for key, job in islice(jobs, max(self._count * self._prober.batch_size * _AHEAD, _LEAST)):
                    self._begin(loaders, key, job)
                    under_way += 1
                while under_way:
                    result = self._results.get()
                    if isinstance(result, BaseException):
                        raise result
                    for key, job in islice(jobs, 1):
                        self._begin(loaders, key, job)
                        under_way += 1
                    under_way -= 1
                    yield result
            finally:
                with self._changed:
                    self._stopped = True
                    self._changed.notify_all()
                loaders.shutdown(cancel_futures=True)
                for lane in lanes:
                    lane.join()

    def _begin(self, loaders: ThreadPoolExecutor, key: K, job: Callable[[], Probing]) -> None:
        def loaded(future: Future[Probing]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            if isinstance(error, PhotographError):
                self._results.put((key, error))
            elif error is not None:
                self._results.put(error)
            else:
                search = future.result()
                self._add([(key, search, next(search))])

        loaders.submit(job).add_done_callback(loaded)

    def _add(self, items: list[tuple[K, Probing, Probe]]) -> None:
        with self._changed:
            for item in items:
                self._ready[item[2].exact].append(item)
            self._changed.notify_all()

    def _lane(self) -> None:
        try:
            if self._prober.exact.device.type == "cpu":
                set_num_threads(1)
            batch = self._prober.batch()
            while items := self._take():
                values = self._prober.compute([probe for _, _, probe in items], batch)
                self._add(list(self._advanced(items, values)))
        except BaseException as error:  # noqa: BLE001 - the run raises it
            self._results.put(error)

    def _take(self) -> list[tuple[K, Probing, Probe]]:
        """The next probes of the longer queue, oldest first, at most a batch; none when the run ends."""
        with self._changed:
            while not any(self._ready.values()) and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return []
            queue = max(self._ready.values(), key=len)
            return [queue.popleft() for _ in range(min(len(queue), self._prober.batch_size))]

    def _advanced(
        self, items: list[tuple[K, Probing, Probe]], values: list[float]
    ) -> Iterator[tuple[K, Probing, Probe]]:
        """Send each search its value: the searches that have another probe; the others' results are queued."""
        for (key, search, _), value in zip(items, values, strict=True):
            try:
                yield key, search, search.send(value)
            except StopIteration as end:
                self._results.put((key, end.value))
