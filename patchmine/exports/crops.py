"""A folder of crops at full resolution, with a table of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from patchmine.exports import Asked, Export
from patchmine.exports._pictures import write_pictures
from patchmine.exports._rows import columns, counted

HELP = "crops: a folder of JPEGs whose names sort, with a table of them"
FOLDER = True
K = 25


def check(asked: Asked) -> None: ...


def write(export: Export, out: Path) -> str:
    return write_folder(export, out, "crops.csv", columns(export.asked))


def write_folder(export: Export, out: Path, table: str, names: Iterable[str]) -> str:
    """Write the crops and the table: `file_name`, the path of a crop in the folder, then columns of these names."""
    count = 0
    with (out / table).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", *names], lineterminator="\n")
        writer.writeheader()
        for row in write_pictures(export, out):
            writer.writerow(dict(zip(writer.fieldnames, row.values(), strict=True)))
            count += 1
    return counted(count, len(export.units))
