"""One file by its name, which is a path or the URL of a bucket: is it there, how long is it, what do its bytes say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from patchmine.buckets import objects
from patchmine.buckets.urls import is_url
from patchmine.errors import SourceError
from patchmine.system import digests, regular_files
from patchmine.system.atomic import write_atomically
from patchmine.system.caches import user_cache

WINDOW = 8 << 20
"""Bytes to fetch at once from a bucket while a table of contents is read: waiting costs more than these bytes."""

_AT_ONCE = 16


@dataclass
class File:
    """An open file. `version` changes when its content does, and `read(size, offset)` gives fewer bytes at its end.

    `kept` holds small pieces of a file in a bucket by offset, so that they are not fetched again.
    """

    size: int
    version: str
    read: Callable[[int, int], bytes]
    remote: bool = False
    kept: dict[int, bytes] = field(default_factory=dict)


@contextmanager
def opened(name: str) -> Iterator[File]:
    """Open a file. Raises OSError for a path, SourceError for a URL."""
    if not is_url(name):
        with regular_files.opened(name) as descriptor:
            status = os.fstat(descriptor)
            yield File(status.st_size, str(status.st_mtime_ns), partial(regular_files.read_at, descriptor))
        return
    place = _place(name)
    if place is None:
        raise SourceError(f"{name!r} not found")
    yield File(place.size, place.version, _Window(name, place.size).read, True)


def there(names: Iterable[str]) -> set[str]:
    """Those of the files that exist; asks a bucket anew."""
    _place.cache_clear()
    names = list(names)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {name for name, found in zip(names, pool.map(is_there, names), strict=True) if found}


def is_there(name: str) -> bool:
    return _place(name) is not None if is_url(name) else regular_files.is_there(name)


def warmed(work: Callable[[str], Any], names: Iterable[str]) -> None:
    """Do the work on all files in buckets, many at a time; it remembers its results by itself."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(work, [name for name in names if is_url(name)]))


@lru_cache(100_000)
def _place(url: str) -> objects.Place | None:
    return objects.place(url)


class _Window:
    """Reads a file in a bucket through one window, which moves on with whoever reads from front to back."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._start, self._bytes = url, size, 0, b""

    def read(self, size: int, offset: int) -> bytes:
        stop = min(offset + size, self._size)
        if not 0 <= offset < stop:
            return b""
        if offset < self._start or stop > self._start + len(self._bytes):
            self._bytes = objects.read(self._url, offset, min(max(stop, offset + WINDOW), self._size))
            self._start = offset
        return self._bytes[offset - self._start : stop - self._start]


def remembered(name: str, file: File, make: Callable[[], list[list[Any]]]) -> list[list[Any]]:
    """A table about a file in a bucket, made once for each version of it and cached for the user with what it kept."""
    cache = user_cache() / "tables" / f"{digests.of_json([name, file.version, file.size])}.json"
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        document = json.loads(cache.read_bytes())
        rows: list[list[Any]] = document["rows"]
        file.kept |= {int(at): text.encode("latin-1") for at, text in document["kept"].items()}
        return rows
    rows = make()
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        kept = {at: data.decode("latin-1") for at, data in file.kept.items()}
        write_atomically(cache, [json.dumps({"rows": rows, "kept": kept}).encode()])
    return rows


def joined(folder: str, path: str) -> str:
    """The name of a file by its path relative to a folder, or by its own URL or absolute path."""
    if is_url(path):
        return path
    if is_url(folder):
        return f"{folder.rstrip('/')}/{path}"
    return str(Path(folder) / path)
