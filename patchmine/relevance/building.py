"""Builds the relevance of a finished index: a pass over its photographs in shards, resumed where it was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from patchmine import executors
from patchmine.defaults import Run
from patchmine.errors import ModelError, PhotographError, RequestError, SourceError, StoreError
from patchmine.executors import out_of_memory
from patchmine.kept.tight_crops import network_key
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.networks.taps import Tap, survey
from patchmine.networks.virtual import carried
from patchmine.photographs.decode import prepare
from patchmine.photographs.placement import Preprocessing
from patchmine.ranking import CELLS, position_dtype
from patchmine.relevance import table
from patchmine.relevance.classes import check_count, named, outputs
from patchmine.relevance.joining import Known, before
from patchmine.relevance.kept import Keeping
from patchmine.relevance.propagation import Propagated, Propagator, conserves
from patchmine.relevance.table import Conservation, Layer, Origin
from patchmine.sources import Entry
from patchmine.store.job import Job, Shard
from patchmine.store.reading import RELEVANCE_SHARDS
from patchmine.store.shardfile import ShardFile, shard_path, write_shard
from patchmine.system import allocator, digests
from patchmine.system.parallel import in_order
from patchmine.system.progress import Progress, Skipped

VERSION = 4
"""The version of the rules; relevance by another one is computed again."""

BATCH = {"cpu": 8, "cuda": 64}
"""Photographs in a batch, by the type of the device."""

SLOWER = 4
"""How much longer a photograph takes than in the pass for activations: shards are as many times smaller."""

Arrays = dict[str, NDArray[Any]]


class Photographs(Keeping, Protocol):
    """An opened index, as far as the making of its relevance needs it."""

    @property
    def preprocessing(self) -> Preprocessing: ...

    def photograph(self, image: int) -> bytes: ...


@dataclass(frozen=True)
class Built:
    """The relevance of an index: its origin, how well each layer conserves it, and whether it was there already."""

    origin: Origin
    layers: tuple[Conservation, ...]
    found: bool = False

    def lines(self) -> list[str]:
        """What was built, for a person."""
        return table.lines(self.origin, self.layers)


@with_own_settings
def built(index: Photographs, class_of: str, rule: str, run: Run, progress: Progress) -> Built:
    """Compute the relevance of every unit in every photograph of the index, unless it is there.

    `rule` is `plus` or `gradient`, or `auto`: `gradient` in a network that conserves by itself, else `plus`. Finished
    shards of the same relevance are kept; those of another are removed. Other relevance of the index is replaced, but
    not by relevance that no layer conserves.

    Raises RequestError for labels that the network lacks, ModelError for a network that has no relevance, StoreError
    if its layers differ from those in the index, SourceError if the photographs have disappeared, and OSError.
    """
    network = index.network()
    records = index.store.records()
    begin = None
    if class_of == "label":
        network = named(network, run.classes)
        begin = np.array(outputs(network, ((record.path, record.class_name) for record in records)), np.int64)
    device = torch.device(executors.kind(executors.DEFAULT).default_device())
    if rule == "auto":
        rule = "gradient" if conserves(network.module, network.blank()) else "plus"
    origin = Origin(
        index=str(index.store.manifest["job_digest"]),
        photographs=digests.of_json([record.digest for record in records]),
        network=network_key(Job.from_dict(index.store.manifest["job"])),
        class_of=class_of,
        rule=rule,
        batch=BATCH.get(device.type, BATCH["cpu"]),
        version=VERSION,
    )
    kept = None if run.fresh else before(index.directory, origin.network)
    if kept is not None and kept.origin == origin and _begins(kept, begin):
        kept.close()
        return Built(origin, kept.layers, found=True)
    own = [layer for layer in index.layers if layer not in carried(network.module)]
    if not own:
        raise RequestError("no relevance passes through directions: index the layer that they are read from too")
    taps = survey(network.module, network.blank(), own)
    for tap in taps:
        if tap.layout.channels != index.layers[tap.layer]:
            raise StoreError(
                f"layer {tap.layer} of {network.name} differs from that in {index.name}: name its network with --model"
            )
    if device.type == "cpu":
        allocator.keep_blocks()
    propagator = Propagator(network, taps, rule, device, run.workers)
    if class_of == "label":
        check_count(network, propagator.outputs)
    making = _Pass(index, origin, propagator, begin, run, progress, kept)
    try:
        return Built(origin, making.carried_out())
    finally:
        if kept is not None:
            kept.close()


def _begins(kept: table.Relevances, begin: NDArray[np.int64] | None) -> bool:
    """Whether the relevance that is there began at these outputs, wherever a photograph could be read."""
    output = kept.images("output")
    return begin is None or bool(((output == begin) | (output < 0)).all())


class _Pass:
    """One pass over the photographs of an index."""

    def __init__(
        self,
        index: Photographs,
        origin: Origin,
        propagator: Propagator,
        begin: NDArray[np.int64] | None,
        run: Run,
        progress: Progress,
        kept: table.Relevances | None,
    ) -> None:
        self.index, self.origin, self.propagator, self.begin = index, origin, propagator, begin
        self.run, self.progress = run, progress
        self.folder = index.directory / RELEVANCE_SHARDS
        self.digest = digests.of_json(origin.as_dict())
        size = max(origin.batch, int(index.store.manifest["job"]["shard_size"]) // SLOWER)
        self.images = index.store.images
        self.shards = [
            Shard(number, start, min(start + size, self.images))
            for number, start in enumerate(range(0, self.images, size))
        ]
        self.most = origin.batch
        self.digests = [record.digest.encode() for record in index.store.records()]
        self.useful = kept is not None and any(layer.refused is None for layer in kept.layers)
        known = None if kept is None else Known([kept])
        self.known = known if known is not None and self._fits(known) else None
        self.reused = np.zeros(self.images, bool) if self.known is None else self._reused(self.known)

    def _fits(self, known: Known) -> bool:
        """Whether the known rows were made as these will be."""
        layers = {tap.layer: (tap.layout.channels, self._cells(tap)) for tap in self.propagator.taps}
        return known.files[0].origin.how == self.origin.how and known.files[0].shape == layers

    def _reused(self, known: Known) -> NDArray[np.bool_]:
        """The photographs, (images,), whose relevance is known, to the same output."""
        reused = np.array([digest in known for digest in self.digests], bool)
        ids = np.flatnonzero(reused)
        output = known.images("output", [self.digests[image] for image in ids])
        reused[ids] = (output >= 0) if self.begin is None else output == self.begin[ids]
        return reused

    def _take_over(self, shard: Shard, arrays: Arrays) -> None:
        """Fill in the known rows of a shard."""
        ids = np.flatnonzero(self.reused[shard.start : shard.stop])
        if self.known is None or not len(ids):
            return
        wanted = [self.digests[shard.start + row] for row in ids]
        for name in ("output", "start"):
            arrays[name][ids] = self.known.images(name, wanted)
        for number, tap in enumerate(self.propagator.taps):
            for name in (*table.PER_UNIT, *table.PER_IMAGE):
                arrays[f"{number}/{name}"][ids] = self.known.rows(tap.layer, name, wanted)

    def carried_out(self) -> tuple[Conservation, ...]:
        self.folder.mkdir(exist_ok=True)
        for left in (*self.index.directory.glob(".*.tmp"), *self.folder.glob(".*.tmp")):
            left.unlink(missing_ok=True)
        done = self._done()
        todo = [shard for shard in self.shards if shard.number not in done]
        done_images = self.images - sum(shard.stop - shard.start for shard in todo)
        self.progress.begin(self.images, done_images, "photographs for relevance")
        self.progress.committed(len(done), len(self.shards))
        with ThreadPoolExecutor(self.run.workers, "relevance", torch.set_num_threads, (1,)) as pool:
            try:
                for count, (shard, arrays) in enumerate(self._computed(pool, todo), len(done) + 1):
                    about = {"job": self.digest, "shard": shard.number}
                    write_shard(shard_path(self.folder, shard.number), about, arrays)
                    self.progress.committed(count, len(self.shards))
            finally:
                pool.shutdown(cancel_futures=True)
        layers = self._published()
        shutil.rmtree(self.folder, ignore_errors=True)
        return layers

    def _done(self) -> set[int]:
        """The numbers of the finished shards of this relevance; those of another, and damaged ones, are removed."""
        done = set()
        for file in self.folder.glob("*.shard"):
            try:
                about = ShardFile.open(file).about
            except (StoreError, OSError):
                about = {}
            if about.get("job") == self.digest and file == shard_path(self.folder, about["shard"]):
                done.add(int(about["shard"]))
            else:
                file.unlink()
        return done

    def _computed(self, pool: ThreadPoolExecutor, todo: Sequence[Shard]) -> Iterator[tuple[Shard, Arrays]]:
        blocks = (
            (shard, range(start, min(start + self.origin.batch, shard.stop)))
            for shard in todo
            for start in range(shard.start, shard.stop, self.origin.batch)
        )
        parts: list[Arrays] = []
        for shard, ids, (arrays, skipped) in in_order(
            pool, lambda one: (*one, self._block(one[1])), blocks, self.run.workers + 2
        ):
            parts.append(arrays)
            self.progress.advance(len(ids), skipped)
            if ids.stop == shard.stop:
                whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
                self._take_over(shard, whole)
                self._refuse_vanished(shard, whole["output"])
                yield shard, whole
                parts = []

    def _refuse_vanished(self, shard: Shard, output: NDArray[np.int64]) -> None:
        """A shard of which no photograph can be read means that the source is gone, not its photographs."""
        if (output >= 0).any():
            return
        try:
            self.index.photograph(shard.start)
        except PhotographError as error:
            raise SourceError(
                f"no photograph from {self.index.store.image(shard.start).path!r} ({error}) on can be read: restore "
                "them and run the same command to resume"
            ) from None

    def _block(self, ids: range) -> tuple[Arrays, list[Skipped]]:
        """The relevance in these photographs, and those that cannot be read. Runs in a thread of the pool."""
        arrays, skipped = self._empty(len(ids)), []
        read = []
        for image in ids:
            if self.reused[image]:
                continue
            try:
                read.append((image, prepare(self.index.photograph(image), self.index.preprocessing)))
            except PhotographError as error:
                skipped.append((self.index.store.image(image).path, str(error)))
        for _, group in groupby(read, lambda one: one[1].placement.input):
            batch = list(group)
            images = np.array([image for image, _ in batch], np.int64)
            pixels = torch.stack([found.tensor for _, found in batch])
            for rows, propagated in self._propagated(images, pixels):
                _fill(arrays, rows - ids.start, propagated, self.propagator.taps)
        return arrays, skipped

    def _propagated(
        self, images: NDArray[np.int64], pixels: torch.Tensor
    ) -> Iterator[tuple[NDArray[np.int64], Propagated]]:
        """The batch, in smaller parts if memory runs out."""
        start = 0
        while start < len(images):
            part = slice(start, start + self.most)
            try:
                begin = None if self.begin is None else self.begin[images[part]]
                found = self.propagator.run(pixels[part], begin)
            except (RuntimeError, MemoryError) as error:
                size = len(images[part])
                if not out_of_memory(error) or size == 1:
                    raise
                self.most = min(self.most, size // 2)
                continue
            yield images[part], found
            start += len(images[part])

    def _empty(self, count: int) -> Arrays:
        arrays: Arrays = {"output": np.full(count, -1, np.int64), "start": np.full(count, np.nan, np.float32)}
        for number, tap in enumerate(self.propagator.taps):
            units = tap.layout.channels
            arrays[f"{number}/sum"] = np.full((count, units), np.nan, np.float32)
            arrays[f"{number}/max"] = np.full((count, units), np.nan, np.float32)
            arrays[f"{number}/position"] = np.zeros((count, units), self._cells(tap))
            arrays[f"{number}/conserved"] = np.full(count, np.nan, np.float32)
            arrays[f"{number}/placed"] = np.full(count, np.nan, np.float32)
        return arrays

    def _cells(self, tap: Tap) -> type[np.unsignedinteger[Any]]:
        one_size = self.index.preprocessing.view != "whole"
        return position_dtype(tap.layout.grid[0] * tap.layout.grid[1] if one_size else CELLS)

    def _published(self) -> tuple[Conservation, ...]:
        """Write relevance.h5 from the shards, a shard of a layer in memory at a time.

        Relevance of which no layer can be used does not replace a useful one.
        """
        files = [ShardFile.open(shard_path(self.folder, shard.number)) for shard in self.shards]
        layers = []
        for number, tap in enumerate(self.propagator.taps):
            conserved, placed = (_joined(files, f"{number}/{name}", np.float32) for name in ("conserved", "placed"))
            figures = Conservation.of(tap.layer, conserved, placed, tap.layer in self.propagator.bypassed)
            layers.append(Layer(figures, tap.layout.channels, self._cells(tap), _Tables(files, number)))
        found = tuple(layer.conservation for layer in layers)
        if self.useful and all(figures.refused is not None for figures in found):
            return found
        columns = {
            "output": _joined(files, "output", np.int64).astype(np.int32),
            "start": _joined(files, "start", np.float32),
            "digest": np.array(self.digests, "S32"),
        }
        table.write(self.index.directory, self.origin, layers, columns, self.images)
        return found


@dataclass(frozen=True)
class _Tables:
    """The tables of one layer, shard by shard."""

    files: Sequence[ShardFile]
    number: int

    def __call__(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        for file in self.files:
            yield {name: file.array(f"{self.number}/{name}") for name in (*table.PER_UNIT, *table.PER_IMAGE)}


def _joined(files: Sequence[ShardFile], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(file.array(name) for file in files)])


def _fill(arrays: Arrays, rows: NDArray[np.int64], propagated: Propagated, taps: Sequence[Tap]) -> None:
    arrays["output"][rows], arrays["start"][rows] = propagated.output, propagated.start
    for number, tap in enumerate(taps):
        layer = propagated.layers.get(tap.layer)
        if layer is not None:
            arrays[f"{number}/sum"][rows], arrays[f"{number}/max"][rows] = layer.sum, layer.maximum
            arrays[f"{number}/position"][rows] = layer.position
            arrays[f"{number}/conserved"][rows], arrays[f"{number}/placed"][rows] = layer.conserved, layer.placed


def check(network: Network, run: Run, entries: Iterable[Entry]) -> None:
    """Refuse, before any work, labels that the network lacks, and a network whose output is not one number a class.

    A run without a class asks for no relevance.
    """
    if run.class_of is None:
        return
    if run.class_of == "label":
        network = named(network, run.classes)
        outputs(network, ((entry.path, entry.class_name) for entry in entries))
    with torch.inference_mode():
        found = network.module(network.blank())
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise ModelError(
            f"--relevance: {network.name} does not return one number for each class; leave out --relevance"
        )
    if run.class_of == "label":
        check_count(network, found.shape[1])
