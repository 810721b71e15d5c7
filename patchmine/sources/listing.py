"""A list of photographs: a .txt with one path per line, or a .csv with the columns path and, optionally, class.

A list may name a photograph twice; both count. It is the only source that reads outside its own folder, and it reads
only the paths that it names.
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
        try:
            found = _entries(self.spec)
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
        return sorted(found, key=lambda entry: (entry.path, entry.class_name or ""))

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
        raise SourceError(f"list {spec!r} not found{beside(path, SUFFIXES)}")
    return Listing(str(path.resolve() if ".." in path.parts else path.absolute()))


@lru_cache(2)
def _paths(file: str, _changed_ns: int, _size: int) -> frozenset[str]:
    """The paths in a list, cached until the file changes."""
    return frozenset(entry.path for entry in _entries(file))


def _entries(file: str) -> list[Entry]:
    text = read_text(file)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceError(f"line {line} of {file!r} is not UTF-8 text: save the list as UTF-8")
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
        raise SourceError(f"line {rows.line_num} of {file!r} is not valid CSV: {error}") from None
