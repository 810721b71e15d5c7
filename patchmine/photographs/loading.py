"""One photograph of a source: its digest, and its pixels or the reason why there are none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from patchmine.errors import PhotographError
from patchmine.photographs.decode import Pixels, prepare
from patchmine.photographs.placement import Preprocessing
from patchmine.system import digests


class Readable(Protocol):
    """What a source must have here: `read` raises PhotographError."""

    def read(self, path: str) -> bytes: ...


@dataclass(frozen=True)
class Loaded:
    """A photograph after the attempt to read it. `digest` is that of its bytes, '' if they could not be read; either
    `pixels` or `reason`, why there are none, is None."""

    digest: str
    pixels: Pixels | None
    reason: str | None


def load(
    source: Readable, path: str, preprocessing: Preprocessing, timed: Callable[[str], AbstractContextManager[None]]
) -> Loaded:
    """Read and decode one photograph. `timed` gets the stages "read" and "decode"."""
    digest = ""
    try:
        with timed("read"):
            data = source.read(path)
            digest = digests.of_bytes(data)
        with timed("decode"):
            return Loaded(digest, prepare(data, preprocessing), None)
    except PhotographError as error:
        return Loaded(digest, None, str(error))
