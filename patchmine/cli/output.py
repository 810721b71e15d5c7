"""What commands print on stdout."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patchmine.printable import printable


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document. Bytes of a path that are no UTF-8 come out as \\udcXX escapes, which are valid JSON."""
    print(json.dumps(document, allow_nan=False))


def print_line(text: str) -> None:
    _tolerate()
    print(printable(text))


def print_csv(rows: Iterable[Mapping[str, Any]], header: Sequence[str]) -> None:
    _tolerate()
    writer = csv.DictWriter(sys.stdout, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document with its nested parts as columns of their own."""
    row: dict[str, Any] = {}
    for key, value in document.items():
        row |= {f"{key}_{part}": number for part, number in value.items()} if isinstance(value, dict) else {key: value}
    return row


def print_table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    """Aligned columns; numbers to the right."""
    _tolerate()
    cells = [list(header)] + [["-" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(_is_number(row[column]) for row in cells[1:]) and len(cells) > 1 for column in range(len(header))]
    for row in cells:
        aligned = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ]
        print("  ".join(aligned).rstrip())


def _is_number(cell: str) -> bool:
    return (
        cell == "-"
        or cell.strip("%").replace(".", "", 1).replace("-", "").replace("e", "", 1).replace("+", "").isdigit()
    )


def _tolerate() -> None:
    """A terminal or pipe that cannot show a character gets an escape, not an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
