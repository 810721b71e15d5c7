"""Keeps the copies of buckets on this machine within a size: the least recently used make room.

A process marks each copy that it uses, by a lock that the system takes back when the process ends.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from patchmine.errors import RequestError

ENVIRONMENT, DEFAULT_GB = "PATCHMINE_CACHE_GB", 20.0

_MARK = "used.lock"

_marks: dict[Path, int] = {}
"""The descriptors of this process's marks, by the folder of their copy."""


def most_bytes() -> int:
    """The size of all copies of indexes, as the environment has it. Raises RequestError for a word that is no size."""
    word = os.environ.get(ENVIRONMENT) or str(DEFAULT_GB)
    try:
        return round(float(word) * 1e9)
    except (ValueError, OverflowError):  # nan and inf among them
        raise RequestError(
            f"{ENVIRONMENT} must be a number of gigabytes, such as {DEFAULT_GB:g}, not {word!r}"
        ) from None


def use(folder: Path) -> None:
    """Mark a copy as used by this process until it ends. Waits while another process removes it. Raises OSError."""
    if folder not in _marks:
        folder.mkdir(parents=True, exist_ok=True)
        mark = os.open(folder / _MARK, os.O_RDWR | os.O_CREAT, 0o666)
        os.utime(mark)
        _locked(mark, exclusively=False)
        _marks[folder] = mark


def make_room(copies: Path, is_needed: Callable[[Path], bool]) -> None:
    """Remove the least recently used folders of `copies` beyond the bound, but none that a process uses or that
    `is_needed`. Raises RequestError as `most_bytes`."""
    sizes = {folder: _size(folder) for folder in copies.iterdir() if folder.is_dir()}
    excess = sum(sizes.values()) - most_bytes()
    for folder in sorted(sizes, key=_last_use):
        if excess <= 0:
            return
        if folder not in _marks and _remove(folder, is_needed):
            excess -= sizes[folder]


def _remove(folder: Path, is_needed: Callable[[Path], bool]) -> bool:
    """Remove a copy, unless it is used or needed. The mark stays: a process may wait for it."""
    with suppress(OSError), (folder / _MARK).open("ab") as mark:
        if _locked(mark.fileno(), exclusively=True) and not is_needed(folder):
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.suffix != ".lock":
                    path.unlink()
            return True
    return False


def _locked(mark: int, exclusively: bool) -> bool:
    """Whether the lock could be had; not on a system or in a file system without such locks."""
    try:
        import fcntl

        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusively else fcntl.LOCK_SH)
    except (ImportError, OSError):
        return False
    return True


def _last_use(folder: Path) -> float:
    with suppress(OSError):
        return (folder / _MARK).stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process removes it
            size += path.stat().st_size if path.is_file() else 0
    return size


__all__ = ["DEFAULT_GB", "ENVIRONMENT", "make_room", "most_bytes", "use"]
