"""Tables of photographs and their classes: CSV, TSV and JSON lines, under the column names that people use."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from patchmine.errors import SourceError
from patchmine.sources import CLASS_KEYS

SUFFIXES = (".csv", ".tsv", ".jsonl")

PATH_KEYS = (
    *(
        "path",
        "file_name",
        "filename",
        "file",
        "image",
        "image_path",
        "filepath",
        "file_path",
        "image_name",
        "img_path",
    ),
    *("img", "photo", "photograph", "picture"),
)
"""Names, in lower case, of the column with the paths; the first that is there counts."""

_SEPARATORS = (",", "\t", ";", "|")


@dataclass(frozen=True)
class Table:
    """Rows of (path, class or None), the `column` of the classes if there is one, and the names of `others`."""

    rows: Sequence[tuple[str, str | None]]
    column: str | None
    others: tuple[str, ...]


def read_table(file: str, text: str) -> Table | None:
    """The table in the text of the file of that name; None if its first line names no column of paths.

    Raises SourceError, which names the line, for a row without a path or of another length, and for invalid text.
    """
    if file.lower().endswith(".jsonl"):
        return _of_json_lines(file, text)
    found = _separator(text)
    if found is None:
        return None
    separator, path = found
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        header = [name.strip() for name in next(rows)]
        column = _class_column(header)
        checked = list(_checked(file, rows, len(header), path))
    except csv.Error as error:
        raise SourceError(f"line {rows.line_num} of {file!r} is not valid CSV: {error}") from None
    others = tuple(name for place, name in enumerate(header) if place not in (path, column) and name)
    if column is None:
        return Table([(row[path], None) for row in checked], None, others)
    return Table([(row[path], row[column] or None) for row in checked], header[column], others)


def class_in_record(record: dict[str, Any]) -> str | None:
    """The class in one JSON object: a text, a whole number, or a list of just one of these; else None."""
    known = {_plain(key): value for key, value in reversed(record.items())}
    said = (_written(known[key]) for key in CLASS_KEYS if key in known)
    return next(filter(None, said), None)


def _of_json_lines(file: str, text: str) -> Table | None:
    rows: list[tuple[str, str | None]] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise SourceError(f"line {number} of {file!r} is not a JSON object")
        columns |= dict.fromkeys(record)
        known = {_plain(key): value for key, value in reversed(record.items())}
        path = next((known[key] for key in PATH_KEYS if isinstance(known.get(key), str)), "")
        if not path and not rows:
            return None
        if not path:
            raise SourceError(f"line {number} of {file!r} has no path")
        rows.append((path, class_in_record(record)))
    names = list(columns)
    place, column = _place(names, PATH_KEYS), _place(names, CLASS_KEYS)
    others = tuple(name for at, name in enumerate(names) if at not in (place, column))
    return Table(rows, None if column is None else names[column], others) if rows else None


def _separator(text: str) -> tuple[str, int] | None:
    """What separates the columns, and the place of the paths; None if no separator makes the first line name one."""
    first = text.partition("\n")[0]
    for separator in _SEPARATORS:
        path = _place(next(csv.reader([first], delimiter=separator), []), PATH_KEYS)
        if path is not None:
            return separator, path
    return None


def _checked(file: str, rows: Any, columns: int, path: int) -> Iterator[list[str]]:
    for row in rows:
        if not row:
            continue
        if len(row) != columns:
            raise SourceError(f"line {rows.line_num} of {file!r} has {len(row)} values for {columns} columns")
        if not row[path]:
            raise SourceError(f"line {rows.line_num} of {file!r} has no path")
        yield row


def _class_column(header: Sequence[str]) -> int | None:
    return header.index("class") if "class" in header else _place(header, CLASS_KEYS)


def _place(header: Sequence[str], keys: Sequence[str]) -> int | None:
    """The place of the first of `keys` among the names of columns, or None."""
    names = [_plain(name) for name in header]
    return next((names.index(key) for key in keys if key in names), None)


def _plain(name: str) -> str:
    """`class_name` for ` Class Name`, `class-name` and `className`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[\s-]+", "_", name.strip()).lower()


def _written(value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else None
