"""Reads an index on disk: the manifest, and activations.h5 through `hdf5`. `writing` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import StoreError, UnreadableError
from patchmine.fields.field import FieldsBySize
from patchmine.ranking import Float32, Int64, TopK, sort_keys
from patchmine.store import checks, statistics
from patchmine.store.hdf5 import Data, Datasets, SparsePart, SparseTable, refusal
from patchmine.store.label_columns import LabelColumns, read_labels
from patchmine.system.regular_files import withheld
from patchmine.system.untrusted_json import TEXT, Misfit, parse
from patchmine.units import Position

FORMAT = 1
MANIFEST, ACTIVATIONS, PATCHES, NAMES = "manifest.json", "activations.h5", "patches.faiss", "names.json"
JOB, SHARDS, SYNTHETIC, RELEVANCE_SHARDS = "job.json", "shards", "synthetic", "relevance"

_DIGEST = re.compile(rb"[0-9a-f]{32}")


class ImageRecord(NamedTuple):
    """One photograph of the index. `size` is (width, height) after EXIF orientation."""

    image: int
    path: str
    digest: str
    size: tuple[int, int]
    class_name: str | None
    prediction: str | None = None


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a finished index. Raises StoreError that says how far the index is and what to type."""
    shown = str(directory)
    try:
        document = checks.read_document(directory / MANIFEST)
        if document.data.get("format") == FORMAT:
            checks.check_manifest(document)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_index(directory) from None
    except Misfit as misfit:
        raise StoreError(
            f"{shown}/{MANIFEST} is damaged or from another version: {misfit}; build the index again with --fresh"
        ) from None
    except OSError as error:
        raise withheld(directory / MANIFEST, error) or error from None
    found = document.data.get("format")
    if found != FORMAT or isinstance(found, bool):
        newer = isinstance(found, int) and FORMAT < found < 1e9
        way_out = "update patchmine to read it" if newer else "build it again with --fresh"
        raise StoreError(
            f"{shown!r} has index format {found if newer else 'unknown'}, but this patchmine reads format {FORMAT}; "
            f"{way_out}"
        )
    return document.data


def _no_index(directory: Path) -> StoreError:
    """The error for a place without a manifest, which says what is there instead."""
    shown = str(directory)
    if (directory / SHARDS).is_dir():
        return StoreError(
            f"the index {shown!r} is not finished; run the same `patchmine index` command again to resume"
        )
    if directory.is_dir():
        return StoreError(f"{shown!r} is not a patchmine index: it has no {MANIFEST}")
    if directory.is_symlink():
        return StoreError(f"index {shown!r} leads to {str(directory.readlink())!r}, which is missing: bring it back")
    return StoreError(f"index {shown!r} does not exist; build it with: patchmine index FOLDER -o {shown}")


class Store:
    """A finished index, open for reading. Closing is optional; nothing is ever written.

    Nothing in the index is trusted. `checks` validates every value of the manifest, and `Datasets` checks each dataset
    before its first read. Numbers that point elsewhere are checked against their range. Only publishing passes
    `manifest`, because it is about to write it; all other callers let the store read it.
    """

    def __init__(self, directory: Path, manifest: Mapping[str, Any] | None = None) -> None:
        self.directory = directory
        self._records: dict[int, ImageRecord] = {}
        self._texts: dict[str, tuple[str, ...]] = {}
        self._sparse: dict[str, SparseTable] = {}
        self.manifest = read_manifest(directory) if manifest is None else manifest
        self._file = directory / ACTIVATIONS
        try:
            self._datasets = Datasets(self._file)
        except OSError:
            state = "damaged" if self._file.exists() else "missing"
            if self._file.is_symlink():
                state = f"{state}: it leads to {str(self._file.readlink())!r}"
            raise StoreError(
                f"{self._file} is {state}; build the index again: patchmine index "
                f"{self.manifest['job']['source']} -o {directory} --fresh"
            ) from None
        try:
            job = self._datasets.label("job", TEXT)
            if job != self.manifest["job_digest"]:
                # Another run is publishing, or died while publishing: the table is new, the manifest still old.
                self.manifest = self.carried_manifest()
        except StoreError:
            self.close()
            raise

    def carried_manifest(self) -> dict[str, Any]:
        """The copy of the manifest inside activations.h5. Raises StoreError if it belongs to another job."""
        try:
            job = self._datasets.label("job", TEXT)
            document = parse(self._datasets.label("manifest", checks.MANIFEST_BYTES).encode())
            if document.data.get("format") == FORMAT and document.data.get("job_digest") == job:
                checks.check_manifest(document)
                return document.data
        except UnreadableError:
            raise
        except (Misfit, StoreError):
            pass
        raise StoreError(
            f"{self.directory}: {ACTIVATIONS} and {MANIFEST} come from different jobs; "
            "build the index again with --fresh"
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

    @cached_property
    def widths(self) -> dict[str, int]:
        """The length of the vectors of each layer: its channels, in a virtual layer those of the layer below it."""
        return {entry["layer"]: int(entry.get("width", entry["units"])) for entry in self.manifest["layers"]}

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
        """The row of `class_names` for each photograph, int32 (images,); -1 for a photograph without a class."""
        codes: NDArray[np.int32] = self._numbers["class"][:]
        if len(codes) and not -1 <= codes.min() <= codes.max() < len(self.class_names):
            raise refusal(
                self._file,
                "images/class",
                f"it names classes {codes.min()} to {codes.max()} of {len(self.class_names)}",
            )
        return codes

    def image(self, image: int) -> ImageRecord:
        """The record of one photograph, cached because the same photographs win for many units."""
        if image not in self._records:
            self.fetch([image])
        return self._records[image]

    def fetch(self, images: Iterable[int]) -> None:
        """Read the records of photographs at once: reaching a column costs far more than reading numbers from it."""
        rows = sorted({*images} - self._records.keys())
        if not rows:
            return
        for image in (row for row in rows if not 0 <= row < self.images):
            raise refusal(self._file, "images", f"photograph {image} is out of range: the index has {self.images}")
        columns = {name: dict(zip(rows, data[rows], strict=True)) for name, data in self._numbers.items()}
        for image in rows:
            self._records[image] = self._record(columns, self._paths.text(image), image)

    def records(self) -> list[ImageRecord]:
        """The records of all photographs, in the order of their ids."""
        columns = {name: data[:] for name, data in self._numbers.items()}
        return [self._record(columns, path, image) for image, path in enumerate(self._paths.texts())]

    def images_of(self, digest: str) -> Int64:
        """The ids of the photographs with this digest: none, one, or several copies."""
        return np.flatnonzero(self._numbers["digest"][:] == digest.encode()).astype(np.int64)

    def _record(self, columns: Mapping[str, Any], path: bytes, image: int) -> ImageRecord:
        code, width, height = (int(columns[name][image]) for name in ("class", "width", "height"))
        digest = bytes(columns["digest"][image])
        predicted = int(columns["prediction"][image]) if "prediction" in columns else -1
        for name, number in (("class", code), ("prediction", predicted)):
            if not -1 <= number < (len(self._class_names(name)) if number >= 0 else 0):
                raise refusal(self._file, f"images/{name}", f"class {number} is out of range")
        if not (width and height and max(width, height) <= checks.COUNT):
            raise refusal(self._file, "images/width", f"photograph {image} cannot have {width}x{height} pixels")
        if not _DIGEST.fullmatch(digest):
            raise refusal(self._file, "images/digest", f"the digest of photograph {image} is malformed")
        return ImageRecord(
            image=image,
            path=_text(path),
            digest=digest.decode(),
            size=(width, height),
            class_name=self.class_names[code] if code >= 0 else None,
            prediction=self._class_names("prediction")[predicted] if predicted >= 0 else None,
        )

    @cached_property
    def _paths(self) -> Data:
        return self._datasets.data("images", "path", dtypes=["text"], shape=(self.images,), longest=TEXT)

    @cached_property
    def _numbers(self) -> dict[str, Data]:
        """The columns of the records but for the paths."""
        kinds = {"digest": "S32", "width": "u4", "height": "u4", "class": "i4"}
        if self._datasets.has("images", "prediction"):
            kinds["prediction"] = "i4"
        return {
            name: self._datasets.data("images", name, dtypes=[kind], shape=(self.images,))
            for name, kind in kinds.items()
        }

    def fields(self, layer: str) -> FieldsBySize:
        preprocessing = self.manifest["job"]["preprocessing"]
        height, width = preprocessing["crop"]
        stored = self._data(layer, "fields", dtypes=["text"], shape=(), longest=checks.FIELDS_BYTES)
        try:
            fields = checks.read_fields(stored.text(0), layer, self.channels[layer], self._grid(layer), (height, width))
        except Misfit as misfit:
            raise refusal(self._file, f"{layer}/fields", str(misfit)) from None
        if not self._datasets.has(*_place(layer, "effective")):
            return fields
        effective = self._data(layer, "effective", dtypes=["f4"], shape=(None,), many=2 * checks.GRID)[:]
        # Rounding may push a cumulative share slightly above 1.
        if not (len(effective) and np.isfinite(effective).all() and effective[0] >= 0 and effective[-1] <= 1.01):
            raise refusal(self._file, f"{layer}/effective", "its values are not shares from 0 to 1")
        if (np.diff(effective) < 0).any():
            raise refusal(self._file, f"{layer}/effective", "its values decrease")
        return FieldsBySize(tuple(replace(entry, effective=effective) for entry in fields.entries))

    def token_norm(self, layer: str) -> tuple[float, float] | None:
        """The median and the robust deviation of the norms of a layer's tokens; None without tokens on a grid."""
        if not self._datasets.has(*_place(layer, "token_norm")):
            return None
        median, deviation = self._data(layer, "token_norm", dtypes=["f4"], shape=(2,))[:].tolist()
        if not (0 <= median < np.inf and 0 <= deviation < np.inf):
            raise refusal(self._file, f"{layer}/token_norm", "its values are not norms")
        return median, deviation

    @property
    def has_table(self) -> bool:
        return bool(self.manifest["job"]["table"])

    def column(self, layer: str, channel: int) -> tuple[Float32, NDArray[np.integer]]:
        """Values float32 (images,) and positions (images,) of one unit. Raises StoreError without a table."""
        value, position = self.table_on_disk(layer)
        return value[:, channel], position[:, channel]

    @property
    def keep(self) -> int:
        """The number of patches whose vectors are kept for each unit."""
        return int(self.manifest["job"]["keep"])

    def table(self, layer: str) -> tuple[Float32, NDArray[np.integer]]:
        """Values float32 and positions of the whole layer, both (images, units), in memory."""
        value, position = self.table_on_disk(layer)
        return value[:], position[:]

    def table_on_disk(self, layer: str) -> tuple[Data | SparsePart, Data | SparsePart]:
        """Values and positions of the whole layer, both (images, units). Raises StoreError without a table."""
        if not self.has_table:
            raise StoreError(
                f"{self.directory} was built with --no-table and keeps only the top {self.keep}; "
                "build another index without --no-table, with -o DIR"
            )
        if self._datasets.has(*_place(layer, "sparse")):
            if layer not in self._sparse:
                self._sparse[layer] = self._sparse_table(layer)
            return self._sparse[layer].value, self._sparse[layer].position
        shape = (self.images, self.channels[layer])
        return (
            self._data(layer, "value", dtypes=["f4"], shape=shape),
            self._data(layer, "position", dtypes=["u2", "u4"], shape=shape),
        )

    def _sparse_table(self, layer: str) -> SparseTable:
        start = self._data(layer, "sparse", "start", dtypes=["i8"], shape=(self.channels[layer] + 1,))
        kinds = {"row": ["u4"], "value": ["f4"], "position": ["u2", "u4"]}
        cells = {name: self._data(layer, "sparse", name, dtypes=kind, shape=(None,)) for name, kind in kinds.items()}
        ends, counts = start[:], {len(data) for data in cells.values()}
        if ends[0] != 0 or counts != {ends[-1]} or (np.diff(ends) < 0).any():
            raise refusal(self._file, f"{layer}/sparse/start", f"its units do not hold the {max(counts)} cells")
        return SparseTable({"start": start, **cells}, self.images)

    def top(self, layer: str, channel: int) -> tuple[Float32, Int64, Int64]:
        """Values, image ids, and positions of the kept top-k of one unit, best first, without the empty places."""
        shape = (self.channels[layer], self.keep)
        value, image, position = (
            self._data(layer, "top", name, dtypes=[kind], shape=shape)[channel]
            for name, kind in (("value", "f4"), ("image", "u4"), ("position", "u4"))
        )
        filled = int(np.isfinite(value).sum())
        value, image, position = value[:filled], image[:filled].astype(np.int64), position[:filled].astype(np.int64)
        if not np.isfinite(value).all() or (value[1:] > value[:-1]).any():
            raise refusal(self._file, f"{layer}/top/value", f"the values of unit {channel} are not a ranking")
        if (image >= self.images).any():
            raise refusal(
                self._file,
                f"{layer}/top/image",
                f"photograph {image.max()} is out of range: the index has {self.images}",
            )
        return value, image, position

    def best(self, layer: str, channel: int, k: int) -> tuple[Float32, Int64, NDArray[np.integer]] | None:
        """The best k of `top`; None if the index keeps too few to know them."""
        values, images, positions = self.top(layer, channel)
        if k > self.keep <= len(values):
            return None
        return values[:k], images[:k], positions[:k]

    def top_of_all(self, layer: str) -> TopK:
        """The kept top-k of every unit."""
        shape = (self.channels[layer], self.keep)
        value, image, position = (
            self._data(layer, "top", name, dtypes=[kind], shape=shape)[:]
            for name, kind in (("value", "f4"), ("image", "u4"), ("position", "u4"))
        )
        return TopK(sort_keys(value, image), position.astype(np.int64))

    def stats(self, layer: str) -> dict[str, NDArray[Any]]:
        """All statistics of the layer: `mean`, `std`, `positive`, `minimum`, `maximum`, `tied`, each (units,). With a
        table also `quantiles` (units, len(statistics.QUANTILES))."""
        units = self.channels[layer]
        found = {
            name: self._data(layer, "stats", name, dtypes=["i8" if name == "tied" else "f4"], shape=(units,))[:]
            for name in ("mean", "std", "positive", "minimum", "maximum", "tied")
        }
        if self.has_table:
            shape = (units, len(statistics.QUANTILES))
            found["quantiles"] = self._data(layer, "stats", "quantiles", dtypes=["f4"], shape=shape)[:]
        wrong = statistics.wrong(found, self.images)
        if wrong is not None:
            raise refusal(self._file, f"{layer}/stats{wrong[0]}", wrong[1])
        return found

    def vectors(self, layer: str) -> tuple[Data, Int64, Int64]:
        """The kept vectors, float16 (patches, width), still on disk, with their image ids and positions."""
        vectors = self._data(layer, "vectors", dtypes=["f2"], shape=(None, self.widths[layer]))
        image, position = (
            self._data(layer, name, dtypes=["u4"], shape=(len(vectors),))[:].astype(np.int64)
            for name in ("vector_image", "vector_position")
        )
        if (image >= self.images).any():
            why = f"photograph {image.max()} is out of range: the index has {self.images}"
            raise refusal(self._file, f"{layer}/vector_image", why)
        return vectors, image, position

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The words of labels and commonest classes; empty for an index of an older patchmine or without a table."""
        return self._all_texts("labels", "name") if self._datasets.has("labels", "name") else ()

    def labels(self, layer: str) -> LabelColumns:
        """The labels of the layer's units, as rows of `label_names`, and how far they hold."""
        return read_labels(self._datasets, _place(layer), self.channels[layer], len(self.label_names))

    def place(self, layer: str, place: int, grid: tuple[int, int]) -> Position:
        """The cell y * grid width + x of a grid (height, width). Raises StoreError if the cell does not exist."""
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
    """The place of a layer's data: a slash in the layer's name makes nested groups."""
    return "layers", *layer.split("/"), *names


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
