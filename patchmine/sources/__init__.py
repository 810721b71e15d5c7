"""Where photographs come from. Each module of this package is one kind of source.

A kind has a `HELP` line and a function `claim(spec)` that returns a source for what the user typed, or None
where it is another kind's business. A spec that is plainly of the kind but badly written is refused there,
with a SourceError.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from patchmine.errors import SourceError, nearest


@dataclass(frozen=True, slots=True)
class Entry:
    """One photograph: its place inside the source, '/'-separated, and its class where there is one."""

    path: str
    class_name: str | None


class Source(Protocol):
    """Photographs in an order that does not change from one call to the next. A source can be pickled."""

    @property
    def spec(self) -> str:
        """What reopens the source from any working directory."""

    @property
    def kind(self) -> str:
        """The name of the module that reads it."""

    @property
    def name(self) -> str:
        """The stem of the default index: NAME.patchmine."""

    def entries(self) -> list[Entry]:
        """Every photograph, sorted by path. Raises SourceError where there is none."""

    def read(self, path: str) -> bytes:
        """The encoded bytes. Raises PhotographError where there are none or the path leaves the source."""


class Kind(Protocol):
    """What a module of this package has to offer."""

    HELP: str

    def claim(self, spec: str) -> Source | None: ...


@cache
def kinds() -> dict[str, Kind]:
    """Every kind of source by name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: cast(Kind, importlib.import_module(f"{__name__}.{name}")) for name in names}


def open_source(spec: str) -> Source:
    """The source that a user's word stands for. Nothing is listed yet: that is `entries()`.

    Raises SourceError, saying what to type, when no kind knows the word.
    """
    for kind in kinds().values():
        source = kind.claim(spec)
        if source is not None:
            return source
    raise SourceError(_refusal(spec))


def _refusal(spec: str) -> str:
    path, known = Path(spec).expanduser(), " or ".join(kind.HELP for kind in kinds().values())
    if not spec:
        return f"the source is an empty word: give {known}"
    if path.exists():
        return f"{spec!r} is a file, not a source of photographs: give {known}"
    try:
        folders = [place.name for place in path.parent.iterdir() if place.is_dir()]
    except OSError:
        folders = []
    beside = nearest(path.name, (name for name in folders if not name.startswith(".")))
    return f"there is no folder {spec!r}{beside or f'; give {known}'}"
