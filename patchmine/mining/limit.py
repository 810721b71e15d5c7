"""The limit of a machine: how fast it would index if nothing but decoding and the forward pass took time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from patchmine.mining.calibration import Choice, rate
from patchmine.mining.task import Tools
from patchmine.photographs.decoders import loaded
from patchmine.sources import Entry, Source
from patchmine.store.job import Job
from patchmine.system.timing import Stages

_PHOTOGRAPHS = 64
_AT_LEAST_S = 0.5


@dataclass(frozen=True)
class Limit:
    """Photographs a second that all threads together read and decode, and that they compute, each measured alone."""

    decoding: float
    forward: float
    beside: bool
    """Whether the forward pass has a processor of its own, a GPU."""

    @property
    def both(self) -> float:
        """Photographs a second if nothing else takes time."""
        if self.beside:
            return min(self.decoding, self.forward)
        return 1 / (1 / self.decoding + 1 / self.forward)

    def as_dict(self) -> dict[str, float | bool]:
        numbers = {"decoding": self.decoding, "forward": self.forward, "both": self.both}
        return {**{name: round(number, 1) for name, number in numbers.items()}, "beside": self.beside}


def measured(tools: Tools, job: Job, source: Source, entries: Sequence[Entry], workers: int) -> Limit | None:
    """Measure on photographs from all over the source, in a second or two. None if too few of them can be read."""
    step = max(1, len(entries) // _PHOTOGRAPHS)
    paths = [entry.path for entry in entries[::step][:_PHOTOGRAPHS]]
    parts: list[list[str]] = [[path] for path in paths]
    if tools.decoders is not None:
        tools.decoders.wait()
        parts = [paths[: job.batch_size]] * workers

    def decode(part: Sequence[str]) -> list[Tensor]:
        with loaded(tools.decoders, source, part, job.preprocessing, Stages()) as found:
            return [one.pixels.tensor.clone() for one in found if one.pixels]

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = [pixels for part in pool.map(decode, parts) for pixels in part]
        start, count = perf_counter(), 0
        while perf_counter() - start < _AT_LEAST_S:
            count += sum(len(part) for part in pool.map(decode, parts))
        decoding = count / (perf_counter() - start)
    same = [pixels for pixels in found[:_PHOTOGRAPHS] if pixels.shape == found[0].shape]
    if not same:
        return None
    choice = Choice(job.executor, job.batch_size, job.threads)
    taps = tools.taps if tools.predictor is None else (*tools.taps, tools.predictor.tap)
    forward = rate(tools.executor, choice, taps, torch.stack(same), workers)
    return Limit(decoding, forward, job.device != "cpu") if forward else None
