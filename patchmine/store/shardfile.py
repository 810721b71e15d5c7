"""One finished shard on disk: written under a temporary name, flushed, renamed, and verified when read.

Layout: 8 bytes of magic, the length of the header (u64), a blake2b digest of that length and everything after the
digest, the header (JSON: a description of the shard, and the name, dtype, shape, and offset of each array), and the
arrays, back to back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import StoreError
from patchmine.ranking import Float32
from patchmine.sparse import Columns
from patchmine.system.atomic import write_atomically

MAGIC = b"PMSHARD1"
DIGEST_BYTES = 32
_PREFIX = len(MAGIC) + 8 + DIGEST_BYTES
_BLOCK = 1 << 20
_DTYPES = ("<f4", "<f2", "<i8", "<u4", "<u2", "|u1")


def write_shard(path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write `about` (JSON) and the arrays. A shard that is there already stays: another process was first.

    Raises OSError when the disk is full or the folder cannot be written.
    """
    stored = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    entries, offset = [], 0
    for name, array in stored.items():
        entries.append({"name": name, "dtype": array.dtype.str, "shape": list(array.shape), "offset": offset})
        offset += array.nbytes
    header = json.dumps({"about": about, "arrays": entries}).encode()
    payload: list[bytes | memoryview] = [header]
    payload += [array.reshape(-1).view(np.uint8).data for array in stored.values()]
    length = len(header).to_bytes(8, "little")
    digest = hashlib.blake2b(length, digest_size=DIGEST_BYTES)
    for chunk in payload:
        digest.update(chunk)
    write_atomically(path, [MAGIC, length, digest.digest(), *payload], replace=False)


@dataclass(frozen=True)
class ShardFile:
    """A shard whose checksum has been verified. Arrays, and the records of its photographs, are read on demand.

    `about` describes the shard without these records; `readable` tells which of its photographs could be read.
    `layout` has the place of each array in `kinds`, its dtype and shape, and in `offsets`, its first byte. What is the
    same in many shards is in memory once: an index may be merged from a hundred thousand.
    """

    path: Path
    about: dict[str, Any]
    layout: Mapping[str, int]
    kinds: Sequence[tuple[str, tuple[int, ...]]]
    offsets: NDArray[np.int64]
    readable: NDArray[np.bool_]

    @classmethod
    def open(cls, path: Path) -> ShardFile:
        """Verify and open. Raises StoreError if the file is damaged; the shard must then be recomputed."""
        with path.open("rb") as file:
            prefix = file.read(_PREFIX)
            if len(prefix) != _PREFIX or prefix[: len(MAGIC)] != MAGIC:
                raise StoreError(f"{path} is not a shard of this version of patchmine")
            length = prefix[len(MAGIC) : len(MAGIC) + 8]
            digest = hashlib.blake2b(length, digest_size=DIGEST_BYTES)
            while block := file.read(_BLOCK):
                digest.update(block)
            if digest.digest() != prefix[-DIGEST_BYTES:]:
                raise StoreError(f"{path} is damaged: its checksum does not match")
            file.seek(_PREFIX)
            header = json.loads(file.read(int.from_bytes(length, "little")))
            start = file.tell()
        arrays = header["arrays"]
        layout = _layout(tuple(entry["name"] for entry in arrays))
        kinds = tuple(_kind(entry["dtype"], tuple(entry["shape"])) for entry in arrays)
        offsets = np.array([start + entry["offset"] for entry in arrays], np.int64)
        readable = np.array([record["reason"] is None for record in header["about"].pop("images", ())], np.bool_)
        about = {**header["about"], "job": intern(header["about"]["job"])}
        return cls(path, about, layout, kinds, offsets, readable)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.kinds[self.layout[name]][1]

    @property
    def images(self) -> list[dict[str, Any]]:
        """The record of each photograph. They are read anew each time: together they would fill the memory."""
        with self.path.open("rb") as file:
            length = int.from_bytes(file.read(_PREFIX)[len(MAGIC) : len(MAGIC) + 8], "little")
            records: list[dict[str, Any]] = json.loads(file.read(length))["about"]["images"]
            return records

    def array(self, name: str) -> NDArray[Any]:
        dtype, shape, offset = self._place(name)
        with self.path.open("rb") as file:
            file.seek(offset)
            return np.fromfile(file, dtype, int(np.prod(shape))).reshape(shape)

    def table(self, prefix: str, units: slice = slice(None)) -> tuple[Float32, NDArray[np.integer]]:
        """Values and positions of some units of a layer, both (rows, units); no more than these are in memory."""
        return self.columns(prefix, units).dense() if self.sparse(prefix) else self._dense(prefix, units)

    def sparse(self, prefix: str) -> bool:
        """Whether the layer's table is stored cell by cell."""
        return f"{prefix}/start" in self.layout

    def columns(self, prefix: str, units: slice) -> Columns:
        """The stored cells of some units of a layer."""
        rows = int(self.readable.sum())
        if not self.sparse(prefix):
            return Columns.of(*self._dense(prefix, units))
        start = self.array(f"{prefix}/start")
        first, stop, _ = units.indices(len(start) - 1)
        cells = slice(int(start[first]), int(start[stop]))
        row, value, place = (self._mapped(f"{prefix}/{name}")[cells] for name in ("row", "cells", "places"))
        return Columns(rows, start[first : stop + 1] - start[first], np.array(row), np.array(value), np.array(place))

    def _dense(self, prefix: str, units: slice) -> tuple[Float32, NDArray[np.integer]]:
        value, position = (self._mapped(f"{prefix}/{name}")[:, units] for name in ("value", "position"))
        return np.array(value), np.array(position)

    def _mapped(self, name: str) -> NDArray[Any]:
        """An array whose parts are read when they are asked for."""
        dtype, shape, offset = self._place(name)
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(self.path, dtype, "r", offset, shape)

    def _place(self, name: str) -> tuple[str, tuple[int, ...], int]:
        """The dtype, shape and first byte of an array."""
        dtype, shape = self.kinds[self.layout[name]]
        assert dtype in _DTYPES, dtype
        return dtype, shape, int(self.offsets[self.layout[name]])

    def source_ids(self, shard_size: int) -> NDArray[np.int64]:
        """The source id of each row of the tables: the ids of the photographs that could be read."""
        return np.flatnonzero(self.readable).astype(np.int64) + self.about["shard"] * shard_size


@lru_cache(1024)
def _layout(names: tuple[str, ...]) -> Mapping[str, int]:
    return {name: number for number, name in enumerate(names)}


@lru_cache(1 << 16)
def _kind(dtype: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    return dtype, shape


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.shard"


def shard_numbers(folder: Path) -> set[int]:
    """The numbers of the shards in a folder; none if it is gone."""
    return {int(path.stem) for path in folder.glob("*.shard") if path.stem.isdigit()}
