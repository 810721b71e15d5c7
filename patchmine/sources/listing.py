"""A list of photographs: a .txt with one path per line, or a .csv with the columns path and, where known, class.

A list may name a photograph twice; each counts. It is the only source that reads outside of its own folder, and
therefore only what it names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, beside
from patchmine.system.regular_files import is_folder, is_there, read_text, read_whole

HELP = "a .txt of paths (one per line), a .csv of path,class"

SUFFIXES = (".txt", ".csv")

LOOKED_AT = 100
"""Photographs of which one has to be there, or the paths are meant from another folder."""


@dataclass(frozen=True)
class Listing:
    """`spec` is the absolute path of the list; relative paths in it start at its own folder."""

    spec: str
    kind: str = "listing"

    @property
    def name(self) -> str:
        return Path(self.spec).stem

    def entries(self) -> list[Entry]:
        try:
            found = _entries(self.spec)
        except OSError as error:
            raise SourceError(f"{self.spec!r} cannot be read: {error.strerror}") from None
        if not found:
            raise SourceError(f"{self.spec!r} names no photographs: it should have a path per line")
        folder = Path(self.spec).parent
        looked_at = found[:LOOKED_AT]
        if not any(is_there(folder / entry.path) for entry in looked_at):
            raise SourceError(
                f"none of the first {len(looked_at)} photographs of {self.spec!r} is there, such as "
                f"{found[0].path!r}: a path starts at '/' or at {str(folder)!r}"
            )
        return sorted(found, key=lambda entry: (entry.path, entry.class_name or ""))

    def read(self, path: str) -> bytes:
        """The bytes of one file, if the list names it."""
        try:
            status = Path(self.spec).stat()
            if path not in _paths(self.spec, status.st_mtime_ns, status.st_size):
                raise PhotographError(f"not named in {self.spec!r}")
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
        raise SourceError(f"there is no list {spec!r}{beside(path, SUFFIXES)}")
    return Listing(str(path.resolve() if ".." in path.parts else path.absolute()))


@lru_cache(2)
def _paths(file: str, _changed_ns: int, _size: int) -> frozenset[str]:
    """The paths in a list; for as long as it stays as it is."""
    return frozenset(entry.path for entry in _entries(file))


def _entries(file: str) -> list[Entry]:
    text = read_text(file)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceError(f"line {line} of {file!r} is no text in UTF-8: save the list as that")
    return list(_of_csv(file, text) if file.lower().endswith(".csv") else _of_lines(text))


def _of_lines(text: str) -> Iterator[Entry]:
    for line in text.split("\n"):
        if line.strip() and not line.startswith("#"):
            yield Entry(line.removesuffix("\r"), None)


def _of_csv(file: str, text: str) -> Iterator[Entry]:
    import csv
    import io

    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if "path" not in header:
            raise SourceError(f"the first line of {file!r} has no column 'path': write path or path,class")
        path, class_name = header.index("path"), header.index("class") if "class" in header else None
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise SourceError(f"line {rows.line_num} of {file!r} has {len(row)} values for {len(header)} columns")
            if not row[path]:
                raise SourceError(f"line {rows.line_num} of {file!r} has no path")
            yield Entry(row[path], (row[class_name] or None) if class_name is not None else None)
    except csv.Error as error:
        raise SourceError(f"line {rows.line_num} of {file!r} is no CSV: {error}") from None
