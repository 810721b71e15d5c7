"""A Parquet file of all patches: the columns of `csv` with their types."""

from __future__ import annotations

from pathlib import Path

from patchmine.exports import Asked, Export, _arrow
from patchmine.exports._rows import columns, counted, rows

HELP = "parquet: the same table with types"
FOLDER = False
K = 25


def check(asked: Asked) -> None:  # noqa: ARG001
    _arrow.check("parquet")


def write(export: Export, out: Path) -> str:
    return counted(_arrow.write_rows(out, rows(export), columns(export.asked)), len(export.units))
