"""A job in the form that engines receive: it can be pickled, and builds the network in the process that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import PickleError
from typing import Any

from patchmine import executors, models, readouts
from patchmine.errors import SourceError
from patchmine.executors import Executor, Setting
from patchmine.executors._gpu import IN_FLIGHT, GpuExecutor
from patchmine.mining.miner import ShardContent, ShardMiner, blocks_ahead, reachable
from patchmine.mining.predictions import Predictor, predictor
from patchmine.mining.reuse import Known
from patchmine.networks.directions import of_index
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap, survey
from patchmine.photographs.decoders import Decoders, suit
from patchmine.sources import Entry, Source
from patchmine.store.job import Job
from patchmine.store.shardfile import ShardFile, shard_numbers, shard_path, write_shard
from patchmine.system.parallel import in_order
from patchmine.system.progress import Progress
from patchmine.system.timing import Stages

_WORTH_IT = 2000  # photographs that threads decode while processes for it start
_WRITING = 2  # shards in memory: one is written while the next is mined


@dataclass(frozen=True)
class Tools:
    """The network, executor and predictor that compute a job in one process."""

    network: Network
    taps: tuple[Tap, ...]
    executor: Executor
    predictor: Predictor | None
    """Classifies the photographs if the source has no classes. The executor taps its output too."""
    decoders: Decoders | None = None


def tools(
    job: Job, network: Network, taps: tuple[Tap, ...], source: Source, entries: Sequence[Entry], workers: int
) -> Tools:
    """Build what computes a job. Raises RequestError if the job cannot be computed here."""
    decoders = _decoders(job, source, workers)
    predicting = predictor(network, entries)
    tapped = taps if predicting is None else (*taps, predicting.tap)
    setting = Setting(device=job.device, precision=job.precision, batch_size=job.batch_size, threads=job.threads)
    lanes = max(workers // job.threads, 1)
    executor = executors.build(job.executor, network, tapped, setting, lanes)
    if decoders is not None and isinstance(executor, GpuExecutor):
        executor.reads(decoders.memory)
    return Tools(network, taps, executor, predicting, decoders)


def _decoders(job: Job, source: Source, workers: int) -> Decoders | None:
    """Processes that decode beside a GPU, for a job that is longer than their start."""
    beside_gpu = job.device != "cpu" and workers > 1
    if job.photographs < _WORTH_IT or not beside_gpu or not suit(source, job.preprocessing):
        return None
    block = min(job.batch_size, job.shard_size)
    try:
        return Decoders(source, job.preprocessing, workers, block, workers + IN_FLIGHT)
    except (OSError, TypeError, AttributeError, PickleError):
        return None  # too few descriptors, say, or a source of the user's own that cannot be pickled


@dataclass(frozen=True, kw_only=True)
class Task:
    """The shards of a job over the photographs `entries` of a source, as files in `folder`.

    `model` and `weights` are the user's words for the network, with absolute paths; without `model` that of the job
    counts. `address` is that of the cluster, if the user gave one. `workers` is the number of threads that decode and
    compute in one process, and `known` the rows of finished indexes to reuse. A task can be pickled. The pickle leaves
    out the fields of this process: `here` (the tools that it has already built), `finished`, and `stages` (its timing).
    """

    job: Job
    source: Source
    entries: Sequence[Entry]
    folder: Path
    weights: Path | None
    workers: int
    model: str | None = None
    address: str | None = None
    known: Known | None = None
    here: Tools | None = field(default=None, repr=False, compare=False)
    finished: Sequence[ShardFile] = field(default=(), repr=False, compare=False)
    """Shards of an earlier run: their rankings save work and do not change the result."""
    stages: Stages = field(default_factory=Stages, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "here": None, "finished": (), "stages": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in {**state, "stages": Stages()}.items():
            object.__setattr__(self, name, value)

    def work(self, todo: Iterable[int], progress: Progress) -> Iterator[int]:
        """Compute these shards in this process; yields the number of each once its file is on disk.

        Raises ModelError or RequestError if the network cannot be loaded or computed here, StoreError if its code or
        weights are not those of the job, and SourceError if the photographs have disappeared.
        """
        computing = self.here or self._built()
        miner = ShardMiner(
            job=self.job,
            taps=computing.taps,
            source=self.source,
            entries=self.entries,
            executor=computing.executor,
            workers=self.workers,
            progress=progress,
            stages=self.stages,
            known=self.known,
            predictor=computing.predictor,
            decoders=computing.decoders,
        )
        try:
            for file in self.finished:
                images = file.source_ids(self.job.shard_size)
                for number, tap in enumerate(computing.taps):
                    miner.remember(tap.layer, file.table(str(number))[0], images)
            # One thread writes, in order: shards leave out what those before them beat, which must be on disk first.
            with ThreadPoolExecutor(1, "write") as writer:
                contents = miner.mine(self.job.shards[number] for number in todo)
                yield from in_order(writer, self._write, contents, _WRITING)
        finally:
            miner.close()

    @property
    def device(self) -> str:
        return self.job.device

    def ready(self) -> Task:
        """The same task with its tools built in this process, and its photographs in reach.

        Raises what `work` raises if it cannot compute here.
        """
        if not reachable(self.source, self.entries):
            raise SourceError(
                f"it does not see the photographs of {self.source.spec!r}: mount them there under the same path"
            )
        return replace(self, here=self.here or self._built())

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return shard_path(self.folder, number)

    def companions(self) -> dict[str, bytes]:
        """The readouts of the index, by their path in it. Raises OSError."""
        return readouts.files(self.folder.parent, [digest for _, digest in self.job.directions])

    def on_disk(self) -> set[int]:
        """The numbers of the shards whose files are there; a file appears whole or not at all."""
        return shard_numbers(self.folder)

    @property
    def in_hand(self) -> int:
        """The most shards that `work` has asked for and not yielded yet.

        They are the shard of the oldest block in work, the shards of the blocks after it, and those being written.
        """
        blocks_of_a_shard = -(-min(self.job.shard_size, self.job.photographs) // self.job.batch_size)
        after = blocks_ahead(self.job, self.workers) - 1
        return 1 + -(-after // blocks_of_a_shard) + _WRITING - 1

    def photographs(self, number: int) -> int:
        """The number of photographs of a shard."""
        shard = self.job.shards[number]
        return shard.stop - shard.start

    def _write(self, content: ShardContent) -> int:
        about, arrays = content
        with self.stages.timed("write"):
            write_shard(self.path(about["shard"]), about, arrays)
        return int(about["shard"])

    def _built(self) -> Tools:
        network = models.load_for_job(self.job, self.model or self.job.model, self.weights)
        network = of_index(network, self.job.directions, self.folder.parent)
        taps = survey(network.module, network.blank(), self.job.layers)
        return tools(self.job, network, taps, self.source, self.entries, self.workers)
