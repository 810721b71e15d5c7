"""One shard's work: decode its photographs, run the network, keep what may still matter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from patchmine.decode import Pixels, prepare
from patchmine.errors import PhotographError
from patchmine.executors import Executor, Reduced
from patchmine.job import Job, Shard
from patchmine.network import Tap
from patchmine.ranking import CELLS, Int64, TopK, position_dtype
from patchmine.sources import Entry, Source

ShardContent = tuple[dict[str, Any], dict[str, NDArray[Any]]]
"""What the shard is (JSON), and its arrays by name: the arguments of `shardfile.write_shard`."""

DIGEST_BYTES = 16
_MERGE_EVERY = 64  # photographs between two updates of the bounds: a merge per batch would cost more than it saves


@dataclass(frozen=True)
class Photograph:
    """One entry of the source after the attempt to read it: its pixels, or the reason why there are none."""

    image: int
    entry: Entry
    digest: str
    pixels: Pixels | None
    reason: str | None


def read_photograph(image: int, entry: Entry, source: Source, job: Job) -> Photograph:
    digest = ""
    try:
        data = source.read(entry.path)
        digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()
        return Photograph(image, entry, digest, prepare(data, job.preprocessing), None)
    except PhotographError as error:
        return Photograph(image, entry, digest, None, str(error))


class LayerShard:
    """What a shard collects of one layer, in buffers that are allocated once and used for shard after shard.

    Small arrays kept between the large ones of a forward pass would tear holes into the heap: peak memory would then
    grow with the number of photographs. The buffers have the size of the worst case, but only what is written to
    takes memory.
    """

    def __init__(self, tap: Tap, photographs: int, keep: int, one_size: bool) -> None:
        units = tap.layout.channels
        cells = tap.layout.grid[0] * tap.layout.grid[1] if one_size else CELLS
        patches = photographs * min(cells, units)
        self.top = TopK.empty(units, keep)
        self.images = np.empty(photographs, np.int64)
        self.values = np.empty((photographs, units), np.float32)
        self.positions = np.empty((photographs, units), position_dtype(cells))
        self.vector_images = np.empty(patches, np.int64)
        self.vector_places = np.empty(patches, self.positions.dtype)
        self.vectors = np.empty((patches, units), np.float16)
        self.begin()

    def begin(self) -> None:
        """Empty the buffers for the next shard; the ranking stays."""
        self.rows = self.settled = self.patches = 0

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
        """Merge the photographs since the last time into the ranking, and so raise the bound."""
        since = slice(self.settled, self.rows)
        if self.rows > self.settled:
            found = TopK.of_batch(self.values[since], self.positions[since], self.images[since], self.top.keys.shape[1])
            self.top = self.top.merge(found)
        self.settled = self.rows

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays of the shard file, with the vectors that cannot rank any more left out."""
        self.settle()
        filled = self.top.filled
        ranked = np.unique(self.top.images[filled] * CELLS + self.top.positions[filled])
        images, places = self.vector_images[: self.patches], self.vector_places[: self.patches]
        kept = np.isin(images * CELLS + places, ranked)
        return {
            f"{prefix}/value": self.values[: self.rows],
            f"{prefix}/position": self.positions[: self.rows],
            f"{prefix}/vector_image": images[kept],
            f"{prefix}/vector_position": places[kept],
            f"{prefix}/vectors": self.vectors[: self.patches][kept],
        }


class ShardMiner:
    """Computes shards one after the other; keeps the rankings so far, which only save work and change nothing."""

    def __init__(
        self,
        job: Job,
        taps: Sequence[Tap],
        source: Source,
        entries: Sequence[Entry],
        executor: Executor,
        workers: int,
    ) -> None:
        self.job, self.taps, self.source, self.entries = job, tuple(taps), source, entries
        self.executor = executor
        self.pool = ThreadPoolExecutor(workers, "decode", initializer=torch.set_num_threads, initargs=(1,))
        photographs = min(job.shard_size, job.photographs)
        one_size = job.preprocessing.view != "whole"
        self.layers = {tap.layer: LayerShard(tap, photographs, job.keep, one_size) for tap in self.taps}

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)

    def remember(self, layer: str, top: TopK) -> None:
        """Take over the ranking of shards that were finished before."""
        self.layers[layer].top = self.layers[layer].top.merge(top)

    def mine(self, shard: Shard, progress: Callable[[int], None]) -> ShardContent:
        """Compute one shard. `progress` is told the number of photographs done since it was last called.

        The arrays are views of buffers that the next call fills again.
        """
        for layer in self.layers.values():
            layer.begin()
        records: list[dict[str, Any]] = []
        reported = 0
        for batch in self._batches(shard, records):
            images = np.array([photograph.image for photograph in batch], np.int64)
            pixels = torch.stack([photograph.pixels.tensor for photograph in batch if photograph.pixels])
            bounds = {name: layer.top.bound for name, layer in self.layers.items()}
            for name, reduced in self.executor.run(pixels, images, bounds).items():
                self.layers[name].add(images, reduced)
            progress(len(batch))
            reported += len(batch)
        progress(len(records) - reported)
        arrays: dict[str, NDArray[Any]] = {}
        for number, layer in enumerate(self.layers.values()):
            arrays |= layer.arrays(str(number))
        return {"job": self.job.digest, "shard": shard.number, "images": records}, arrays

    def _batches(self, shard: Shard, records: list[dict[str, Any]]) -> Iterator[list[Photograph]]:
        """Batches of readable photographs of one input size; `records` gets an entry for every photograph, in order."""
        batch: list[Photograph] = []
        block = 8 * self.job.batch_size
        for start in range(shard.start, shard.stop, block):
            ids = range(start, min(start + block, shard.stop))
            # The whole block first: a forward pass on all cores collapses when decoding wants one of them.
            for photograph in list(self.pool.map(self._read, ids)):
                records.append(_record(photograph))
                if photograph.pixels is None:
                    continue
                if batch and _input_size(batch[-1]) != _input_size(photograph):
                    yield batch
                    batch = []
                batch.append(photograph)
                if len(batch) == self.job.batch_size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _read(self, image: int) -> Photograph:
        return read_photograph(image, self.entries[image], self.source, self.job)


def _record(photograph: Photograph) -> dict[str, Any]:
    size = photograph.pixels.placement.source if photograph.pixels else (0, 0)
    return {
        "path": photograph.entry.path,
        "class": photograph.entry.class_name,
        "digest": photograph.digest,
        "size": list(size),
        "reason": photograph.reason,
    }


def _input_size(photograph: Photograph) -> tuple[int, int]:
    assert photograph.pixels is not None
    return photograph.pixels.placement.input
