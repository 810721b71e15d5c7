"""Where photographs come from. A module of this package is a kind of source: it has

- `HELP`: one line, what to type;
- `claim(spec) -> Source | None`: a source for what the user typed, or None for another kind's business. A spec that is
  plainly of the kind but badly written is refused with a SourceError.

patchmine's own kinds are asked first, in the order of their names, then those of other packages. Their claims must not
overlap: a kind with a prefix such as `shapes:` claims nothing else, a kind of paths nothing with such a prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from patchmine.errors import SourceError, nearest
from patchmine.plugins import Kinds
from patchmine.system.regular_files import is_there

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Name endings of photographs, in upper or lower case, in folders and archives that may hold other files too."""

_ODD = re.compile(r"\0|(?:^|/)(?:\.|/|__MACOSX|\Z)")
"""Finds member names that need cleaning or refusing. Most names do not, and a tar has thousands."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One photograph: its '/'-separated path inside the source, and its class or None."""

    path: str
    class_name: str | None


class Source(Protocol):
    """A collection of photographs whose order does not change between calls. Sources can be pickled."""

    @property
    def spec(self) -> str:
        """The spec that reopens the source from any working directory."""

    @property
    def kind(self) -> str:
        """The name of the module that reads it."""

    @property
    def name(self) -> str:
        """The stem of the default index: NAME.patchmine."""

    def entries(self) -> list[Entry]:
        """Every photograph, sorted by path. Raises SourceError if there are none or the source is damaged."""

    def read(self, path: str) -> bytes:
        """The encoded bytes of one photograph. Raises PhotographError if it is missing, unreadable or outside."""


class Kind(Protocol):
    """The interface of a module of one kind."""

    HELP: str

    def claim(self, spec: str) -> Source | None: ...


kinds: Kinds[Kind] = Kinds("patchmine.sources", needs=("claim",))


def open_source(spec: str) -> Source:
    """The source that the user's `spec` means. Nothing is listed yet; `entries()` does that.

    Raises SourceError, which says what to type, if no kind claims the spec.
    """
    try:
        for kind in kinds:
            source = kind.claim(spec)
            if source is not None:
                return source
        raise SourceError(_refusal(spec))
    except RuntimeError:  # from Path.expanduser; a SourceError is not one
        raise SourceError(f"{spec!r} starts with the home folder of an unknown user: write the full path") from None


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is skipped; macOS packs its metadata into `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def first_folder(path: str) -> str | None:
    """The default class of a photograph: the first folder of its path, or None without a folder."""
    return path.partition("/")[0] if "/" in path else None


def packed_path(name: str, archive: str) -> str | None:
    """The path of an archive's member after unpacking: that of the same photograph in a folder source.

    None for a member that a folder source skips. Raises SourceError for a name that leads out of the archive: nothing
    is unpacked here, but such an archive is careless or hostile.
    """
    if not _ODD.search(name):
        return name
    parts = name.split("/")
    if (name and not parts[0]) or ".." in parts or "\0" in name:
        raise SourceError(f"{archive!r} contains {name!r}, a path outside it: repack it from inside its folder")
    parts = [part for part in parts if part not in ("", ".")]
    return None if any(map(is_hidden, parts)) else "/".join(parts)


def beside(path: Path, suffixes: tuple[str, ...] = ()) -> str:
    """A clause for an error message that names the folders, or files with `suffixes`, nearest to a missing path."""
    try:
        places = [place for place in path.parent.iterdir() if not place.name.startswith(".")]
        if suffixes:
            return nearest(path.name, (place.name for place in places if place.name.lower().endswith(suffixes)))
        return nearest(path.name, (place.name for place in places if place.is_dir()))
    except OSError:
        return ""


def _refusal(spec: str) -> str:
    helps = [kinds.help(name) for name in kinds.names]
    path, known = Path(spec).expanduser(), f"{', '.join(helps[:-1])} or {helps[-1]}"
    if not spec:
        return f"the source is empty: give {known}"
    if is_there(path):
        return f"{spec!r} is a file, not a source of photographs: give {known}"
    return f"folder {spec!r} not found{beside(path) or f'; give {known}'}"
