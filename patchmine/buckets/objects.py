"""Files in buckets, by their URL, through fsspec: list, read, write, and again if a connection breaks.

Only the stores of SCHEMES are opened. An index may come from a stranger and names its source, and fsspec's other
protocols reach further, such as into archives inside of archives or over ssh.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from patchmine.buckets.urls import SCHEMES
from patchmine.errors import PhotographError, SourceError

TRIES, WAIT_S = 10, 0.1
"""How often a request is tried, and seconds before the second try; each next wait is twice as long."""

FIRST_TRIES, FIRST_S = 3, 10.0
"""How often the first request to a store is tried, and for how many seconds: its address may be wrong."""

CONNECT_S = 3
"""Seconds that a connection to an S3 endpoint may take. An address that nobody has answers nothing at all."""

_VERSIONS = ("ETag", "etag", "blob_id", "mtime", "LastModified", "created")
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FINAL = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "GatedRepoError")

_answered: set[str] = set()
"""The schemes whose store has answered this process."""

T = TypeVar("T")


class Place(NamedTuple):
    """A file in a bucket: its size in bytes, and something that changes when its content does."""

    size: int
    version: str


def find(url: str) -> dict[str, Place]:
    """All files below a folder, recursively, by their path relative to it. Raises SourceError, also for none."""
    found = held(url)
    store, root = _opened(url)
    if not found and not _tried(lambda: store.exists(root), url):
        raise SourceError(f"folder {url!r} not found: give a bucket, or a folder in one")
    return found


def held(url: str) -> dict[str, Place]:
    """All files whose URL begins with that of a folder, by their path relative to it. Raises SourceError."""
    store, root = _opened(url)
    store.invalidate_cache()
    try:
        found = _tried(lambda: store.find(root, detail=True), url)
    except PhotographError:  # of the bucket itself
        found = {}
    start = len(root.rstrip("/")) + 1
    return {path[start:]: _place(about) for path, about in found.items() if len(path) > start}


def place(url: str) -> Place | None:
    """The file at this URL; None without one. Raises SourceError."""
    store, path = _opened(url)
    try:
        about = _tried(lambda: store.info(path), url)
    except PhotographError:
        return None
    return _place(about) if about.get("type") != "directory" else None


def read(url: str, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes [start, stop) of a file, or all of it.

    Raises PhotographError if the file is gone, and SourceError if the store cannot be reached: then a run must end
    instead of skipping every photograph that it cannot have just now.
    """
    store, path = _opened(url)

    def attempt() -> bytes:
        data: bytes = store.cat_file(path, start=start or None, end=stop)
        if stop is not None and len(data) != stop - start:
            raise ConnectionError(f"{len(data)} bytes instead of {stop - start}")
        return data

    return _tried(attempt, url)


def write(url: str, file: Path) -> Place:
    """Put a file at this URL, where it appears whole or not at all: stores take an object in one piece, or in parts
    that they join at the end. Raises SourceError.
    """
    store, path = _opened(url)

    def attempt() -> Place:
        store.put_file(str(file), path)
        store.invalidate_cache()
        written = _place(store.info(path))
        if written.size != file.stat().st_size:
            raise ConnectionError(f"{written.size} bytes arrived instead of {file.stat().st_size}")
        return written

    try:
        return _tried(attempt, url, "written")
    except PhotographError:
        raise SourceError(f"{url!r} cannot be written: no such bucket; create it first, or name another") from None


def remove(urls: list[str]) -> None:
    """Remove these files, one after another; those that are gone do no harm. Raises SourceError."""
    for url in urls:
        store, path = _opened(url)
        with suppress(PhotographError):
            _tried(partial(store.rm_file, path), url, "written")


@lru_cache(16)
def _store(scheme: str) -> Any:
    try:
        import fsspec

        # The tries are ours: botocore's own would come on top of each, for a minute at an endpoint that is dead.
        once = {"config_kwargs": {"connect_timeout": CONNECT_S, "retries": {"total_max_attempts": 1}}}
        store = fsspec.filesystem(scheme, **(once if scheme == "s3" else {}))
        store.retries = 1  # those of s3fs are its class's again once the store has answered
        return store
    except ImportError:
        raise SourceError(
            f"{scheme}:// needs {SCHEMES[scheme]}, which is not installed: pip install 'patchmine[remote]'"
        ) from None


def _opened(url: str) -> tuple[Any, str]:
    """The store of a URL, and the file's path in it."""
    scheme, _, path = url.partition("://")
    return _store(scheme), f"/{path}" if scheme == "memory" else path


def _place(about: dict[str, Any]) -> Place:
    version = next((about[key] for key in _VERSIONS if key in about), "")
    if isinstance(version, datetime):  # a listing may hold the same time as a number
        version = version.timestamp()
    return Place(int(about.get("size") or 0), str(version))


def _tried(attempt: Callable[[], T], url: str, done: str = "read") -> T:
    """The result of a request, tried again while the store or the way to it fails; `done` is what it is to do."""
    scheme, began = url.partition("://")[0], time.monotonic()
    for number in range(1, TRIES + 1):
        try:
            found = attempt()
        except _GONE:
            _greeted(scheme)
            raise PhotographError("no longer in the bucket") from None
        except Exception as error:  # noqa: BLE001 - each store raises errors of its own libraries
            final = isinstance(error, PermissionError) or type(error).__name__ in _FINAL
            if not final and scheme not in _answered:
                if number == FIRST_TRIES or time.monotonic() - began > FIRST_S:
                    raise SourceError(_silent(url, error)) from None
            elif final or number == TRIES:
                raise SourceError(_unreachable(url, error, final, done)) from None
            time.sleep(WAIT_S * 2 ** (number - 1))
        else:
            _greeted(scheme)
            return found
    raise AssertionError


def _greeted(scheme: str) -> None:
    if scheme not in _answered:
        _answered.add(scheme)
        vars(_store(scheme)).pop("retries", None)


def _silent(url: str, error: Exception) -> str:
    """What to say of a store that has not answered once."""
    said = f"{url!r} does not answer ({_reason(error)}): check the network"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if url.startswith("s3:") and endpoint:
        return f"{said}, and that a server runs at AWS_ENDPOINT_URL, which is {endpoint!r}"
    return f"{said}, and the endpoint and region of the store" if url.startswith("s3:") else said


def _unreachable(url: str, error: Exception, final: bool, done: str) -> str:
    reason = _reason(error)
    if "Credentials" in type(error).__name__:
        return f"{url!r} needs credentials: set those of its own tools, such as AWS_ACCESS_KEY_ID, or AWS_PROFILE"
    if final:
        return f"{url!r} cannot be {done} with these credentials ({reason}): use others, or ask for access"
    what = "reached" if done == "read" else done
    return f"{url!r} cannot be {what} after {TRIES} tries ({reason}); repeat the command later: finished work is kept"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
