"""A folder in a bucket and its copy on this machine, in the user's cache: HDF5 and FAISS need files.

A file is fetched once for each version of it. Files that were written into the copy are delivered one by one, each
whole. The bucket decides: a file that has changed there replaces that of the copy. Every command that opens a folder
asks for one listing of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

from patchmine.buckets import copies, objects, room
from patchmine.buckets.objects import Place
from patchmine.errors import PhotographError, SourceError, StoreError
from patchmine.system import digests
from patchmine.system.atomic import write_atomically
from patchmine.system.caches import user_cache
from patchmine.system.regular_files import NO_LOCKS

REQUESTS = 16
"""Files that are fetched or delivered at a time."""

PART = 8 << 20
"""Bytes of one request for a part of a large file."""

T = TypeVar("T")
Version = tuple[str, int, int]  # in the bucket; size and time of the file here

_STATE = "versions.jsonl"
_NOT_DELIVERED = (".tmp", ".lock", ".log")


class Copy:
    """The folder at `url` and its copy in `directory`. Safe to use from any thread.

    `first` are the names in the folder that are fetched when it is opened; the others are fetched when `bring` asks for
    them. What is below the names `apart` is neither fetched nor delivered unless asked for by its path. `last` is the
    file that proves the others, and is delivered after them.

    Raises RequestError if the environment's bound for all copies is no size.
    """

    def __init__(self, url: str, first: Collection[str], apart: Collection[str], last: str) -> None:
        self.url, self.directory = url, folder_of(url)
        self._first, self._apart, self._last = first, apart, last
        self._state = self.directory.with_name(_STATE)
        self._left: set[str] = set()  # by earlier commands, which could not deliver it
        self._known: dict[str, Version] = {}
        self.listing: dict[str, Place] = {}
        """What the bucket held when it was last asked, by path."""
        room.most_bytes()
        copies.opened.setdefault(self.directory, self)

    def ask(self) -> dict[str, Place]:
        """Ask the bucket what the folder holds; nothing if it is not there. Raises StoreError."""
        with self._speaking():
            self.listing = {path: place for path, place in objects.held(self.url).items() if _is_safe(path)}
        return self.listing

    def refresh(self, first: Collection[str] | None = None) -> None:
        """Ask the bucket, fetch anew what has changed there, and fetch the names `first`. Raises StoreError."""
        with self._held():
            self.ask()
            self._read_state()
            self._left = set(self.changed())
            for path, (version, *_) in list(self._known.items()):
                if path not in self.listing:
                    (self.directory / path).unlink(missing_ok=True)
                if path not in self.listing or self.listing[path].version != version:
                    del self._known[path]
            first = self._first if first is None else first
            self._fetch(path for path in self._ours() if _top(path) in first)
            for path in self._ours():
                if path not in self._known:
                    (self.directory / path).unlink(missing_ok=True)
            for folder in {_top(path) if "/" in path else "" for path in self.listing}:
                (self.directory / folder).mkdir(parents=True, exist_ok=True)  # `bring` may fill it
            lines = (self._line(path) for path in self._known)
            write_atomically(self._state, [line.encode() for line in lines], synced=False)
        copies.opened[self.directory] = self

    def bring(self, file: Path) -> None:
        """Fetch a file of the copy unless it is here. Raises StoreError."""
        path = file.relative_to(self.directory).as_posix()
        if path in self.listing and self._is_wanted(path):
            with self._held():
                self._fetch([path])

    def bring_all(self) -> None:
        """Fetch all files of the copy that are not here. Raises StoreError."""
        with self._held():
            self._fetch(self._ours())

    def fetch(self, paths: Iterable[str]) -> None:
        """Fetch these files that are `apart`, unless they are here. Raises StoreError."""
        with self._speaking():
            _at_once(self._fetch_one, [path for path in paths if not (self.directory / path).exists()])

    def read(self, path: str) -> bytes:
        """The content of a file in the bucket. Raises StoreError."""
        with self._speaking():
            return objects.read(f"{self.url}/{path}")

    def put(self, path: str) -> None:
        """Deliver one file of the copy. Raises StoreError."""
        with self._speaking():
            self.listing[path] = objects.write(f"{self.url}/{path}", self.directory / path)

    def remove(self, folder: str, last: str) -> None:
        """Remove all below a folder from the bucket, the file `last` at the end. Raises StoreError."""
        paths = [path for path in self.listing if path.startswith(f"{folder}/")]
        with self._speaking():
            objects.remove([f"{self.url}/{path}" for path in sorted(paths, key=lambda path: (path == last, path))])
        for path in paths:
            del self.listing[path]

    def deliver(self, own: bool = False) -> None:
        """Put every file that was written here into the bucket, `last` after the others.

        Raises StoreError if the bucket cannot be written, or holds another version of such a file than the one that was
        fetched; with `own` it is replaced.
        """
        with self._held():
            self._read_state()
            changed = sorted(self.changed())
            if not changed:
                return
            self.ask()
            for path in changed:
                there = self.listing.get(path)
                if not own and there is not None and there.version != self._known.get(path, ("",))[0]:
                    raise StoreError(f"'{self.url}/{path}' has changed meanwhile: repeat the command")
            _at_once(self._put_known, [path for path in changed if path != self._last])
            _at_once(self._put_known, [path for path in changed if path == self._last])

    def has_news(self) -> bool:
        """Whether anything is still to be delivered that was not there when the copy was opened."""
        return not self._left.issuperset(self.changed())

    def _put_known(self, path: str) -> None:
        status = (self.directory / path).stat()
        self.put(path)
        self._remember(path, status)

    def changed(self) -> Iterator[str]:
        """The files that were written here since they were fetched or delivered."""
        return _changed(self.directory, self._known, self._apart)

    def _ours(self) -> list[str]:
        return [path for path in self.listing if _top(path) not in self._apart]

    def _is_wanted(self, path: str) -> bool:
        return path not in self._known or not (self.directory / path).exists()

    def _fetch(self, paths: Iterable[str]) -> None:
        """Fetch these files unless they are here, and remember their versions."""
        wanted = [path for path in paths if self._is_wanted(path)]
        _at_once(self._fetch_known, wanted)
        if wanted:
            room.make_room(self.directory.parents[1], _holds_more_than_its_bucket)

    def _fetch_known(self, path: str) -> None:
        if self._fetch_one(path):
            self._remember(path, (self.directory / path).stat())

    def _fetch_one(self, path: str) -> bool:
        """Fetch a file; False if it is gone."""
        url, target = f"{self.url}/{path}", self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        place: Place | None = self.listing[path]
        while place is not None:
            try:
                _download(url, place.size, target)
            except PhotographError:
                break
            # A large file is fetched in parts, which must be of one version.
            before, place = place, place if place.size <= PART else objects.place(url)
            if place == before:
                self.listing[path] = place
                return True
        return False

    def _remember(self, path: str, status: os.stat_result) -> None:
        """Note that the file here is that of the bucket, so that also a killed process has noted it."""
        self._known[path] = self.listing[path].version, status.st_size, status.st_mtime_ns
        with self._state.open("a") as file:
            file.write(self._line(path))

    def _line(self, path: str) -> str:
        return json.dumps([path, *self._known[path]]) + "\n"

    def _read_state(self) -> None:
        self._known.update(_versions(self._state))

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep other processes of this machine out of the copy, and raise all errors as StoreError."""
        from filelock import FileLock

        with self._speaking():
            self._state.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._state.with_suffix(".lock"), fallback_to_soft=False)
            try:
                lock.acquire()
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            try:
                yield
            finally:
                lock.release()

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            room.use(self.directory.parent)
            yield
        except SourceError as error:
            raise StoreError(str(error)) from None
        except OSError as error:
            raise StoreError(
                f"the copy of {self.url!r} in {str(self._state.parent)!r} cannot be written: "
                f"{error.strerror or error}; make room, or set XDG_CACHE_HOME to another folder"
            ) from None


def folder_of(url: str) -> Path:
    """Where this machine keeps its copy of a folder in a bucket."""
    return user_cache() / "indexes" / digests.of_json(url) / url.rpartition("/")[2]


def _download(url: str, size: int, target: Path) -> None:
    """Fetch a file, large ones in parts. It appears whole or not at all."""
    if size <= PART:
        write_atomically(target, [objects.read(url)], synced=False)
        return
    making = target.with_name(f".{target.name[:40]}.{token_hex(4)}.tmp")
    try:
        with making.open("xb") as file:
            file.truncate(size)

            def part(start: int) -> None:
                os.pwrite(file.fileno(), objects.read(url, start, min(start + PART, size)), start)

            _at_once(part, range(0, size, PART))
        making.replace(target)
    finally:
        making.unlink(missing_ok=True)


def _at_once(work: Callable[[T], object], items: Sequence[T]) -> None:
    """Do the work on all items, many at a time; the first error ends it."""
    if len(items) < 2:
        for item in items:
            work(item)
        return
    from concurrent.futures import ThreadPoolExecutor  # few commands fetch

    pool = ThreadPoolExecutor(min(REQUESTS, len(items)), "bucket")
    try:
        list(pool.map(work, items))
    finally:
        pool.shutdown(cancel_futures=True)


def _changed(directory: Path, known: Mapping[str, Version], apart: Collection[str]) -> Iterator[str]:
    """The files of a copy that are not as they were fetched or delivered, without those below the names `apart`."""
    for folder, folders, names in os.walk(directory):
        within = Path(folder).relative_to(directory)
        folders[:] = [name for name in folders if not name.startswith(".") and name not in apart]
        for name in names:
            path = (within / name).as_posix()
            with suppress(FileNotFoundError):
                status = (directory / path).stat()
                same = known.get(path, ("", 0, 0))[1:] == (status.st_size, status.st_mtime_ns)
                if not (same or name.startswith(".") or name.endswith(_NOT_DELIVERED)):
                    yield path


def _versions(state: Path) -> Iterator[tuple[str, Version]]:
    with suppress(FileNotFoundError):
        for line in state.read_text().splitlines():
            with suppress(ValueError, TypeError):  # a line that was cut short
                path, version, size, time = json.loads(line)
                yield path, (version, size, time)


def _holds_more_than_its_bucket(folder: Path) -> bool:
    """Whether a copy holds what was computed here and never delivered, such as shards of relevance."""
    known = dict(_versions(folder / _STATE))
    return any(path for inner in folder.iterdir() if inner.is_dir() for path in _changed(inner, known, ()))


def _top(path: str) -> str:
    return path.partition("/")[0]


def _is_safe(path: str) -> bool:
    """Whether a file of that name may be written below the copy. A bucket may be a stranger's."""
    parts = path.split("/")
    return not any(part.startswith(".") or part == "" or "\0" in part or "\\" in part for part in parts)
