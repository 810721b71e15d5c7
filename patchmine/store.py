"""The index on disk. Written once, at publish; read by all else through `datasets`, the other file with h5py."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from patchmine import checked, digests
from patchmine.datasets import Data, Datasets, refusal
from patchmine.documents import TEXT, Misfit, parse
from patchmine.errors import StoreError
from patchmine.geometry import FieldsBySize
from patchmine.ranking import CELLS, Float32, Int64, TopK, among, position_dtype, sort_keys
from patchmine.units import Position

if TYPE_CHECKING:
    from patchmine.shardfile import ShardFile

FORMAT = 1
MANIFEST, ACTIVATIONS, PATCHES, NAMES, SHARDS, JOB, SYNTHETIC = (
    "manifest.json",
    "activations.h5",
    "patches.faiss",
    "names.json",
    "shards",
    "job.json",
    "synthetic",
)

QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
TIED = 25
"""A unit saturates when more photographs than this hold its very maximum: a top 25 is then arbitrary."""

_DIGEST = re.compile(rb"[0-9a-f]{32}")

_LIBVER = "v110"  # from here on an attribute may be long
_CHUNK_ROWS, _CHUNK_UNITS = 4096, 16  # a column of 50,000 images lies in 13 chunks of 256 kB


@dataclass(frozen=True)
class ImageRecord:
    """One photograph of the index. `size` is (width, height) after EXIF orientation."""

    image: int
    path: str
    digest: str
    size: tuple[int, int]
    class_name: str | None
    prediction: str | None = None


@dataclass(frozen=True)
class LayerPlan:
    """What publishing has to know of a layer."""

    layer: str
    units: int
    grid: tuple[int, int]
    fields: FieldsBySize
    one_size: bool


def write_activations(
    file: Path,
    job_digest: str,
    shards: Sequence[ShardFile],
    layers: Sequence[LayerPlan],
    keep: int,
    table: bool,
) -> dict[str, Any]:
    """Write activations.h5 from verified shards; one layer and one shard in memory at a time.

    Photographs that could not be read are left out, and image ids count those that could. Returns the counts that
    go into the manifest. Raises OSError when the disk is full.
    """
    records = [record for shard in shards for record in shard.about["images"]]
    good = [record for record in records if record["reason"] is None]
    # From the id in the source to the id in the index.
    ids = np.cumsum([record["reason"] is None for record in records]).astype(np.int64) - 1
    non_finite: dict[str, int] = {}
    saturated: dict[str, int] = {}
    with _written(file, "w") as h5:
        h5.attrs["format"] = FORMAT
        h5.attrs["job"] = job_digest
        _write_images(h5.create_group("images"), good)
        for number, plan in enumerate(layers):
            group = h5.create_group(f"layers/{plan.layer}")
            group.attrs["grid"] = plan.grid
            entries = [{"input": field.input, **field.as_dict()} for field in plan.fields.entries]
            group.create_dataset("fields", data=json.dumps(entries), dtype=h5py.string_dtype("utf-8"))
            if plan.fields.nominal.effective is not None:
                group.create_dataset("effective", data=plan.fields.nominal.effective)
            writer = _LayerWriter(group, str(number), plan, shards, ids, len(good))
            top = writer.write_table(keep, table)
            writer.write_top(top)
            writer.write_vectors(top)
            non_finite[plan.layer] = writer.non_finite
            saturated[plan.layer] = int((group["stats/tied"][:] > TIED).sum())
    skipped = [{"image": r["path"], "reason": r["reason"]} for r in records if r["reason"] is not None]
    return {"images": len(good), "skipped": skipped, "non_finite": non_finite, "saturated": saturated}


class _Lenient(io.FileIO):
    """A file that takes what HDF5 writes also when the disk is full, and remembers that it was.

    HDF5 cannot close a file whose last bytes cannot be written: it fails in destructors, whose tracebacks nobody can
    catch.
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
def _written(file: Path, mode: str) -> Iterator[h5py.File]:
    """The HDF5 file open for writing (`w` or `r+`), on the disk at the end. Raises OSError where that is full."""
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


def _write_images(group: h5py.Group, records: Sequence[Mapping[str, Any]]) -> None:
    text = h5py.string_dtype("utf-8")
    group.create_dataset("path", data=[_storable(r["path"]) for r in records], dtype=text)
    group.create_dataset("digest", data=np.array([r["digest"] for r in records], "S32"))
    sizes = np.array([r["size"] for r in records], np.uint32).reshape(-1, 2)
    group.create_dataset("width", data=sizes[:, 0])
    group.create_dataset("height", data=sizes[:, 1])
    _write_classes(group, "class", [record["class"] for record in records], "the source names no class")
    predictions = [record.get("prediction") for record in records]
    if any(predictions):
        _write_classes(group, "prediction", predictions, "the network was not asked")


def _write_classes(group: h5py.Group, name: str, classes: Sequence[str | None], none: str) -> None:
    """Texts of which many are equal: each once, and their rows."""
    known = sorted({name for name in classes if name is not None})
    code = {name: number for number, name in enumerate(known)}
    group.create_dataset(name, data=np.array([-1 if c is None else code[c] for c in classes], np.int32))
    group[name].attrs["meaning"] = f"row of {name}_name; -1 where {none}"
    text = h5py.string_dtype("utf-8")
    group.create_dataset(f"{name}_name", data=[_storable(name) for name in known], dtype=text)


def _storable(path: str) -> bytes:
    """A path as bytes: file names may hold bytes that are no UTF-8, which Python carries as lone surrogates."""
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
        self.group, self.prefix, self.plan, self.shards, self.ids, self.images = (
            group,
            prefix,
            plan,
            shards,
            ids,
            images,
        )
        self.non_finite = 0

    def _rows(self) -> Iterator[tuple[Float32, NDArray[np.integer], Int64]]:
        """Values, positions and image ids, shard by shard."""
        start = 0
        for shard in self.shards:
            values, positions = shard.array(f"{self.prefix}/value"), shard.array(f"{self.prefix}/position")
            yield values, positions, np.arange(start, start + len(values), dtype=np.int64)
            start += len(values)

    def write_table(self, keep: int, table: bool) -> TopK:
        """The table (unless it is not wanted), the statistics; returns the final ranking."""
        small = position_dtype(self.plan.grid[0] * self.plan.grid[1] if self.plan.one_size else CELLS)
        slabs = (
            [
                _Slabs(self.group, "value", np.float32, self.images, self.plan.units),
                _Slabs(self.group, "position", small, self.images, self.plan.units),
            ]
            if table
            else []
        )
        top = TopK.empty(self.plan.units, keep)
        moments = _Moments(self.plan.units)
        for values, positions, images in self._rows():
            top = top.merge(TopK.of_batch(values, positions, images, keep))
            moments.add(values)
            for slab, array in zip(slabs, (values, positions), strict=False):
                slab.add(array)
        for slab in slabs:
            slab.close()
        self.non_finite = moments.non_finite
        moments.write(self.group.create_group("stats"))
        if table:
            self._write_quantiles()
        return top

    def _write_quantiles(self) -> None:
        stats, value = self.group["stats"], self.group["value"]
        found = np.full((self.plan.units, len(QUANTILES)), np.nan, np.float32)
        for start in range(0, self.plan.units, _CHUNK_UNITS):
            block = value[:, start : start + _CHUNK_UNITS].astype(np.float32)
            block[~np.isfinite(block)] = np.nan
            block.sort(axis=0)  # NaN goes to the end
            counts = np.isfinite(block).sum(axis=0)
            for column, count in enumerate(counts):
                if count:
                    rank = np.round(np.array(QUANTILES) * (count - 1)).astype(np.int64)
                    found[start + column] = block[rank, column]
        stats.create_dataset("quantiles", data=found)
        stats["quantiles"].attrs["of"] = QUANTILES

    def write_top(self, top: TopK) -> None:
        group = self.group.create_group("top")
        group.create_dataset("value", data=top.values)
        group.create_dataset("image", data=top.images.astype(np.uint32))
        group.create_dataset("position", data=top.positions.astype(np.uint32))

    def write_vectors(self, top: TopK) -> None:
        """The vectors of the final top-k, once per distinct (image, position), in that order."""
        filled = top.filled
        wanted = np.unique(top.images[filled] * CELLS + top.positions[filled])
        rows = max(len(wanted), 1)
        chunk = (min(rows, max(1, (1 << 18) // (2 * self.plan.units))), self.plan.units)
        vectors = self.group.create_dataset("vectors", (len(wanted), self.plan.units), np.float16, chunks=chunk)
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


class _Slabs:
    """Rows into a chunked dataset in whole chunks, so that no chunk is written twice."""

    def __init__(self, group: h5py.Group, name: str, dtype: Any, images: int, units: int) -> None:
        rows = max(1, min(images, _CHUNK_ROWS))
        chunks = (rows, max(1, min(units, _CHUNK_UNITS)))
        self.dataset = group.create_dataset(name, (images, units), dtype, chunks=chunks if images else None)
        self.buffer = np.empty((rows, units), dtype)
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
            self.dataset[self.written : self.written + self.filled] = self.buffer[: self.filled]
            self.written += self.filled
            self.filled = 0


class _Moments:
    """Mean, standard deviation, extremes and counts of each unit's finite activations, added up in float64."""

    def __init__(self, units: int) -> None:
        self.count = np.zeros(units, np.int64)
        self.total = np.zeros(units)
        self.squares = np.zeros(units)
        self.positive = np.zeros(units, np.int64)
        self.minimum = np.full(units, np.inf, np.float32)
        self.maximum = np.full(units, -np.inf, np.float32)
        self.tied = np.zeros(units, np.int64)
        self.non_finite = 0

    def add(self, values: Float32) -> None:
        finite = np.isfinite(values)
        self.non_finite += int(values.size - finite.sum())
        zeroed = np.where(finite, values, 0).astype(np.float64)
        self.count += finite.sum(axis=0)
        self.total += zeroed.sum(axis=0)
        self.squares += (zeroed**2).sum(axis=0)
        self.positive += (zeroed > 0).sum(axis=0)
        self.minimum = np.minimum(self.minimum, np.where(finite, values, np.inf).min(axis=0, initial=np.inf))
        highest = np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf).astype(np.float32)
        holders = (values == highest).sum(axis=0)
        self.tied = np.where(highest > self.maximum, holders, self.tied + np.where(highest == self.maximum, holders, 0))
        self.maximum = np.maximum(self.maximum, highest)

    def write(self, group: h5py.Group) -> None:
        count = np.maximum(self.count, 1)
        mean = self.total / count
        variance = np.maximum(self.squares / count - mean**2, 0)
        group.create_dataset("mean", data=mean.astype(np.float32))
        group.create_dataset("std", data=np.sqrt(variance).astype(np.float32))
        group.create_dataset("positive", data=(self.positive / count).astype(np.float32))
        group.create_dataset("minimum", data=self.minimum.astype(np.float32))
        group.create_dataset("maximum", data=self.maximum.astype(np.float32))
        # A unit that never gets above 0 is tied there because it is dead, and is not saturated for that.
        tied = np.where(self.maximum == 0, 0, self.tied)
        group.create_dataset("tied", data=tied)
        group["tied"].attrs["meaning"] = "photographs that hold the unit's very maximum"


def write_labels(
    file: Path, words: Mapping[str, str], layers: Mapping[str, tuple[Sequence[str | None], Float32]]
) -> None:
    """Let activations.h5 carry the labels of units: for each layer their keys and areas (units,), and the word for each
    key. Raises OSError."""
    rows = {key: row for row, key in enumerate(sorted(words))}
    text = h5py.string_dtype("utf-8")
    with _written(file, "r+") as h5:
        h5.create_dataset("labels/name", data=[_storable(words[key]) for key in rows], dtype=text)
        h5.create_dataset("labels/key", data=[_storable(key) for key in rows], dtype=text)
        for layer, (keys, auroc) in layers.items():
            group = h5[f"layers/{layer}"]
            group.create_dataset("label", data=np.array([-1 if key is None else rows[key] for key in keys], np.int32))
            group["label"].attrs["meaning"] = "row of /labels; -1 where the unit separates nothing"
            group.create_dataset("auroc", data=auroc)


def attach_manifest(file: Path, manifest: Mapping[str, Any]) -> None:
    """Let activations.h5 carry what its manifest says: it tells who finds a manifest of another job beside it."""
    with _written(file, "r+") as h5:
        h5.attrs["manifest"] = json.dumps({"format": FORMAT, **manifest})


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """The last file of an index, and the proof that it is whole."""
    from patchmine.shardfile import write_atomically

    whole = {"format": FORMAT, **manifest}
    text = json.dumps({**whole, "manifest_digest": digests.of_json(whole)}, indent=1)
    write_atomically(directory / MANIFEST, [text.encode() + b"\n"])


def dataset_digests(file: Path) -> dict[str, str]:
    """The digest of every dataset of an activations.h5, over its type, shape and content. Raises StoreError."""
    found: dict[str, str] = {}
    datasets = Datasets(file)
    try:
        for name, data in datasets.every():
            digest = hashlib.blake2b(f"{data.dtype.str}{data.shape}".encode(), digest_size=digests.DIGEST_BYTES)
            for block in _blocks(data):
                digest.update(block)
            found[name] = digest.hexdigest()
    finally:
        datasets.close()
    return found


def _blocks(dataset: Data) -> Iterator[bytes]:
    """A dataset's content in order, in parts of whole chunks; texts each behind their length."""
    if dataset.shape == ():
        yield bytes(dataset[()])
        return
    rows = dataset.chunks[0] if dataset.chunks else 1 << 16
    for start in range(0, len(dataset), rows):
        block = dataset[start : start + rows]
        if block.dtype == object:
            yield b"".join(len(text).to_bytes(8, "little") + text for text in block)
        else:
            yield np.ascontiguousarray(block).tobytes()


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a finished index. Raises StoreError saying how far the index is, and what to type."""
    shown = str(directory)
    if not directory.is_dir():
        raise StoreError(f"there is no index {shown!r}; build one with: patchmine index FOLDER -o {shown}")
    try:
        document = checked.read_document(directory / MANIFEST)
        if document.data.get("format") == FORMAT:
            checked.check_manifest(document)
    except FileNotFoundError:
        if (directory / SHARDS).is_dir():
            raise StoreError(
                f"the index {shown!r} is not finished; run the same `patchmine index` command again to go on"
            ) from None
        raise StoreError(f"{shown!r} is not a patchmine index: it has no {MANIFEST}") from None
    except Misfit as misfit:
        raise StoreError(
            f"{shown}/{MANIFEST} is damaged or of another version: {misfit}; build the index again with --fresh"
        ) from None
    found = document.data.get("format")
    if found != FORMAT or isinstance(found, bool):
        word = found if isinstance(found, int) and abs(found) < 1e9 else "unknown"
        raise StoreError(
            f"{shown!r} has index format {word}, and this patchmine reads {FORMAT}; build it again with --fresh"
        )
    return document.data


class Store:
    """A finished index, open for reading. Closing is optional; nothing is ever written.

    Nothing in it is believed: `checked` has looked at every value of the manifest, `Datasets` looks at each dataset
    before it is first read, and numbers that lead to another place are compared with what there is. Publishing gives
    the manifest that it is about to write; everybody else leaves it to be read.
    """

    def __init__(self, directory: Path, manifest: Mapping[str, Any] | None = None) -> None:
        self.directory = directory
        self._records: dict[int, ImageRecord] = {}
        self._texts: dict[str, tuple[str, ...]] = {}
        self.manifest = read_manifest(directory) if manifest is None else manifest
        self._file = directory / ACTIVATIONS
        try:
            self._datasets = Datasets(self._file)
        except OSError:
            state = "damaged" if self._file.exists() else "missing"
            raise StoreError(
                f"{self._file} is {state}; build the index again: patchmine index "
                f"{self.manifest['job']['source']} -o {directory} --fresh"
            ) from None
        try:
            job = self._datasets.label("job", TEXT)
            if job != self.manifest["job_digest"]:
                # Another run is publishing, or died while it did: the table is new already, the manifest old still.
                self.manifest = self.carried_manifest()
        except StoreError:
            self.close()
            raise

    def carried_manifest(self) -> dict[str, Any]:
        """What activations.h5 itself carries of its manifest. Raises StoreError where that is of another job."""
        with suppress(Misfit, StoreError):
            job = self._datasets.label("job", TEXT)
            document = parse(self._datasets.label("manifest", checked.MANIFEST_BYTES).encode())
            if document.data.get("format") == FORMAT and document.data.get("job_digest") == job:
                checked.check_manifest(document)
                return document.data
        raise StoreError(
            f"{self.directory}: {ACTIVATIONS} and {MANIFEST} are of different jobs; build the index again with --fresh"
        )

    def close(self) -> None:
        self._datasets.close()

    @property
    def images(self) -> int:
        return int(self.manifest["images"])

    @cached_property
    def channels(self) -> dict[str, int]:
        """The number of channels of each layer, in the order of the network."""
        return {entry["layer"]: int(entry["units"]) for entry in self.manifest["layers"]}

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names("class")

    def _class_names(self, name: str) -> tuple[str, ...]:
        if name not in self._texts:
            self._texts[name] = self._all_texts("images", f"{name}_name")
        return self._texts[name]

    def _all_texts(self, *place: str) -> tuple[str, ...]:
        return tuple(map(_text, self._datasets.data(*place, dtypes=["text"], shape=(None,), longest=TEXT).texts()))

    def class_codes(self) -> NDArray[np.int32]:
        """The row of `class_names` of each photograph, int32 (images,); -1 where it has no class."""
        codes: NDArray[np.int32] = self._columns["class"][:]
        if len(codes) and not -1 <= codes.min() <= codes.max() < len(self.class_names):
            raise refusal(self._file, "images/class", f"there is no class {codes.max()} or {codes.min()}")
        return codes

    def image(self, image: int) -> ImageRecord:
        """The record of one photograph; remembered, since the same ones win for many units."""
        if image not in self._records:
            self._records[image] = self._read_image(image)
        return self._records[image]

    def records(self) -> list[ImageRecord]:
        """The records of all photographs, in the order of their ids."""
        columns = {name: data.texts() if name == "path" else data[:] for name, data in self._columns.items()}
        return [self._record(columns, columns["path"][image], image) for image in range(self.images)]

    def images_of(self, digest: str) -> Int64:
        """The ids of the photographs with these bytes: none, one, or several copies."""
        return np.flatnonzero(self._columns["digest"][:] == digest.encode()).astype(np.int64)

    def _read_image(self, image: int) -> ImageRecord:
        if not 0 <= image < self.images:
            raise refusal(self._file, "images", f"there is no photograph {image} of {self.images}")
        return self._record(self._columns, self._columns["path"].text(image), image)

    def _record(self, columns: Mapping[str, Any], path: bytes, image: int) -> ImageRecord:
        code, width, height = (int(columns[name][image]) for name in ("class", "width", "height"))
        digest = bytes(columns["digest"][image])
        predicted = int(columns["prediction"][image]) if "prediction" in columns else -1
        for name, number in (("class", code), ("prediction", predicted)):
            if not -1 <= number < (len(self._class_names(name)) if number >= 0 else 0):
                raise refusal(self._file, f"images/{name}", f"there is no class {number}")
        if not (width and height and max(width, height) <= checked.COUNT):
            raise refusal(self._file, "images/width", f"no photograph has {width}x{height} pixels")
        if not _DIGEST.fullmatch(digest):
            raise refusal(self._file, "images/digest", f"that of photograph {image} is no digest")
        return ImageRecord(
            image=image,
            path=_text(path),
            digest=digest.decode(),
            size=(width, height),
            class_name=self.class_names[code] if code >= 0 else None,
            prediction=self._class_names("prediction")[predicted] if predicted >= 0 else None,
        )

    @cached_property
    def _columns(self) -> dict[str, Data]:
        """The columns of the records, opened once: opening one takes ten times as long as reading a number from it."""
        kinds = {"path": "text", "digest": "S32", "width": "u4", "height": "u4", "class": "i4"}
        if self._datasets.has("images", "prediction"):
            kinds["prediction"] = "i4"
        return {
            name: self._datasets.data("images", name, dtypes=[kind], shape=(self.images,), longest=TEXT)
            for name, kind in kinds.items()
        }

    def fields(self, layer: str) -> FieldsBySize:
        preprocessing = self.manifest["job"]["preprocessing"]
        height, width = preprocessing["crop"]
        stored = self._data(layer, "fields", dtypes=["text"], shape=(), longest=checked.FIELDS_BYTES)
        try:
            fields = checked.read_fields(
                stored.text(0), layer, self.channels[layer], self._grid(layer), (height, width)
            )
        except Misfit as misfit:
            raise refusal(self._file, f"{layer}/fields", str(misfit)) from None
        if not self._datasets.has(*_place(layer, "effective")):
            return fields
        effective = self._data(layer, "effective", dtypes=["f4"], shape=(None,), many=2 * checked.GRID)[:]
        # Rounding may take a sum of shares a little beyond 1.
        if not (len(effective) and np.isfinite(effective).all() and effective[0] >= 0 and effective[-1] <= 1.01):
            raise refusal(self._file, f"{layer}/effective", "it holds no shares")
        if (np.diff(effective) < 0).any():
            raise refusal(self._file, f"{layer}/effective", "it does not rise")
        return FieldsBySize(tuple(replace(entry, effective=effective) for entry in fields.entries))

    @property
    def has_table(self) -> bool:
        return bool(self.manifest["job"]["table"])

    def column(self, layer: str, channel: int) -> tuple[Float32, NDArray[np.integer]]:
        """Values float32 (images,) and positions (images,) of one unit. Raises StoreError without a table."""
        value, position = self.table_on_disk(layer)
        return value[:, channel], position[:, channel]

    @property
    def keep(self) -> int:
        """How many patches of each unit are kept with their vectors."""
        return int(self.manifest["job"]["keep"])

    def table(self, layer: str) -> tuple[Float32, NDArray[np.integer]]:
        """Values float32 and positions of the whole layer, both (images, units), in memory."""
        value, position = self.table_on_disk(layer)
        return value[:], position[:]

    def table_on_disk(self, layer: str) -> tuple[Data, Data]:
        """Values and positions of the whole layer, both (images, units). Raises StoreError without a table."""
        if not self.has_table:
            raise StoreError(f"{self.directory} was built with --no-table and keeps the top {self.keep} alone")
        shape = (self.images, self.channels[layer])
        return (
            self._data(layer, "value", dtypes=["f4"], shape=shape),
            self._data(layer, "position", dtypes=["u2", "u4"], shape=shape),
        )

    def top(self, layer: str, channel: int) -> tuple[Float32, Int64, Int64]:
        """Values, image ids and positions of the kept top-k of one unit, best first, empty places left out."""
        shape = (self.channels[layer], self.keep)
        value, image, position = (
            self._data(layer, "top", name, dtypes=[kind], shape=shape)[channel]
            for name, kind in (("value", "f4"), ("image", "u4"), ("position", "u4"))
        )
        filled = int(np.isfinite(value).sum())
        value, image, position = value[:filled], image[:filled].astype(np.int64), position[:filled].astype(np.int64)
        if not np.isfinite(value).all() or (value[1:] > value[:-1]).any():
            raise refusal(self._file, f"{layer}/top/value", f"that of unit {channel} is no ranking")
        if (image >= self.images).any():
            raise refusal(self._file, f"{layer}/top/image", f"there is no photograph {image.max()} of {self.images}")
        return value, image, position

    def top_of_all(self, layer: str) -> TopK:
        """The kept top-k of every unit."""
        shape = (self.channels[layer], self.keep)
        value, image, position = (
            self._data(layer, "top", name, dtypes=[kind], shape=shape)[:]
            for name, kind in (("value", "f4"), ("image", "u4"), ("position", "u4"))
        )
        return TopK(sort_keys(value, image), position.astype(np.int64))

    def stats(self, layer: str) -> dict[str, NDArray[Any]]:
        """Every statistic of the layer: `mean`, `std`, `positive`, `minimum`, `maximum`, `tied`, each (units,), and,
        with a table, `quantiles` (units, len(QUANTILES))."""
        units = self.channels[layer]
        found = {
            name: self._data(layer, "stats", name, dtypes=["i8" if name == "tied" else "f4"], shape=(units,))[:]
            for name in ("mean", "std", "positive", "minimum", "maximum", "tied")
        }
        if self.has_table:
            shape = (units, len(QUANTILES))
            found["quantiles"] = self._data(layer, "stats", "quantiles", dtypes=["f4"], shape=shape)[:]
        for name in ("mean", "std", "positive"):
            if not np.isfinite(found[name]).all():
                raise refusal(self._file, f"{layer}/stats/{name}", "it is not finite")
        if ((found["positive"] < 0) | (found["positive"] > 1)).any() or (found["std"] < 0).any():
            raise refusal(self._file, f"{layer}/stats", "its shares and spreads are none")
        if ((found["tied"] < 0) | (found["tied"] > self.images)).any():
            raise refusal(self._file, f"{layer}/stats/tied", f"it counts more than {self.images} photographs")
        if np.isnan(found["minimum"]).any() or np.isnan(found["maximum"]).any():
            raise refusal(self._file, f"{layer}/stats", "its extremes are no numbers")
        return found

    def vectors(self, layer: str) -> tuple[Data, Int64, Int64]:
        """The kept vectors, float16 (patches, channels) still on disk, with their image ids and positions."""
        vectors = self._data(layer, "vectors", dtypes=["f2"], shape=(None, self.channels[layer]))
        image, position = (
            self._data(layer, name, dtypes=["u4"], shape=(len(vectors),))[:].astype(np.int64)
            for name in ("vector_image", "vector_position")
        )
        if (image >= self.images).any():
            raise refusal(self._file, f"{layer}/vector_image", f"there is no photograph {image.max()}")
        return vectors, image, position

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The words of the labels that units have; none in an index of an older patchmine, or without a table."""
        return self._all_texts("labels", "name") if self._datasets.has("labels", "name") else ()

    def labels(self, layer: str) -> tuple[NDArray[np.int32], Float32]:
        """Row of `label_names` and area under the ROC curve of each unit of the layer; -1 and NaN without a label."""
        units = self.channels[layer]
        if not self._datasets.has(*_place(layer, "label")):
            return np.full(units, -1, np.int32), np.full(units, np.nan, np.float32)
        label = self._data(layer, "label", dtypes=["i4"], shape=(units,))[:]
        auroc = self._data(layer, "auroc", dtypes=["f4"], shape=(units,))[:]
        if ((label < -1) | (label >= len(self.label_names))).any():
            raise refusal(self._file, f"{layer}/label", f"it names labels that are none of the {len(self.label_names)}")
        if not (np.isnan(auroc) == (label < 0)).all() or (auroc < 0).any() or (auroc > 1).any():
            raise refusal(self._file, f"{layer}/auroc", "it holds no areas")
        return label, auroc

    def place(self, layer: str, place: int, grid: tuple[int, int]) -> Position:
        """The cell y * grid width + x of a grid (height, width). Raises StoreError where there is no such cell."""
        y, x = divmod(place, grid[1])
        if not 0 <= y < grid[0]:
            raise refusal(self._file, f"{layer}: position {place}", f"it is outside the grid {grid[0]}x{grid[1]}")
        return Position(y, x)

    def _grid(self, layer: str) -> tuple[int, int]:
        (grid,) = [entry["grid"] for entry in self.manifest["layers"] if entry["layer"] == layer]
        return int(grid[0]), int(grid[1])

    def _data(self, layer: str, *names: str, **expected: Any) -> Data:
        return self._datasets.data(*_place(layer, *names), **expected)


def _place(layer: str, *names: str) -> tuple[str, ...]:
    """Where something of a layer lies: a slash in a layer's name makes groups in groups."""
    return "layers", *layer.split("/"), *names


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
