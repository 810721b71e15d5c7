"""A table of all patches: one row for each."""

from __future__ import annotations

import csv
from pathlib import Path

from patchmine.exports import Asked, Export
from patchmine.exports._rows import columns, counted, rows

HELP = "csv: a table of all patches"
FOLDER = False
K = 25


def check(asked: Asked) -> None: ...


def write(export: Export, out: Path) -> str:
    count = 0
    # Bytes of a path that are not UTF-8 are written as they are.
    with out.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, list(columns(export.asked)), lineterminator="\n")
        writer.writeheader()
        for row in rows(export):
            writer.writerow(row)
            count += 1
    return counted(count, len(export.units))
