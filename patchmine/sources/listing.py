"""A list of photographs: a .txt with one path per line, or a table with a column of paths and, optionally, classes.

A list may name a photograph twice; both count. It is the only source that reads outside its own folder, and it reads
only the paths that it names.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from patchmine.buckets.urls import is_url
from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, Listed, _tables, absolute, class_in_name, not_found
from patchmine.sources._fetching import Part, ahead
from patchmine.sources._files import joined, opened, there
from patchmine.system.regular_files import LIMIT, TOO_LARGE, is_folder, read_whole

HELP = "a .txt of paths (one per line), a .csv, .tsv or .jsonl of path,class"

SUFFIXES = (".txt", *_tables.SUFFIXES)

_LABELED = re.compile(r"(.*\.[A-Za-z]{3,5})[\s,;]+(\S.*?)\s*")
"""A path and a class in one line, as in Caffe's lists: `val/1.jpg 65`."""

LOOKED_AT = 100
"""Number of photographs to check: if none of them exists, the paths are probably relative to another folder."""


@dataclass(frozen=True)
class Listing:
    """`spec` is the absolute path of the list; relative paths in it start at its own folder."""

    spec: str
    kind: str = "listing"

    @property
    def name(self) -> str:
        return Path(self.spec).stem

    def entries(self) -> list[Entry]:
        return self.listed().entries

    def listed(self) -> Listed:
        try:
            found, notes = _entries(self.spec)
        except OSError as error:
            raise SourceError(f"{self.spec!r} cannot be read: {error.strerror}") from None
        if not found:
            raise SourceError(f"{self.spec!r} lists no photographs: write one path per line")
        folder = _folder(self.spec)
        looked_at = found[:LOOKED_AT]
        if not there(joined(folder, entry.path) for entry in looked_at):
            raise SourceError(
                f"none of the first {len(looked_at)} photographs in {self.spec!r} exists, for example "
                f"{found[0].path!r}: write absolute paths, or paths relative to {folder!r}"
            )
        return Listed(sorted(found, key=lambda entry: (entry.path, entry.class_name or "")), notes=notes)

    @property
    def remote(self) -> bool:
        return is_url(self.spec)

    def expect(self, paths: Sequence[str]) -> None:
        """Begin to fetch those photographs that lie in a bucket and will be read next."""
        names = ((path, joined(_folder(self.spec), path)) for path in paths)
        ahead(self.spec).expect(Part(path, name) for path, name in names if is_url(name))

    def read(self, path: str) -> bytes:
        """The bytes of one file. Raises PhotographError if the list does not name it."""
        try:
            with opened(self.spec) as file:
                version, size = file.version, file.size
            if path not in _paths(self.spec, version, size):
                raise PhotographError(f"not listed in {self.spec!r}")
            name = joined(_folder(self.spec), path)
            return ahead(self.spec).read(Part(path, name)) if is_url(name) else read_whole(name)
        except FileNotFoundError:
            raise PhotographError("no such file") from None
        except OSError as error:
            raise PhotographError(f"cannot be read: {error.strerror}") from None
        except PhotographError:
            raise
        except SourceError as error:
            if self.remote:
                raise
            raise PhotographError(str(error)) from None


def claim(spec: str) -> Listing | None:
    path = Path(spec).expanduser()
    if not spec.lower().endswith(SUFFIXES) or is_folder(path):
        return None
    if not there([str(path) if not is_url(spec) else spec]):
        raise SourceError(not_found("list", spec, SUFFIXES))
    return Listing(spec if is_url(spec) else absolute(path))


@lru_cache(2)
def _paths(file: str, _version: str, _size: int) -> frozenset[str]:
    """The paths in a list, cached until the file changes."""
    return frozenset(entry.path for entry in _entries(file)[0])


def _entries(file: str) -> tuple[list[Entry], tuple[str, ...]]:
    """The photographs of a list, in its order, and what to say about their classes."""
    with opened(file) as opened_file:
        if opened_file.size > LIMIT:
            raise OSError(errno.EFBIG, TOO_LARGE)
        text = opened_file.read(opened_file.size, 0).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceError(f"line {line} of {file!r} is not UTF-8 text: save the list as UTF-8")
    return _of_lines(file, text) if file.lower().endswith(".txt") else _of_table(file, text)


def _of_lines(file: str, text: str) -> tuple[list[Entry], tuple[str, ...]]:
    lines = [line.removesuffix("\r") for line in text.split("\n") if line.strip() and not line.startswith("#")]
    folder, labeled = _folder(file), [_LABELED.fullmatch(line) for line in lines[:LOOKED_AT]]
    if lines and all(labeled) and not there(joined(folder, line) for line in lines[:LOOKED_AT]):
        found = [match for line in lines if (match := _LABELED.fullmatch(line))]
        if len(found) == len(lines):
            note = f"each line of {Path(file).name!r} is taken for a path and its class"
            return [Entry(match[1], match[2]) for match in found], (note,)
    return [Entry(line, class_in_name(line)) for line in lines], ()


def _of_table(file: str, text: str) -> tuple[list[Entry], tuple[str, ...]]:
    table = _tables.read_table(file, text)
    if table is None:
        raise SourceError(f"the first line of {file!r} has no column 'path': write path or path,class")
    named = [Entry(path, said if table.column else class_in_name(path)) for path, said in table.rows]
    notes = [] if table.column in (None, "class") else [f"the classes are those of the column {table.column!r}"]
    if table.column is None and table.others:
        shown = ", ".join(map(repr, table.others[:6]))
        notes.append(f"no column of {Path(file).name!r} is called 'class'; if one of {shown} holds classes, call it so")
    return named, tuple(notes)


def _folder(file: str) -> str:
    """Where the paths in a list begin."""
    return file.rpartition("/")[0] if is_url(file) else str(Path(file).parent)
