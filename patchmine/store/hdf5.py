"""Reads activations.h5 from untrusted sources: a dataset that does not match the layout is not read.

An HDF5 file can lead into other files (soft and external links, virtual and external datasets). It can be a thousand
times larger when unpacked (filters, shapes without data, texts with a claimed length), or hold anything else. Patchmine
never writes such things, so all of them are refused, before the first byte of a dataset is read and without using more
memory than the file has bytes. Only parsing the descriptions of the datasets is left to libhdf5.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5o, h5t
from numpy.typing import NDArray

from patchmine.errors import StoreError, UnreadableError
from patchmine.store.hdf5_claims import TEXT_AT, claimed_length
from patchmine.system import digests
from patchmine.system.regular_files import withheld

# Exceptions that h5py raises for damage, depending on where libhdf5 notices it.
DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, OverflowError, struct.error)

_MARKED, _NO_MEMORY = "already open for write", "memory allocation failed"
"""What libhdf5 says without an errno: a program marks a file that it opens for writing, and memory runs out."""

_NUMBER = re.compile(r"errno = (\d+)")
"""h5py carries the errno of some exceptions only in their text."""

CHUNK_BYTES = 16 << 20
"""The largest chunk that is read, in bytes. Written chunks have at most 2 MB."""


class Data:
    """A dataset whose type, shape, and place in the file have been checked."""

    def __init__(self, dataset: h5d.DatasetID, file: Path, place: str, longest: int) -> None:
        self._dataset = h5py.Dataset(dataset, readonly=True)
        self._file, self._place, self._longest = file, place, longest
        self._offset: int | None = dataset.get_offset()
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = self._dataset.dtype
        self.chunks: tuple[int, ...] | None = self._dataset.chunks

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: Any) -> Any:
        """Index like an h5py dataset. Raises StoreError if the file turns out to be damaged."""
        try:
            return self._dataset[where]
        except DAMAGE as error:
            raise fault(self._file, self._place, error) from None

    def text(self, row: int) -> bytes:
        """One text of a dataset of texts, no longer than the limit given when the dataset was opened."""
        self.check_texts(row, 1)
        return bytes(self[row] if self.shape else self[()])

    def texts(self) -> list[bytes]:
        """All texts, together no longer than the file: many rows could share one text."""
        total = self.check_texts(0, len(self))
        if total > self._file.stat().st_size:
            raise refusal(self._file, self._place, "its texts are longer than the file")
        return [bytes(text) for text in self[:]]

    def check_texts(self, start: int, count: int) -> int:
        """The total length of the texts as the file claims it; libhdf5 would allocate this much before looking."""
        if not count or self._offset is None:
            return 0
        try:
            with self._file.open("rb") as file:
                file.seek(self._offset + start * TEXT_AT.size)
                lengths = [length for length, _, _ in TEXT_AT.iter_unpack(file.read(count * TEXT_AT.size))]
        except DAMAGE as error:
            raise fault(self._file, self._place, error) from None
        if len(lengths) != count or max(lengths) > self._longest:
            raise refusal(self._file, self._place, f"it claims a text of more than {self._longest} bytes")
        return sum(lengths)


class SparseTable:
    """A table (images, units) that is stored cell by cell, as `sparse.Columns`: `value` and `position` are its parts,
    which are indexed as datasets are, with images, or with images and units."""

    def __init__(self, cells: Mapping[str, Any], images: int) -> None:
        """`cells` are the datasets `start`, `row`, `value` and `position`."""
        self._cells, self.start = cells, np.asarray(cells["start"][:])
        self.shape = (images, len(self.start) - 1)
        self.value, self.position = (SparsePart(self, name, cells[name].dtype) for name in ("value", "position"))

    def dense(self, name: str, units: slice) -> NDArray[Any]:
        """A part of some units (images, units). Raises StoreError if a cell lies outside the table."""
        first, stop, _ = units.indices(self.shape[1])
        cells = slice(int(self.start[first]), int(self.start[stop]))
        row, unit = self._cells["row"][cells], np.repeat(np.arange(stop - first), np.diff(self.start[first : stop + 1]))
        if len(row) and int(row.max()) >= self.shape[0]:
            raise StoreError(f"the index is damaged: a table has a cell of photograph {row.max()}; build it again")
        found = np.zeros((self.shape[0], stop - first), self._cells[name].dtype)
        found[row, unit] = self._cells[name][cells]
        return found


class SparsePart:
    """Values or positions of a sparse table."""

    def __init__(self, table: SparseTable, name: str, dtype: np.dtype[Any]) -> None:
        self.table, self.name, self.dtype = table, name, dtype

    @property
    def shape(self) -> tuple[int, int]:
        return self.table.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: Any) -> Any:
        rows, units = where if isinstance(where, tuple) else (where, slice(None))
        if isinstance(units, slice):
            return np.concatenate([self.table.dense(self.name, some)[rows] for some in _parts(units, self.shape[1])], 1)
        return self.table.dense(self.name, slice(int(units), int(units) + 1))[rows, 0]


def _parts(units: slice, count: int) -> Iterator[slice]:
    """Units in blocks, so that few are in memory with all their rows."""
    from patchmine.sparse import UNITS

    first, stop, _ = units.indices(count)
    for start in range(first, max(stop, first + 1), UNITS):
        yield slice(start, min(start + UNITS, stop))


class Datasets:
    """The datasets of one file, each checked on first use."""

    def __init__(self, file: Path) -> None:
        """Open the file. Raises OSError if it is missing or no HDF5 file, StoreError for any other fault."""
        self.file = file
        try:
            status = file.stat()
            if not S_ISREG(status.st_mode):
                raise StoreError(f"{file} is not a regular file; build the index again with --fresh")
            self._h5 = _opened(file)
        except OSError as error:
            raise _withheld(file, error) or error from None
        self.size = status.st_size
        try:
            self._groups: dict[tuple[str, ...], h5py.h5g.GroupID] = {(): h5o.open(self._h5.id, b"/")}
        except DAMAGE as error:
            self._h5.close()
            raise fault(file, "/", error) from None
        self._data: dict[str, Data] = {}

    def close(self) -> None:
        self._h5.close()

    def label(self, name: str, longest: int) -> str:
        """The text of an attribute of the file. Raises StoreError if it is missing or not a text."""
        shown = f"attribute {name}"
        try:
            with self.file.open("rb") as file:
                length = claimed_length(file, h5o.get_info(self._h5.id).addr, name.encode())
            if length > longest:
                raise refusal(self.file, shown, f"it claims a text of more than {longest} bytes")
            text = self._h5.attrs[name]
        except DAMAGE as error:
            raise fault(self.file, shown, error) from None
        if not isinstance(text, str):
            raise refusal(self.file, shown, "it is not a text")
        return text

    def has(self, *place: str) -> bool:
        """Whether anything has this name, of whatever kind."""
        try:
            group = self._group(place[:-1])
            return group is not None and place[-1].encode("utf-8", "surrogateescape") in group
        except DAMAGE as error:
            raise fault(self.file, "/".join(place), error) from None

    def data(
        self,
        *place: str,
        dtypes: Sequence[str],
        shape: tuple[int | None, ...],
        longest: int = 0,
        many: int | None = None,
    ) -> Data:
        """The dataset at `place`, given as one name per level.

        `dtypes` are the allowed dtypes in numpy's notation, or `text` for texts of up to `longest` bytes. In `shape`,
        None accepts any length up to `many`. Raises StoreError for anything else.
        """
        shown = "/".join(place)
        if shown not in self._data:
            try:
                found = self._open(place)
                reason = self._misfit(found, dtypes, shape, many)
            except DAMAGE as error:
                raise fault(self.file, shown, error) from None
            if reason is not None:
                raise refusal(self.file, shown, reason)
            self._data[shown] = Data(found, self.file, shown, longest)
        return self._data[shown]

    def every(self) -> Iterator[tuple[str, Data]]:
        """All datasets with their names, each with all of its bytes in the file. Raises StoreError for a dataset stored
        elsewhere; links are not followed."""
        names: list[str] = []
        try:
            self._h5.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        except DAMAGE as error:
            raise fault(self.file, "/", error) from None
        for name in names:
            try:
                found = self._open(tuple(name.split("/")))
                reason = self._misplaced(found)
                data = Data(found, self.file, name, self.size)
            except DAMAGE as error:
                raise fault(self.file, name, error) from None
            if reason is not None:
                raise refusal(self.file, name, reason)
            if _is_type(found.get_type(), "text"):
                data.check_texts(0, prod(data.shape))
            yield name, data

    def _group(self, place: tuple[str, ...]) -> h5py.h5g.GroupID | None:
        """The group at a place, or None if there is no group."""
        if place not in self._groups:
            parent = self._group(place[:-1])
            try:
                found = None if parent is None else _hard(parent, place[-1])
            except DAMAGE as error:
                unread = _withheld(self.file, error)
                if unread is not None:
                    raise unread from None
                found = None
            if not isinstance(found, h5py.h5g.GroupID):
                return None
            self._groups[place] = found
        return self._groups[place]

    def _open(self, place: tuple[str, ...]) -> Any:
        parent = self._group(place[:-1])
        if parent is None:
            raise KeyError("it is missing")
        return _hard(parent, place[-1])

    def _misfit(self, found: Any, dtypes: Sequence[str], shape: tuple[int | None, ...], many: int | None) -> str | None:
        """Why this is not the dataset that the layout describes, or None."""
        if not isinstance(found, h5d.DatasetID):
            return "it is not a dataset"
        if not any(_is_type(found.get_type(), dtype) for dtype in dtypes):
            return f"it does not hold {' or '.join(dtypes)}"
        if found.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            return "it has no shape"
        if len(found.shape) != len(shape) or any(
            wanted is not None and wanted != length for length, wanted in zip(found.shape, shape, strict=True)
        ):
            return f"its shape is {found.shape}, not {tuple('any' if n is None else n for n in shape)}"
        if many is not None and max(found.shape) > many:
            return f"its shape is {found.shape}, more than {many}"
        return self._misplaced(found)

    def _misplaced(self, found: h5d.DatasetID) -> str | None:
        """Why the dataset's bytes do not all lie separately in the file, or None."""
        plist = found.get_create_plist()
        kind = found.get_type()
        # For a text, libhdf5 reports the size of a pointer to it.
        item = TEXT_AT.size if _is_type(kind, "text") else kind.get_size()
        if plist.get_nfilters() or plist.get_external_count():
            return "it is compressed or lies in another file"
        needed = prod(found.shape) * item
        if plist.get_layout() == h5d.CONTIGUOUS:
            start = found.get_offset() or 0
        elif plist.get_layout() == h5d.CHUNKED:
            chunk = plist.get_chunk()
            chunk_bytes = prod(chunk) * item
            if chunk_bytes > CHUNK_BYTES:
                return f"its chunks have {chunk_bytes} bytes, more than {CHUNK_BYTES}"
            needed = prod(-(-length // part) for length, part in zip(found.shape, chunk, strict=True)) * chunk_bytes
            start = 0
        else:
            return "it is stored in a way that patchmine does not write"
        if needed > self.size or found.get_storage_size() != needed or start + needed > self.size:
            return f"its shape is {found.shape}, but the file does not hold that much data"
        return None


def dataset_digests(file: Path) -> dict[str, str]:
    """The digest of every dataset of an activations.h5, over its type, shape and content. Raises StoreError."""
    found: dict[str, str] = {}
    datasets = Datasets(file)
    try:
        for name, data in datasets.every():
            digest = digests.begun(f"{data.dtype.str}{data.shape}".encode())
            for block in _blocks(data):
                digest.update(block)
            found[name] = digest.hexdigest()
    finally:
        datasets.close()
    return found


def _blocks(dataset: Data) -> Iterator[bytes]:
    """The content of a dataset in order, in blocks of whole chunks. Each text follows its length."""
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


def _opened(file: Path) -> h5py.File:
    """The file, also where it cannot be locked: patchmine replaces files and never writes into them.

    Where this process has the file open already, libhdf5 wants the same way of locking again: so the default comes
    first, which a user's own h5py.File has too. Raises OSError.
    """
    try:
        return h5py.File(file, "r")
    except OSError as error:
        if "lock" not in str(error):
            raise
        for locking in (False, True):
            with suppress(OSError):
                return h5py.File(file, "r", locking=locking)
        raise


def fault(file: Path, place: str, error: Exception) -> StoreError:
    """The error for what h5py raised at a place of the file: the system withholds it, or it is damaged."""
    return _withheld(file, error) or refusal(file, place, _reason(error))


def _withheld(file: Path, error: Exception) -> StoreError | None:
    """As `withheld`, also for what libhdf5 says in words alone."""
    said = str(error)
    if _MARKED in said:
        return UnreadableError(
            f"{file} cannot be read: another program has it open for writing, or ended without closing it; close that "
            f"program, or, if there is none, remove its mark with: h5clear -s {file}"
        )
    found = _NUMBER.search(said)
    return withheld(file, error, int(found[1]) if found else errno.ENOMEM if _NO_MEMORY in said else None)


def refusal(file: Path, place: str, reason: str) -> StoreError:
    return StoreError(
        f"{file} is damaged or from another version: {place}: {reason}; build the index again with --fresh"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())[:200] or type(error).__name__


def _hard(parent: h5py.h5g.GroupID, name: str) -> Any:
    """The object under a name of a group. Links to another place or file are not followed."""
    word = name.encode("utf-8", "surrogateescape")
    if word not in parent:
        raise KeyError("it is missing")
    if parent.links.get_info(word).type != h5l.TYPE_HARD:
        raise KeyError("it is a link to another place")
    return h5o.open(parent, word)


def _is_type(found: h5t.TypeID, dtype: str) -> bool:
    if dtype == "text":
        return isinstance(found, h5t.TypeStringID) and found.is_variable_str()
    return any(found.equal(h5t.py_create(np.dtype(order + dtype))) for order in "<>")
