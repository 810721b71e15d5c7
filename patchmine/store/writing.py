"""Writes an index: activations.h5 from shards, its labels, and the manifests. `reading` reads it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from patchmine.errors import StoreError
from patchmine.fields.field import FieldsBySize
from patchmine.ranking import CELLS, Float32, Int64, TopK, among, position_dtype
from patchmine.sparse import Columns, blocks
from patchmine.store.hdf5 import SparseTable
from patchmine.store.label_columns import LabelColumns, write_columns
from patchmine.store.reading import FORMAT, MANIFEST
from patchmine.store.statistics import QUANTILES, TIED, Moments, quantiles, selected
from patchmine.system import digests
from patchmine.system.parallel import in_order

if TYPE_CHECKING:
    from patchmine.store.shardfile import ShardFile

_LIBVER = "v110"  # the first version that allows long attributes
_COLUMNS_BYTES = 64 << 20  # of columns that are sorted; beyond, their quantiles are selected block by block
_SHARDS = 64  # whose records are in memory at once
_BLOCK_ROWS = 1 << 17
_CHUNK_ROWS, _CHUNK_UNITS = 4096, 16  # a column of 50,000 images spans 13 chunks of 256 kB


@dataclass(frozen=True)
class LayerPlan:
    """The facts about a layer that publishing needs. It is number `call` of the `calls` of its module, from 1.

    `below` is the number of channels that a virtual layer is read from.
    """

    layer: str
    units: int
    grid: tuple[int, int]
    fields: FieldsBySize
    one_size: bool
    call: int = 1
    calls: int = 1
    below: int | None = None

    @property
    def width(self) -> int:
        """The length of an activation vector."""
        return self.units if self.below is None else self.below


def write_activations(
    file: Path,
    job_digest: str,
    shards: Sequence[ShardFile],
    layers: Sequence[LayerPlan],
    keep: int,
    table: bool,
    workers: int,
) -> dict[str, Any]:
    """Write activations.h5 from verified shards, with a shard in memory at a time for each of `workers` threads.

    Unreadable photographs are left out, and image ids count only readable ones. Returns the counts for the manifest.
    Raises OSError when the disk is full.
    """
    # From the id in the source to the id in the index.
    ids = np.cumsum(np.concatenate([shard.readable for shard in shards])).astype(np.int64) - 1
    readable = int(ids[-1]) + 1
    non_finite: dict[str, int] = {}
    saturated: dict[str, int] = {}
    with ThreadPoolExecutor(workers, "publish") as pool, written(file, "w") as h5:
        ranked = {
            number: pool.submit(_ranked, shards, str(number), layers[number].units, keep)
            for number in sorted(range(len(layers)), key=lambda number: -layers[number].units)
        }
        h5.attrs["format"] = FORMAT
        h5.attrs["job"] = job_digest
        skipped = _write_images(h5.create_group("images"), shards, readable)
        for number, plan in enumerate(layers):
            group = h5.create_group(f"layers/{plan.layer}")
            group.attrs["grid"] = plan.grid
            entries = [{"input": field.input, **field.as_dict()} for field in plan.fields.entries]
            group.create_dataset("fields", data=json.dumps(entries), dtype=h5py.string_dtype("utf-8"))
            writer = _LayerWriter(group, str(number), plan, shards, ids, readable)
            if table:
                writer.write_table()
            top, moments = ranked[number].result()
            moments.write(group.create_group("stats"))
            if table:
                writer.write_quantiles(pool, 2 * workers)
            writer.write_top(top)
            writer.write_vectors(top)
            non_finite[plan.layer] = moments.non_finite
            saturated[plan.layer] = int((group["stats/tied"][:] > TIED).sum())
    return {"images": readable, "skipped": skipped, "non_finite": non_finite, "saturated": saturated}


class _Lenient(io.FileIO):
    """A file that accepts HDF5's writes even when the disk is full, and remembers the failure.

    HDF5 cannot close a file whose last bytes cannot be written: it fails in destructors, whose tracebacks cannot be
    caught.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while len(left) and self.failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = error
        return size


@contextmanager
def written(file: Path, mode: str) -> Iterator[h5py.File]:
    """The HDF5 file open for writing (`w` or `r+`), flushed at the end. Raises OSError when the disk is full."""
    with _Lenient(file, "w+" if mode == "w" else mode) as raw:
        try:
            with h5py.File(raw, mode, libver=_LIBVER) as h5:
                yield h5
        except (OSError, RuntimeError):
            if raw.failure is None:
                raise
        if raw.failure is not None:
            raise raw.failure
        os.fsync(raw.fileno())


def _write_images(group: h5py.Group, shards: Sequence[ShardFile], readable: int) -> list[dict[str, str]]:
    """Write the columns of the photographs that could be read; returns the others, with their reasons.

    Holds the records of some shards at a time, and 4 bytes for each class and prediction.
    """
    text = h5py.string_dtype("utf-8")
    kinds = {"path": text, "digest": np.dtype("S32"), "width": np.dtype(np.uint32), "height": np.dtype(np.uint32)}
    columns = {name: group.create_dataset(name, (readable,), kind) for name, kind in kinds.items()}
    classes, predictions = _Words(), _Words()
    skipped: list[dict[str, str]] = []
    done = 0
    for first in range(0, len(shards), _SHARDS):
        records = [record for shard in shards[first : first + _SHARDS] for record in shard.images]
        skipped += [{"image": r["path"], "reason": r["reason"]} for r in records if r["reason"] is not None]
        good = [record for record in records if record["reason"] is None]
        if not good:
            continue
        sizes = np.array([record["size"] for record in good], np.uint32)
        values = {
            "path": [_storable(record["path"]) for record in good],
            "digest": np.array([record["digest"] for record in good], "S32"),
            "width": sizes[:, 0],
            "height": sizes[:, 1],
        }
        for name, some in values.items():
            columns[name][done : done + len(good)] = some
        classes.add([record["class"] for record in good])
        predictions.add([record.get("prediction") for record in good])
        done += len(good)
    classes.write(group, "class", "the source names no class")
    if any(predictions.numbers):
        predictions.write(group, "prediction", "the network was not asked")
    return skipped


class _Words:
    """A column of texts with many repeats, or None: in memory each distinct text once, and its number for each row."""

    def __init__(self) -> None:
        self.numbers: dict[str | None, int] = {}
        self._rows: list[NDArray[np.int32]] = []

    def add(self, words: Sequence[str | None]) -> None:
        numbers = self.numbers
        self._rows.append(np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int32))

    def write(self, group: h5py.Group, name: str, none: str) -> None:
        """Write each distinct text once, in order, and the row of its text for each row of the column."""
        known = sorted(word for word in self.numbers if word is not None)
        place = {word: row for row, word in enumerate(known)}
        rows = np.array([-1 if word is None else place[word] for word in self.numbers], np.int32)
        group.create_dataset(name, data=rows[np.concatenate(self._rows)])
        group[name].attrs["meaning"] = f"row of {name}_name; -1 where {none}"
        text = h5py.string_dtype("utf-8")
        group.create_dataset(f"{name}_name", data=[_storable(word) for word in known], dtype=text)


def _storable(path: str) -> bytes:
    """A path as bytes: file names may hold bytes that are not UTF-8, which Python represents as lone surrogates."""
    return path.encode("utf-8", "surrogateescape")


class _LayerWriter:
    """Writes one layer's group, shard by shard."""

    def __init__(
        self,
        group: h5py.Group,
        prefix: str,
        plan: LayerPlan,
        shards: Sequence[ShardFile],
        ids: Int64,
        images: int,
    ) -> None:
        self.group, self.prefix, self.plan = group, prefix, plan
        self.shards, self.ids, self.images = shards, ids, images

    def write_table(self) -> None:
        """Write the activation of every photograph and its place: cell by cell if every shard does so."""
        small = position_dtype(self.plan.grid[0] * self.plan.grid[1] if self.plan.one_size else CELLS)
        if all(shard.sparse(self.prefix) for shard in self.shards):
            self._write_cells(small)
            return
        kinds = {"value": np.float32, "position": small}
        tables = [table_dataset(self.group, name, kind, self.images, self.plan.units) for name, kind in kinds.items()]
        for units in blocks(self.plan.units):
            slabs = [Slabs(table, units) for table in tables]
            for values, positions, _ in _rows(self.shards, self.prefix, units):
                for slab, array in zip(slabs, (values, positions), strict=True):
                    slab.add(array)
            for slab in slabs:
                slab.close()

    def _write_cells(self, small: Any) -> None:
        group = self.group.create_group("sparse")
        count = sum(shard.shape(f"{self.prefix}/row")[0] for shard in self.shards)
        kinds = {"row": np.uint32, "value": np.float32, "position": small}
        cells = {name: group.create_dataset(name, (count,), kind) for name, kind in kinds.items()}
        starts, done = [np.zeros(1, np.int64)], 0
        for units in blocks(self.plan.units):
            found = Columns.joined([shard.columns(self.prefix, units) for shard in self.shards])
            for name, dataset in cells.items():
                dataset[done : done + len(found.row)] = getattr(found, name)
            starts.append(found.start[1:] + done)
            done += len(found.row)
        group.create_dataset("start", data=np.concatenate(starts))

    def write_quantiles(self, pool: Executor, ahead: int) -> None:
        """Write the quantiles of each unit's finite activations, from the table."""
        stats = self.group["stats"]
        value = SparseTable(self.group["sparse"], self.images).value if "sparse" in self.group else self.group["value"]
        units = [slice(start, start + _CHUNK_UNITS) for start in range(0, self.plan.units, _CHUNK_UNITS)]
        if 4 * self.images * _CHUNK_UNITS > _COLUMNS_BYTES:
            found = [selected(partial(_column_blocks, value, self.images, some)) for some in units]
        else:
            ahead = max(1, min(ahead, _COLUMNS_BYTES // max(1, 2 * 4 * self.images * _CHUNK_UNITS)))
            found = list(in_order(pool, quantiles, (value[:, some] for some in units), ahead))
        stats.create_dataset("quantiles", data=np.concatenate(found))
        stats["quantiles"].attrs["of"] = QUANTILES

    def write_top(self, top: TopK) -> None:
        group = self.group.create_group("top")
        group.create_dataset("value", data=top.values)
        group.create_dataset("image", data=top.images.astype(np.uint32))
        group.create_dataset("position", data=top.positions.astype(np.uint32))

    def write_vectors(self, top: TopK) -> None:
        """Write the vectors of the final top-k, once per distinct (image, position), in that order."""
        filled = top.filled
        wanted = np.unique(top.images[filled] * CELLS + top.positions[filled])
        width = self.plan.width
        chunk = (min(len(wanted), max(1, (1 << 18) // (2 * width))), width)
        vectors = self.group.create_dataset(
            "vectors", (len(wanted), width), np.float16, chunks=chunk if len(wanted) else None
        )
        done = 0
        for shard in self.shards:
            image = self.ids[shard.array(f"{self.prefix}/vector_image")]
            found = image * CELLS + shard.array(f"{self.prefix}/vector_position")
            order = np.argsort(found)
            chosen = order[among(found[order], wanted)]
            if len(chosen):
                vectors[done : done + len(chosen)] = shard.array(f"{self.prefix}/vectors")[chosen]
                done += len(chosen)
        if done != len(wanted):
            raise StoreError(
                f"the shards hold {done} of {len(wanted)} vectors of {self.plan.layer}; start over with --fresh"
            )
        self.group.create_dataset("vector_image", data=(wanted // CELLS).astype(np.uint32))
        self.group.create_dataset("vector_position", data=(wanted % CELLS).astype(np.uint32))


Rows = Iterator[tuple[Float32, NDArray[np.integer], Int64]]


def _rows(shards: Sequence[ShardFile], prefix: str, units: slice) -> Rows:
    """Values, positions and image ids of some units of a layer, shard by shard."""
    start = 0
    for shard in shards:
        values, positions = shard.table(prefix, units)
        yield values, positions, np.arange(start, start + len(values), dtype=np.int64)
        start += len(values)


def _ranked(shards: Sequence[ShardFile], prefix: str, units: int, keep: int) -> tuple[TopK, Moments]:
    """The final ranking of a layer, and its statistics."""
    whole, moments = TopK.empty(units, keep), Moments(units)
    for some in blocks(units):
        top = TopK.empty(some.stop - some.start, keep)
        for values, positions, images in _rows(shards, prefix, some):
            top = top.with_batch(values, positions, images)
            moments.add(values, some)
        whole.keys[some], whole.positions[some] = top.keys, top.positions
    return whole, moments


def _column_blocks(value: Any, images: int, units: slice) -> Iterator[Float32]:
    """The columns of some units of a table, in blocks of rows."""
    for start in range(0, images, _BLOCK_ROWS):
        yield value[start : start + _BLOCK_ROWS, units]


def table_dataset(group: h5py.Group, name: str, dtype: Any, images: int, units: int) -> h5py.Dataset:
    """A dataset (images, units) in chunks from which one unit's column is read fast."""
    chunks = (max(1, min(images, _CHUNK_ROWS)), max(1, min(units, _CHUNK_UNITS)))
    return group.create_dataset(name, (images, units), dtype, chunks=chunks if images else None)


class Slabs:
    """Writes rows of some units into a chunked dataset in whole chunks, so that no chunk is written twice."""

    def __init__(self, dataset: h5py.Dataset, units: slice) -> None:
        self.dataset, self.units = dataset, units
        rows = max(1, min(len(dataset), _CHUNK_ROWS))
        self.buffer = np.empty((rows, units.stop - units.start), dataset.dtype)
        self.filled = self.written = 0

    def add(self, array: NDArray[Any]) -> None:
        while len(array):
            taken = min(len(array), len(self.buffer) - self.filled)
            self.buffer[self.filled : self.filled + taken] = array[:taken]
            self.filled += taken
            array = array[taken:]
            if self.filled == len(self.buffer):
                self.close()

    def close(self) -> None:
        if self.filled:
            self.dataset[self.written : self.written + self.filled, self.units] = self.buffer[: self.filled]
            self.written += self.filled
            self.filled = 0


def complete(
    file: Path,
    measured: Mapping[str, Mapping[str, Float32]],
    words: Mapping[str, str],
    labels: Mapping[str, LabelColumns],
    manifest: Mapping[str, Any],
) -> None:
    """Write into activations.h5 what is made from its table: labels, and what was `measured`, by name and layer.

    `words` has the word of each key of a label, in the order that the labels name; without labels nothing is written of
    them. A copy of the manifest is for readers that find the manifest of another job beside the file. Raises OSError.
    """
    text = h5py.string_dtype("utf-8")
    with written(file, "r+") as h5:
        for name, by_layer in measured.items():
            for layer, numbers in by_layer.items():
                h5.create_dataset(f"layers/{layer}/{name}", data=numbers)
        if labels:
            h5.create_dataset("labels/name", data=[_storable(word) for word in words.values()], dtype=text)
            h5.create_dataset("labels/key", data=[_storable(key) for key in words], dtype=text)
        for layer, columns in labels.items():
            write_columns(h5[f"layers/{layer}"], columns)
        h5.attrs["manifest"] = json.dumps({"format": FORMAT, **manifest})


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Write the last file of an index, which proves that the index is complete."""
    from patchmine.system.atomic import write_atomically

    whole = {"format": FORMAT, **manifest}
    text = json.dumps({**whole, "manifest_digest": digests.of_json(whole)}, indent=1)
    write_atomically(directory / MANIFEST, [text.encode() + b"\n"])
