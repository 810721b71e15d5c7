"""Printing on stdout."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patchmine.reading.tables import text_table
from patchmine.system.printable import printable


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document. Bytes of a path that are not UTF-8 become \\udcXX escapes, which are valid JSON."""
    print(json.dumps(document, allow_nan=False))


def print_line(text: str) -> None:
    _tolerate()
    print(printable(text))


def print_csv(rows: Iterable[Mapping[str, Any]], header: Sequence[str]) -> None:
    _tolerate()
    writer = csv.DictWriter(sys.stdout, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    """Print aligned columns; numbers are right-aligned."""
    _tolerate()
    print("\n".join(text_table(rows, header)))


def _tolerate() -> None:
    """Print an escape, not an error, where a terminal or pipe cannot show a character."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
