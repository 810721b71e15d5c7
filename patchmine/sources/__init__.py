"""Where photographs come from. A module of this package is a kind of source: it has

- `HELP`: one line, what to type;
- `claim(spec) -> Source | None`: a source for what the user typed, or None for another kind's business. A spec that is
  plainly of the kind but badly written is refused with a SourceError.

patchmine's own kinds are asked first, in the order of their names, then those of other packages. Their claims must not
overlap: a kind with a prefix such as `shapes:` claims nothing else, a kind of paths nothing with such a prefix.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Protocol

from patchmine.errors import SourceError, nearest
from patchmine.plugins import Kinds
from patchmine.system.regular_files import is_link, is_there

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Name endings of photographs, in upper or lower case, in folders and archives that may hold other files too."""

HEIF = (".heic", ".heif", ".hif", ".avif")
"""Name endings of photographs that need the extra `heif`."""

CLASS_KEYS = (
    "class_name",
    "class",
    "label",
    "cls",
    "label_name",
    "category_name",
    "category",
    "target",
    "wnid",
    "synset",
)
"""Names, in lower case, under which tables and JSON give a photograph's class; the first that is there counts."""

LONGEST = 4096
"""The longest path, or name of a class, that an index holds, in bytes; no operating system opens a longer path."""

_SUFFIX = re.compile(r"\.[a-z][a-z0-9_]{0,9}|\.7z")
_TABLES = (".csv", ".tsv", ".jsonl", ".txt", ".mat")
_MOST_TABLES = 20
_IMAGENET = re.compile(r"(?:.*/)?(n[0-9]{8})_[0-9]+\.[^/]*", re.DOTALL)
_ODD = re.compile(r"\0|(?:^|/)(?:\.|/|__MACOSX|\Z)")
"""Finds member names that need cleaning or refusing. Most names do not, and a tar has thousands."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One photograph: its '/'-separated path inside the source, and its class or None."""

    path: str
    class_name: str | None


@dataclass
class Passed:
    """What a source holds besides its photographs.

    `others` counts files of other kinds by their name ending in lower case ('' for none or an odd one). `left_out` has
    the reason for each path that is neither a file nor a folder of its own, such as a link to nothing. `tables` holds
    the paths of the first files that may list classes.
    """

    others: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        """Count a file that is not a photograph."""
        suffix = PurePosixPath(path).suffix.lower()
        self.others[suffix if _SUFFIX.fullmatch(suffix) else ""] += 1
        if suffix in _TABLES and len(self.tables) < _MOST_TABLES:
            self.tables.append(path)

    def join(self, other: Passed, prefix: str = "") -> None:
        """Add what another part of the source holds, whose paths begin with `prefix`."""
        self.others += other.others
        self.left_out |= {prefix + path: reason for path, reason in other.left_out.items()}
        self.tables += [prefix + path for path in other.tables]

    def counted(self) -> dict[str, int]:
        """`others` as in JSON, the commonest first."""
        return {suffix or "other": count for suffix, count in self.others.most_common()}

    def named(self) -> list[dict[str, str]]:
        """`left_out` as in JSON, sorted by path; long paths are shortened in the middle."""
        return [
            {"path": path if len(path) <= 400 else f"{path[:200]}...{path[-200:]}", "reason": reason}
            for path, reason in sorted(self.left_out.items())
        ]

    def clause(self) -> str:
        """The end of an error about a source without photographs: what it holds instead; may be empty."""
        counted = [f"{count} {suffix}" for suffix, count in list(self.counted().items())[:6]]
        if self.left_out:
            first = self.named()[0]
            counted.append(f"{first['path']!r}, {first['reason']}" + (", and others" if len(self.left_out) > 1 else ""))
        return f"; found {', '.join(counted)}" if counted else ""


@dataclass(frozen=True)
class Listed:
    """The photographs of a source, sorted by path, and what was passed over. `notes` tell how classes were found."""

    entries: list[Entry]
    passed: Passed = field(default_factory=Passed)
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """A collection of photographs whose order does not change between calls. Sources can be pickled.

    A source that can tell what else it holds also has `listed() -> Listed`, whose `entries` are those of `entries()`.
    One that is slow to answer may have `expect(paths)`: it begins to fetch the photographs that will be read next. A
    true `remote` says that copies of what an index shows are worth a cache.
    """

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


def read(source: Source, path: str, digest: str) -> bytes:
    """The bytes of a photograph that an index holds under this digest; a copy of one in a bucket is cached.

    Raises what `source.read` raises.
    """
    if not getattr(source, "remote", False):
        return source.read(path)
    from patchmine.sources import _copies

    return _copies.read(source, path, digest)


def listed(source: Source) -> Listed:
    """The photographs of a source that an index can hold, with what was passed over. Raises SourceError."""
    tell = getattr(source, "listed", None)
    found: Listed = Listed(source.entries()) if tell is None else tell()
    entries = [entry for entry in found.entries if _fits(entry.path)]
    if not entries:
        raise SourceError(f"each photograph of {source.spec!r} has a path of more than {LONGEST:,} bytes: shorten them")
    long = {entry.path for entry in found.entries} - {entry.path for entry in entries}
    found.passed.left_out |= dict.fromkeys(long, f"its path is longer than {LONGEST:,} bytes")
    odd = sum(not _is_class(entry.class_name) for entry in entries)
    if not odd:
        return Listed(entries, found.passed, found.notes)
    note = f"{odd} classes are longer than {LONGEST:,} bytes or not text, and left out"
    entries = [Entry(entry.path, entry.class_name if _is_class(entry.class_name) else None) for entry in entries]
    return Listed(entries, found.passed, (*found.notes, note))


def _fits(text: str) -> bool:
    """Whether the index can hold a text of this length."""
    return len(text) <= LONGEST // 4 or len(text.encode("utf-8", "surrogateescape")) <= LONGEST


def _is_class(name: str | None) -> bool:
    return name is None or (_fits(name) and "\0" not in name)


def suffixes() -> tuple[str, ...]:
    """The name endings of photographs that this installation can decode."""
    return (*SUFFIXES, *HEIF) if find_spec("pillow_heif") else SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is skipped; macOS packs its metadata into `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def class_in_path(path: str) -> str | None:
    """The default class of a photograph: the first folder of its path, else the WordNet id in its name, else None."""
    return path.partition("/")[0] if "/" in path else class_in_name(path)


def class_in_name(path: str) -> str | None:
    """`n01440764` for ImageNet's `n01440764_10026.JPEG`; None for other names."""
    found = _IMAGENET.fullmatch(path)
    return found and found[1]


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


def absolute(path: Path) -> str:
    """The absolute path; symbolic links stay as typed unless `..` follows one."""
    return os.path.realpath(path) if ".." in path.parts else str(path.absolute())


def not_found(kind: str, spec: str, suffixes: tuple[str, ...] = ()) -> str:
    """The error message for the path of a source at which there is nothing."""
    path = Path(spec).expanduser()
    if is_link(path):
        return f"{spec!r} is a link that leads nowhere: give what it should lead to"
    return f"{kind} {spec!r} not found{beside(path, suffixes)}"


def beside(path: Path, suffixes: tuple[str, ...] = ()) -> str:
    """A clause for an error message that names the folders, or files with `suffixes`, nearest to a missing path."""
    try:
        places = [place for place in path.parent.iterdir() if not place.name.startswith(".")]
        if suffixes:
            return nearest(path.name, (place.name for place in places if place.name.lower().endswith(suffixes)))
        folders = (place for place in places if place.is_dir() and place.suffix != ".patchmine")
        return nearest(path.name, (place.name for place in folders))
    except OSError:
        return ""


def _refusal(spec: str) -> str:
    helps = [kinds.help(name) for name in kinds.names]
    path, known = Path(spec).expanduser(), f"{', '.join(helps[:-1])} or {helps[-1]}"
    if not spec:
        return f"the source is empty: give {known}"
    if is_there(path):
        return f"{spec!r} is a file, not a source of photographs: give {known}"
    if is_link(path) or beside(path):
        return not_found("folder", spec)
    return f"folder {spec!r} not found; give {known}"
