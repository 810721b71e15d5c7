"""One shard's work: decode its photographs, run the network, keep what may still matter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from patchmine.decode import Pixels, prepare
from patchmine.errors import PhotographError
from patchmine.executors import Executor, Reduced
from patchmine.job import Job, Shard
from patchmine.network import Tap
from patchmine.ranking import Int64, TopK
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


@dataclass
class LayerShard:
    """What a shard collects of one layer, batch by batch. `settled` batches are in the ranking already."""

    top: TopK
    batches: list[tuple[Int64, Reduced]] = field(default_factory=list)
    settled: int = 0

    def add(self, images: Int64, reduced: Reduced) -> None:
        self.batches.append((images, reduced))
        if sum(len(images) for images, _ in self.batches[self.settled :]) >= _MERGE_EVERY:
            self.settle()

    def settle(self) -> None:
        """Merge the batches since the last time into the ranking, and so raise the bound."""
        since = self.batches[self.settled :]
        if since:
            images = np.concatenate([images for images, _ in since])
            values = np.concatenate([reduced.value for _, reduced in since])
            positions = np.concatenate([reduced.position for _, reduced in since])
            self.top = self.top.merge(TopK.of_batch(values, positions, images, self.top.keys.shape[1]))
        self.settled = len(self.batches)

    def arrays(self, prefix: str, grid: tuple[int, int]) -> dict[str, NDArray[Any]]:
        """The arrays of the shard file, with the vectors that cannot rank any more left out."""
        self.settle()
        cells = grid[0] * grid[1]
        units = self.top.keys.shape[0]
        images, places, vectors = (
            [np.empty(0, np.int64)],
            [np.empty(0, np.int64)],
            [np.empty((0, units), np.float16)],
        )
        values, positions = [np.empty((0, units), np.float32)], [np.empty((0, units), np.int64)]
        for batch, reduced in self.batches:
            values.append(reduced.value)
            positions.append(reduced.position)
            images.append(batch[reduced.row])
            places.append(reduced.place)
            vectors.append(reduced.vectors)
        image, place = np.concatenate(images), np.concatenate(places)
        filled = self.top.filled
        ranked = np.unique(self.top.images[filled] * cells + self.top.positions[filled])
        kept = np.isin(image * cells + place, ranked)
        small = np.uint16 if cells <= 2**16 else np.uint32
        return {
            f"{prefix}/value": np.concatenate(values),
            f"{prefix}/position": np.concatenate(positions).astype(small),
            f"{prefix}/vector_image": image[kept],
            f"{prefix}/vector_position": place[kept].astype(small),
            f"{prefix}/vectors": np.concatenate(vectors)[kept],
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
        self.tops = {tap.layer: TopK.empty(tap.layout.channels, job.keep) for tap in self.taps}

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)

    def remember(self, layer: str, top: TopK) -> None:
        """Take over the ranking of shards that were finished before."""
        self.tops[layer] = self.tops[layer].merge(top)

    def mine(self, shard: Shard, progress: Callable[[int], None]) -> ShardContent:
        """Compute one shard. `progress` is told the number of photographs done since it was last called."""
        layers = {tap.layer: LayerShard(self.tops[tap.layer]) for tap in self.taps}
        records: list[dict[str, Any]] = []
        reported = 0
        for batch in self._batches(shard, records):
            images = np.array([photograph.image for photograph in batch], np.int64)
            pixels = torch.stack([photograph.pixels.tensor for photograph in batch if photograph.pixels])
            bounds = {layer: collected.top.bound for layer, collected in layers.items()}
            for layer, reduced in self.executor.run(pixels, images, bounds).items():
                layers[layer].add(images, reduced)
            progress(len(batch))
            reported += len(batch)
        progress(len(records) - reported)
        arrays: dict[str, NDArray[Any]] = {}
        for number, tap in enumerate(self.taps):
            arrays |= layers[tap.layer].arrays(str(number), tap.layout.grid)
            self.tops[tap.layer] = layers[tap.layer].top
        return {"job": self.job.digest, "shard": shard.number, "images": records}, arrays

    def _batches(self, shard: Shard, records: list[dict[str, Any]]) -> Iterator[list[Photograph]]:
        """Whole batches of readable photographs; `records` gets an entry for every photograph, in order."""
        batch: list[Photograph] = []
        block = 8 * self.job.batch_size
        for start in range(shard.start, shard.stop, block):
            ids = range(start, min(start + block, shard.stop))
            # The whole block first: a forward pass on all cores collapses when decoding wants one of them.
            for photograph in list(self.pool.map(self._read, ids)):
                records.append(_record(photograph))
                if photograph.pixels is not None:
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
