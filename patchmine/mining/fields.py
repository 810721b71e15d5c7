"""The receptive fields of a job's layers: exact ones for every input size, effective ones at the strongest hits.

Of a transformer's layers the norms of tokens are measured with them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.errors import PhotographError, RequestError
from patchmine.fields.effective import Energy, Hit, effective_field, energy_of
from patchmine.fields.exact import FieldKind, receptive_fields
from patchmine.fields.field import FieldsBySize, ReceptiveField, covering
from patchmine.fields.norms import Norms, norms_of, usual
from patchmine.networks.folding import channels_last, finite_weights, folded, replica
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap
from patchmine.photographs.decode import Pixels, normalized, prepare
from patchmine.photographs.placement import TRIM, Preprocessing
from patchmine.ranking import TopK
from patchmine.sources import Entry, Source
from patchmine.store import writing
from patchmine.store.job import Job
from patchmine.store.shardfile import ShardFile
from patchmine.system import digests
from patchmine.units import Position

HITS = 16
"""The number of units per layer whose strongest hits are used to measure its effective field."""

TOKEN_HITS = 4
"""The same for a layer of tokens: attention spreads every gradient over the input, and a hit costs three passes."""

NORMED = 16
"""The number of photographs whose tokens tell the usual norms of a layer: thousands of tokens."""

_AT_HAND = 64  # photographs kept while fields are measured: one is often the strongest of many units


class Fields:
    """The receptive fields of all layers by input size, each computed on first use."""

    def __init__(self, network: Network, taps: Sequence[Tap], kind: FieldKind, hits: int = HITS) -> None:
        self.network, self.taps, self.kind, self.hits = network, taps, kind, hits
        self._found: dict[tuple[int, int], dict[str, ReceptiveField]] = {}

    def at(self, size: tuple[int, int]) -> dict[str, ReceptiveField]:
        if size not in self._found:
            layers = [tap.layer for tap in self.taps]
            self._found[size] = receptive_fields(self.network.module, size, layers, field=self.kind)
        return self._found[size]

    def check(self) -> None:
        """Check that the network accepts the inputs of the job. Raises FieldError or RequestError if it does not."""
        nominal = self.network.preprocessing.crop
        if self.network.preprocessing.view == "whole":
            fixed = [tap.layer for tap in self.taps if tap.layout.order != "nchw"]
            if fixed:
                raise RequestError(f"--view whole needs feature maps, but layer {fixed[0]!r} has none: choose others")
            self.at((nominal[0] + TRIM, nominal[1] + 2 * TRIM))
        self.at(nominal)

    def plans(self, files: Sequence[ShardFile]) -> list[writing.LayerPlan]:
        """The plan of each layer for publishing, from all shards of the job; effective fields are measured apart."""
        whole = self.network.preprocessing.view == "whole"
        nominal = self.network.preprocessing.crop
        sizes = covering(_input_sizes(files, self.network.preprocessing)) if whole else []
        wanted = [nominal, *(size for size in sizes if size != nominal)]

        def plan(tap: Tap) -> writing.LayerPlan:
            exact = FieldsBySize(tuple(self.at(size)[tap.layer] for size in wanted))
            units, below = tap.layout.channels, tap.layout.width if tap.layout.readout else None
            return writing.LayerPlan(tap.layer, units, tap.layout.grid, exact, not whole, tap.call, tap.calls, below)

        return [plan(tap) for tap in self.taps]

    @contextmanager
    def measuring(
        self,
        job: Job,
        files: Sequence[ShardFile],
        plans: Sequence[writing.LayerPlan],
        source: Source,
        entries: Sequence[Entry],
        workers: int,
    ) -> Iterator[Callable[[], dict[str, dict[str, NDArray[np.float32]]]]]:
        """Measure the effective field of each layer and the norms of its tokens in `workers` threads, during the block.

        Yields a function that waits for them: `effective` has `effective_field` by layer, without the layers where it
        is None, and `token_norm` what `fields.norms.usual` gives.
        """
        bench = _Bench(self.network, self.taps, files, job.shard_size, source, entries)

        def strongest(number: int) -> list[tuple[int, int, int]]:
            tap = self.taps[number]
            hits = self.hits if tap.layout.tokens is None else min(self.hits, TOKEN_HITS)
            return list(_strongest(files, number, tap, job.shard_size, hits))

        pool = ThreadPoolExecutor(workers, "effective", initializer=torch.set_num_threads, initargs=(1,))
        try:
            hits = list(pool.map(strongest, range(len(self.taps))))
            deepest_first = reversed(list(zip(plans, self.taps, hits, strict=True)))
            energies = {
                tap.layer: [pool.submit(bench.energy, plan, tap, *hit) for hit in of_layer]
                for plan, tap, of_layer in deepest_first
            }
            tokens = any(tap.layout.tokens == "grid" for tap in self.taps)
            norms = [pool.submit(bench.norms, image) for image in (bench.spread(NORMED) if tokens else ())]
            yield lambda: {
                "effective": {
                    layer: shares
                    for layer, futures in energies.items()
                    if (shares := effective_field(future.result() for future in futures)) is not None
                },
                "token_norm": usual(future.result() for future in norms),
            }
        finally:
            pool.shutdown(cancel_futures=True)


class _Bench:
    """Measures single photographs of a job in the network, from several threads at once."""

    def __init__(
        self,
        network: Network,
        taps: Sequence[Tap],
        files: Sequence[ShardFile],
        shard_size: int,
        source: Source,
        entries: Sequence[Entry],
    ) -> None:
        self._network, self._taps = network, taps
        self._files, self._shard_size = files, shard_size
        self._source, self._entries = source, entries
        self._module = channels_last(folded(finite_weights(network.module), taps, network.blank()))
        self._per_thread = threading.local()
        self._prepared = lru_cache(_AT_HAND)(self._pixels)

    def spread(self, count: int) -> list[int]:
        """Up to so many readable photographs, spread evenly over the source."""
        readable = np.flatnonzero(np.concatenate([file.readable for file in self._files]))
        places = np.unique(np.linspace(0, len(readable) - 1, count).round().astype(np.int64))
        found: list[int] = readable[places].tolist()
        return found

    def energy(self, plan: writing.LayerPlan, tap: Tap, channel: int, image: int, place: int) -> Energy | None:
        """The energy of the gradient of one hit; None where the photograph has disappeared or changed."""
        pixels = self._prepared(image)
        if pixels is None:
            return None
        field = plan.fields.at(pixels.placement.input[::-1])
        position = Position(*divmod(place, field.grid[1]))
        hit = Hit(channel, position, field.center(channel, position), self._input(pixels))
        return energy_of(self._own_module(), tap, hit)

    def norms(self, image: int) -> Norms:
        """The norms of the tokens of one photograph; empty where it has disappeared or changed."""
        pixels = self._prepared(image)
        return {} if pixels is None else norms_of(self._own_module(), self._taps, self._input(pixels))

    def _input(self, pixels: Pixels) -> Tensor:
        return normalized(pixels.tensor[None], self._network.preprocessing)[0]

    def _own_module(self) -> nn.Module:
        """The network of this thread: hooks belong to a module."""
        if not hasattr(self._per_thread, "module"):
            self._per_thread.module = replica(self._module)
        found: nn.Module = self._per_thread.module
        return found

    def _pixels(self, image: int) -> Pixels | None:
        """A photograph as input; None if it has since disappeared or changed."""
        try:
            data = self._source.read(self._entries[image].path)
            record = self._files[image // self._shard_size].images[image % self._shard_size]
            unchanged = digests.of_bytes(data) == record["digest"]
            return prepare(data, self._network.preprocessing) if unchanged else None
        except PhotographError:
            return None


def _strongest(
    files: Sequence[ShardFile], number: int, tap: Tap, shard_size: int, hits: int
) -> Iterator[tuple[int, int, int]]:
    """(channel, photograph, place) of the strongest hit of up to `hits` channels, spread evenly over the layer."""
    units = tap.layout.channels
    channels = np.unique(np.linspace(0, units - 1, min(units, hits)).round().astype(np.int64))
    top = TopK.empty(len(channels), 1)
    for file in files:
        columns = [file.table(str(number), slice(channel, channel + 1)) for channel in channels.tolist()]
        values, places = (np.concatenate(part, axis=1) for part in zip(*columns, strict=True))
        top = top.merge(TopK.of_batch(values, places, file.source_ids(shard_size), 1))
    for row in np.flatnonzero(top.filled[:, 0]):
        yield int(channels[row]), int(top.images[row, 0]), int(top.positions[row, 0])


def _input_sizes(files: Sequence[ShardFile], preprocessing: Preprocessing) -> set[tuple[int, int]]:
    """The (height, width) of the network inputs made from the readable photographs."""
    sources = {tuple(r["size"]) for file in files for r in file.images if r["reason"] is None}
    placements = [preprocessing.place(width, height) for width, height in sources]
    return {(placement.input[1], placement.input[0]) for placement in placements}
