"""Computes shards: decodes their photographs, runs the network, and keeps everything that may still rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from patchmine import executors, sparse
from patchmine.errors import PhotographError, RequestError, SourceError
from patchmine.executors import Executor, Reduced, out_of_memory
from patchmine.executors._gpu import IN_FLIGHT
from patchmine.mining.predictions import OUTPUT, Predictor, with_output
from patchmine.mining.reuse import Known, Place, joined
from patchmine.networks.taps import Tap
from patchmine.photographs.decode import Pixels, stacked
from patchmine.photographs.decoders import Decoders, loaded
from patchmine.ranking import CELLS, Float32, Int64, Leaders, position_dtype
from patchmine.sources import Entry, Source
from patchmine.store.job import Job, Shard
from patchmine.system.parallel import in_order
from patchmine.system.progress import Progress
from patchmine.system.timing import Stages

ShardContent = tuple[dict[str, Any], dict[str, NDArray[Any]]]
"""The description of a shard (JSON) and its arrays by name: the arguments of `shardfile.write_shard`."""

_AHEAD = 64  # photographs in the queue, so that no thread is idle while a shard is written
_PROBES = 16  # photographs to try before the source counts as unavailable
_MERGE_EVERY = 64  # photographs between two updates of the bounds: a merge per batch would cost more than it saves


@dataclass(frozen=True)
class Photograph:
    """One entry of the source after the attempt to read it: its pixels, or the reason why it cannot be read, or its
    place in a finished index that already holds its rows."""

    image: int
    entry: Entry
    digest: str
    pixels: Pixels | None
    reason: str | None
    known: Place | None = None


class LayerShard:
    """The data that a shard collects from one layer, in buffers that are allocated once and reused for every shard.

    Small arrays allocated between the large ones of a forward pass would fragment the heap, and peak memory would grow
    with the number of photographs. The buffers are sized for the worst case, but only pages that are written take
    memory.
    """

    def __init__(self, tap: Tap, photographs: int, keep: int, one_size: bool) -> None:
        units, readout = tap.layout.channels, tap.layout.readout
        self.sparse = readout is not None and readout.activation != "linear"
        cells = tap.layout.grid[0] * tap.layout.grid[1] if one_size else CELLS
        patches = photographs * min(cells, units)
        self.leaders = Leaders.empty(units, keep)
        self.bound = self.leaders.bound
        self.images = np.empty(photographs, np.int64)
        self.values = np.empty((photographs, units), np.float32)
        self.positions = np.empty((photographs, units), position_dtype(cells))
        self.vector_images = np.empty(patches, np.int64)
        self.vector_places = np.empty(patches, self.positions.dtype)
        self.vectors = np.empty((patches, tap.layout.width), np.float16)
        self.begin()

    def begin(self) -> None:
        """Empty the buffers for the next shard; the leaders stay."""
        self.rows = self.settled = self.patches = 0

    def remember(self, values: Float32, images: Int64) -> None:
        """Rank photographs by their values (images, units), which may raise the bound."""
        self.leaders = self.leaders.with_batch(values, images)
        self.bound = self.leaders.bound

    def add(self, images: Int64, reduced: Reduced) -> None:
        rows = slice(self.rows, self.rows + len(images))
        self.images[rows], self.values[rows], self.positions[rows] = images, reduced.value, reduced.position
        self.rows = rows.stop
        patches = slice(self.patches, self.patches + len(reduced.row))
        self.vector_images[patches], self.vector_places[patches] = images[reduced.row], reduced.place
        self.vectors[patches] = reduced.vectors
        self.patches = patches.stop
        if self.rows - self.settled >= _MERGE_EVERY:
            self.settle()

    def settle(self) -> None:
        """Rank the photographs added since the last call."""
        since = slice(self.settled, self.rows)
        if self.rows > self.settled:
            self.remember(self.values[since], self.images[since])
        self.settled = self.rows

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays of the shard file, as copies, without the vectors that can no longer rank."""
        self.settle()
        images, places = self.vector_images[: self.patches], self.vector_places[: self.patches]
        kept = self._ranked(images, places.astype(np.int64))
        value, position = self.values[: self.rows].copy(), self.positions[: self.rows].copy()
        table = sparse.arrays(value, position) if self.sparse else {"value": value, "position": position}
        return {
            **{f"{prefix}/{name}": array for name, array in table.items()},
            f"{prefix}/vector_image": images[kept],
            f"{prefix}/vector_position": places[kept],
            f"{prefix}/vectors": self.vectors[: self.patches][kept],
        }

    def _ranked(self, images: Int64, places: Int64) -> NDArray[np.bool_]:
        """Mask of the places that hold a patch of a leader. A lookup table is faster than sorting."""
        if not len(images):
            return np.zeros(0, np.bool_)
        rows, cells = self.images[: self.rows], int(places.max()) + 1
        row, unit = np.nonzero(self.leaders.among(rows))
        at = self.positions[row, unit].astype(np.int64)
        table = np.zeros((int(rows[-1] - rows[0]) + 1, cells), np.bool_)
        reached = at < cells
        table[(rows[row] - rows[0])[reached], at[reached]] = True
        found: NDArray[np.bool_] = table[images - rows[0], places]
        return found


@dataclass(frozen=True)
class Block:
    """The results of a thread for up to a batch of consecutive entries of the source.

    `records` has one record for each entry, in order; `reduced` has the layers of each batch, with its image ids.
    """

    records: list[dict[str, Any]]
    reduced: list[tuple[Int64, dict[str, Reduced]]]


class ShardMiner:
    """Computes shards. It keeps the rankings so far, which save work and do not change the result.

    Each of as many threads as `workers`, or a few more, reads a block of photographs, decodes it, and runs the network
    on it, so that no core waits for another. Where there are `decoders`, they read and decode in its place. The calling
    thread puts the blocks together, in order.
    """

    def __init__(
        self,
        *,
        job: Job,
        taps: Sequence[Tap],
        source: Source,
        entries: Sequence[Entry],
        executor: Executor,
        workers: int,
        progress: Progress,
        stages: Stages,
        known: Known | None = None,
        predictor: Predictor | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        self.job, self.taps, self.source, self.entries = job, tuple(taps), source, entries
        self.executor, self.progress = executor, progress
        self.most = job.batch_size  # photographs at once; fewer after memory has run out
        self.stages, self.known, self.predictor = stages, known, predictor
        self.decoders, self.ahead = decoders, blocks_ahead(job, workers)
        # OpenVINO computes in threads of its own: one of ours decodes while the others wait for them. With torch, which
        # computes in ours, one more would save no time and take 150 MB. Beside decoders, some wait for the GPU.
        threads = workers if job.executor == executors.DEFAULT else workers + 1
        threads = decoders.lent if decoders else threads
        self.pool = ThreadPoolExecutor(threads, "mine", initializer=torch.set_num_threads, initargs=(job.threads,))
        photographs = min(job.shard_size, job.photographs)
        one_size = job.preprocessing.view != "whole"
        self.layers = {tap.layer: LayerShard(tap, photographs, job.keep, one_size) for tap in self.taps}

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)

    def remember(self, layer: str, values: Float32, images: Int64) -> None:
        """Rank the photographs of a shard that an earlier run finished."""
        self.layers[layer].remember(values, images)

    def mine(self, shards: Iterable[Shard]) -> Iterator[ShardContent]:
        """Compute shards one after another. Raises SourceError if all photographs have disappeared.

        The threads keep working while a shard is in use.
        """
        todo = ((shard, self._expected(ids)) for shard in shards for ids in _blocks(shard, self.job.batch_size))
        records: list[dict[str, Any]] = []
        for shard, block in in_order(self.pool, lambda one: (one[0], self._block(one[1])), todo, self.ahead):
            with self.stages.timed("rank"):
                for images, reduced in block.reduced:
                    for name, of_layer in reduced.items():
                        self.layers[name].add(images, of_layer)
            records += block.records
            skipped = [(r["path"], r["reason"]) for r in block.records if r["reason"] is not None]
            self.progress.advance(len(block.records), skipped)
            if len(records) == shard.stop - shard.start:
                self._refuse_vanished(records)
                yield self._content(shard, records)
                records = []
                for layer in self.layers.values():
                    layer.begin()

    def _expected(self, ids: range) -> range:
        """Tell a source that is slow to answer what will be read once the blocks before these are done."""
        expect = getattr(self.source, "expect", None)
        if expect is not None:
            known = self.known.places if self.known else {}
            expect([path for image in ids if (path := self.entries[image].path) not in known])
        return ids

    def _refuse_vanished(self, records: Sequence[Mapping[str, Any]]) -> None:
        """If photographs could not be read, check whether any can: an unmounted disk must not lead to an index of half
        the photographs."""
        known = self.known.places if self.known else {}
        gone = [record for record in records if not record["digest"] and record["path"] not in known]
        if not gone:
            return
        if reachable(self.source, self.entries):
            return
        raise SourceError(
            f"the photographs of {self.source.spec!r} have disappeared: {gone[0]['path']!r} ({gone[0]['reason']}) and "
            "all others tried cannot be read; restore them and run the same command to resume"
        )

    def _content(self, shard: Shard, records: list[dict[str, Any]]) -> ShardContent:
        arrays: dict[str, NDArray[Any]] = {}
        with self.stages.timed("rank"):
            for number, layer in enumerate(self.layers.values()):
                arrays |= layer.arrays(str(number))
        return {"job": self.job.digest, "shard": shard.number, "images": records}, arrays

    def _block(self, ids: range) -> Block:
        """Runs in a thread of the pool."""
        self.stages.waited()
        with self._read(ids) as photographs:
            block = self._computed(photographs)
        self.stages.done()
        return block

    def _computed(self, photographs: Sequence[Photograph]) -> Block:
        """What the network makes of photographs."""
        readable = [photograph for photograph in photographs if photograph.pixels is not None]
        with self.stages.timed("forward"):
            batches = [list(batch) for _, batch in groupby(readable, _input_size)]
            reduced = [part for batch in batches for part in self._run(batch)]
        predicted: dict[int, str] = {}
        for images, of_batch in reduced:
            if self.predictor is not None:
                predicted |= self.predictor.predictions(images, of_batch.pop(OUTPUT))
        known = [photograph for photograph in photographs if photograph.known and photograph.reason is None]
        if known:
            with self.stages.timed("read"):
                reduced = joined([*reduced, self._looked_up(known)])
        return Block([self._record(photograph, predicted) for photograph in photographs], reduced)

    @contextmanager
    def _read(self, ids: range) -> Iterator[list[Photograph]]:
        """Photographs, whose pixels may be used until the block ends."""
        places = self.known.places if self.known else {}
        known = {image: place for image in ids if (place := places.get(self.entries[image].path))}
        todo = {image: self.entries[image] for image in ids if image not in known}
        paths = [entry.path for entry in todo.values()]
        with loaded(self.decoders, self.source, paths, self.job.preprocessing, self.stages) as read:
            found = {
                image: Photograph(image, entry, one.digest, one.pixels, one.reason)
                for (image, entry), one in zip(todo.items(), read, strict=True)
            }
            for image, place in known.items():
                found[image] = Photograph(image, self.entries[image], place.digest, None, place.reason, place)
            yield [found[image] for image in ids]

    def _looked_up(self, photographs: Sequence[Photograph]) -> tuple[Int64, dict[str, Reduced]]:
        assert self.known is not None
        images = np.array([photograph.image for photograph in photographs], np.int64)
        return images, self.known.reduced([photograph.known for photograph in photographs if photograph.known])

    def _record(self, photograph: Photograph, predicted: Mapping[int, str]) -> dict[str, Any]:
        size = photograph.pixels.placement.source if photograph.pixels else (0, 0)
        if self.known and photograph.known:
            size = self.known.size(photograph.known)
        record = {
            "path": photograph.entry.path,
            "class": photograph.entry.class_name,
            "digest": photograph.digest,
            "size": list(size),
            "reason": photograph.reason,
        }
        if self.predictor is not None:
            known = self.known.prediction(photograph.known) if self.known and photograph.known else None
            record["prediction"] = predicted.get(photograph.image, known)
        return record

    def _run(self, batch: Sequence[Photograph]) -> Iterator[tuple[Int64, dict[str, Reduced]]]:
        """Run the network on photographs of one input size, in smaller parts if memory runs out."""
        start = 0
        while start < len(batch):
            part = batch[start : start + self.most]
            images = np.array([photograph.image for photograph in part], np.int64)
            pixels = stacked([photograph.pixels.tensor for photograph in part if photograph.pixels])
            bounds = with_output({name: layer.bound for name, layer in self.layers.items()}, self.predictor)
            try:
                reduced = self.executor.run(pixels, images, bounds)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise RequestError(
                        "not enough memory for a single photograph: close other programs, or index fewer layers"
                    ) from None
                self.most = min(self.most, len(part) // 2)
                self.progress.note(f"out of memory with {len(part)} photographs at once; continuing with {self.most}")
                continue
            yield images, reduced
            start += len(part)


def blocks_ahead(job: Job, workers: int) -> int:
    """The most blocks that are in work or wait to be put together."""
    if job.device != "cpu":
        return 2 * (workers + IN_FLIGHT)  # of many blocks at once, some take much longer than others
    return workers + -(-_AHEAD // job.batch_size)


def reachable(source: Source, entries: Sequence[Entry]) -> bool:
    """Whether one of a few photographs from all over the source can be read."""
    for entry in entries[:: max(1, len(entries) // _PROBES)]:
        with suppress(PhotographError):
            source.read(entry.path)
            return True
    return False


def _blocks(shard: Shard, size: int) -> Iterator[range]:
    for start in range(shard.start, shard.stop, size):
        yield range(start, min(start + size, shard.stop))


def _input_size(photograph: Photograph) -> tuple[int, int]:
    assert photograph.pixels is not None
    return photograph.pixels.placement.input
