"""The limit of a machine: how fast it would index if nothing but decoding and the forward pass took time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import torch

from patchmine.errors import PhotographError
from patchmine.mining.calibration import Choice, rate
from patchmine.mining.task import Tools
from patchmine.photographs.decode import Pixels, prepare
from patchmine.sources import Entry, Source
from patchmine.store.job import Job
from patchmine.system import digests

_PHOTOGRAPHS = 64
_AT_LEAST_S = 0.5


@dataclass(frozen=True)
class Limit:
    """Photographs a second that all threads together read and decode, and that they compute, each measured alone."""

    decoding: float
    forward: float

    @property
    def both(self) -> float:
        """Photographs a second if both share the threads and nothing else takes time."""
        return 1 / (1 / self.decoding + 1 / self.forward)

    def as_dict(self) -> dict[str, float]:
        numbers = {"decoding": self.decoding, "forward": self.forward, "both": self.both}
        return {name: round(number, 1) for name, number in numbers.items()}


def measured(tools: Tools, job: Job, source: Source, entries: Sequence[Entry], workers: int) -> Limit | None:
    """Measure on photographs from all over the source, in a second or two. None if too few of them can be read."""
    step = max(1, len(entries) // _PHOTOGRAPHS)
    chosen = entries[::step][:_PHOTOGRAPHS]

    def read(entry: Entry) -> Pixels | None:
        try:
            data = source.read(entry.path)
            digests.of_bytes(data)
            return prepare(data, job.preprocessing)
        except PhotographError:
            return None

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = [pixels for pixels in pool.map(read, chosen) if pixels is not None]
        start, count = perf_counter(), 0
        while perf_counter() - start < _AT_LEAST_S:
            count += len(list(pool.map(read, chosen)))
        decoding = count / (perf_counter() - start)
    same = [pixels.tensor for pixels in found if pixels.tensor.shape == found[0].tensor.shape]
    if not same:
        return None
    choice = Choice(job.executor, job.batch_size, job.threads)
    taps = tools.taps if tools.predictor is None else (*tools.taps, tools.predictor.tap)
    forward = rate(tools.executor, choice, taps, torch.stack(same), workers)
    return Limit(decoding, forward) if forward else None
