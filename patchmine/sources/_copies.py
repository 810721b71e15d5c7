"""Copies of photographs in buckets that an index has shown, so that the next sheet does not fetch them again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from patchmine.buckets import room
from patchmine.sources import Source
from patchmine.system import digests
from patchmine.system.atomic import write_atomically
from patchmine.system.caches import user_cache

SHARE = 20
"""Copies of photographs may take one part in this many of the size that those of indexes may take. When there are more,
the least recently used make room."""


def read(source: Source, path: str, digest: str) -> bytes:
    """The copy with this digest, else the photograph, which is then copied. Raises what `source.read` raises."""
    copy = user_cache() / "photographs" / digest[:2] / digest
    with suppress(OSError):
        data = copy.read_bytes()
        if digests.of_bytes(data) == digest:
            with suppress(OSError):
                os.utime(copy)
            return data
    data = source.read(path)
    if digests.of_bytes(data) == digest:
        with suppress(OSError):
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, [data])
            _make_room(copy.parent.parent, copy.parent)
    return data


def _make_room(copies: Path, folder: Path) -> None:
    """Remove the least recently used copies of a folder beyond its share. Copies are spread evenly, by their digest."""
    share = room.most_bytes() // SHARE // max(1, sum(1 for _ in copies.iterdir()))
    files = sorted(((file.stat(), file) for file in folder.iterdir()), key=lambda one: -one[0].st_mtime)
    size = 0
    for status, file in files:
        size += status.st_size
        if size > share:
            file.unlink(missing_ok=True)
