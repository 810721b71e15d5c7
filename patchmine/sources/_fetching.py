"""Photographs that are fetched before they are read, so that the network does not wait for a bucket at every one.

A run says which photographs it reads next. Neighbors in one file, as in a tar, are fetched with one request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

from patchmine.buckets import objects

REQUESTS = 16
"""Requests at a time."""

GAP, LONGEST = 64 << 10, 8 << 20
"""Parts of a file are fetched with one request if at most GAP bytes lie between them, up to LONGEST bytes in all."""

WAITING = 1024
"""Photographs that may wait to be read; what was announced before and never read is dropped."""


class Part(NamedTuple):
    """Where a photograph lies: bytes [start, stop) of the file at `url`, or all of it without `stop`."""

    path: str
    url: str
    start: int = 0
    stop: int | None = None


class Ahead:
    """The photographs of one source that are on their way. Safe to use from any thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(REQUESTS, "fetch")
        self._coming: OrderedDict[str, tuple[Part, int, Future[bytes]]] = OrderedDict()

    def expect(self, parts: Iterable[Part]) -> None:
        """Begin to fetch these photographs, in the order in which they will be read."""
        for group in _grouped(part for part in parts if part.path not in self._coming):
            first, last = group[0], group[-1]
            future = self._pool.submit(objects.read, first.url, first.start, last.stop)
            for part in group:
                self._coming[part.path] = part, first.start, future
        while len(self._coming) > WAITING:
            self._coming.popitem(last=False)

    def read(self, part: Part) -> bytes:
        """The bytes of a photograph, fetched now if it was not expected. Raises what `objects.read` raises."""
        known, begin, future = self._coming.pop(part.path, (part, 0, None))
        if future is None:
            return objects.read(part.url, part.start, part.stop)
        data = future.result()
        return data if known.stop is None else data[known.start - begin : known.stop - begin]


@lru_cache(8)
def ahead(_spec: str) -> Ahead:
    """What is on its way in this process for the source of that spec."""
    return Ahead()


def _grouped(parts: Iterable[Part]) -> Iterable[list[Part]]:
    """Neighbors in one file, to be fetched together."""
    group: list[Part] = []
    for part in parts:
        last = group[-1] if group else None
        together = (
            last is not None
            and part.url == last.url
            and part.stop is not None
            and last.stop is not None
            and 0 <= part.start - last.stop <= GAP
            and part.stop - group[0].start <= LONGEST
        )
        if group and not together:
            yield group
            group = []
        group.append(part)
    if group:
        yield group
