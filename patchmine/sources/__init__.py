"""Where photographs come from. Each module of this package is one kind of source.

A kind has a `HELP` line and a function `claim(spec)` that returns a source for what the user typed, or None
where it is another kind's business. A spec that is plainly of the kind but badly written is refused there,
with a SourceError.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from patchmine.errors import SourceError, nearest
from patchmine.system.regular_files import is_there

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""How the names of photographs end, in any case, where files of other kinds lie between them."""

_ODD = re.compile(r"\0|(?:^|/)(?:\.|/|__MACOSX|\Z)")
"""What makes a member's name more than a path: most have nothing of it, and a tar has thousands."""


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
        """Every photograph, sorted by path. Raises SourceError where there is none, or the source is damaged."""

    def read(self, path: str) -> bytes:
        """The encoded bytes. Raises PhotographError where there are none or the path leaves the source."""


class Kind(Protocol):
    """What a module of this package has to offer."""

    HELP: str

    def claim(self, spec: str) -> Source | None: ...


@cache
def kinds() -> dict[str, Kind]:
    """Every kind of source by name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")
    return {name: cast(Kind, importlib.import_module(f"{__name__}.{name}")) for name in names}


def open_source(spec: str) -> Source:
    """The source that a user's word stands for. Nothing is listed yet: that is `entries()`.

    Raises SourceError, saying what to type, when no kind knows the word.
    """
    try:
        for kind in kinds().values():
            source = kind.claim(spec)
            if source is not None:
                return source
        raise SourceError(_refusal(spec))
    except RuntimeError:  # Path.expanduser; a refusal is none
        raise SourceError(f"{spec!r} begins with the home of a user that there is not: write the whole path") from None


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is passed over; macOS packs its own notes into `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def first_folder(path: str) -> str | None:
    """The class of a photograph that nothing else is said of."""
    return path.partition("/")[0] if "/" in path else None


def packed_path(name: str, archive: str) -> str | None:
    """Where unpacking would put a member of an archive: the path of the same photograph in a folder.

    None for what a folder passes over. Raises SourceError for a name that leads out of the archive: nothing is ever
    unpacked here, but whoever packed it was careless or worse.
    """
    if not _ODD.search(name):
        return name
    parts = name.split("/")
    if (name and not parts[0]) or ".." in parts or "\0" in name:
        raise SourceError(f"{archive!r} holds {name!r}, which leads out of it: pack it again from inside its folder")
    parts = [part for part in parts if part not in ("", ".")]
    return None if any(map(is_hidden, parts)) else "/".join(parts)


def beside(path: Path, suffixes: tuple[str, ...] = ()) -> str:
    """A clause naming what is nearest to a path that is not there, beside it: folders, or files of such suffixes."""
    try:
        places = [place for place in path.parent.iterdir() if not place.name.startswith(".")]
        if suffixes:
            return nearest(path.name, (place.name for place in places if place.name.lower().endswith(suffixes)))
        return nearest(path.name, (place.name for place in places if place.is_dir()))
    except OSError:
        return ""


def _refusal(spec: str) -> str:
    helps = [kind.HELP for kind in kinds().values()]
    path, known = Path(spec).expanduser(), f"{', '.join(helps[:-1])} or {helps[-1]}"
    if not spec:
        return f"the source is an empty word: give {known}"
    if is_there(path):
        return f"{spec!r} is a file, not a source of photographs: give {known}"
    return f"there is no folder {spec!r}{beside(path) or f'; give {known}'}"
