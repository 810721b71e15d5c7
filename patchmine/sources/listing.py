"""A list of photographs: a .txt with one path per line, or a table with a column of paths and, optionally, classes.

A list may name a photograph twice; both count. It is the only source that reads outside its own folder, and it reads
only the paths that it names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, Listed, _tables, absolute, class_in_name, not_found
from patchmine.system.regular_files import is_folder, is_there, read_text, read_whole

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
        folder = Path(self.spec).parent
        looked_at = found[:LOOKED_AT]
        if not any(is_there(folder / entry.path) for entry in looked_at):
            raise SourceError(
                f"none of the first {len(looked_at)} photographs in {self.spec!r} exists, for example "
                f"{found[0].path!r}: write absolute paths, or paths relative to {str(folder)!r}"
            )
        return Listed(sorted(found, key=lambda entry: (entry.path, entry.class_name or "")), notes=notes)

    def read(self, path: str) -> bytes:
        """The bytes of one file. Raises PhotographError if the list does not name it."""
        try:
            status = Path(self.spec).stat()
            if path not in _paths(self.spec, status.st_mtime_ns, status.st_size):
                raise PhotographError(f"not listed in {self.spec!r}")
            return read_whole(Path(self.spec).parent / path)
        except FileNotFoundError:
            raise PhotographError("no such file") from None
        except OSError as error:
            raise PhotographError(f"cannot be read: {error.strerror}") from None
        except PhotographError:
            raise
        except SourceError as error:
            raise PhotographError(str(error)) from None


def claim(spec: str) -> Listing | None:
    path = Path(spec).expanduser()
    if not spec.lower().endswith(SUFFIXES) or is_folder(path):
        return None
    if not is_there(path):
        raise SourceError(not_found("list", spec, SUFFIXES))
    return Listing(absolute(path))


@lru_cache(2)
def _paths(file: str, _changed_ns: int, _size: int) -> frozenset[str]:
    """The paths in a list, cached until the file changes."""
    return frozenset(entry.path for entry in _entries(file)[0])


def _entries(file: str) -> tuple[list[Entry], tuple[str, ...]]:
    """The photographs of a list, in its order, and what to say about their classes."""
    text = read_text(file)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceError(f"line {line} of {file!r} is not UTF-8 text: save the list as UTF-8")
    return _of_lines(file, text) if file.lower().endswith(".txt") else _of_table(file, text)


def _of_lines(file: str, text: str) -> tuple[list[Entry], tuple[str, ...]]:
    lines = [line.removesuffix("\r") for line in text.split("\n") if line.strip() and not line.startswith("#")]
    folder, labeled = Path(file).parent, [_LABELED.fullmatch(line) for line in lines[:LOOKED_AT]]
    if lines and all(labeled) and not any(is_there(folder / line) for line in lines[:LOOKED_AT]):
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
