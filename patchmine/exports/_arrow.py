"""Rows as Arrow tables in a Parquet file, a group of rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmine.errors import RequestError
from patchmine.reading.tables import Columns, storable

if TYPE_CHECKING:
    import pyarrow

ROWS = 1_000
"""Rows of a group: they are in memory at once, with their pictures."""


def check(kind: str) -> None:
    """Raises RequestError without pyarrow."""
    if find_spec("pyarrow") is None:
        raise RequestError(f"export {kind} needs pyarrow, which is not installed: pip install 'patchmine[pandas]'")


def picture(name: str) -> dict[str, pyarrow.DataType]:
    """A column of pictures: their bytes and paths."""
    pyarrow = import_module("pyarrow")
    return {name: pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])}


def write_rows(
    out: Path,
    rows: Iterable[Mapping[str, Any]],
    columns: Columns,
    first: Mapping[str, pyarrow.DataType] | None = None,
    about: Mapping[str, str] | None = None,
) -> int:
    """Write rows with these columns to a Parquet file; returns their number.

    `first` are columns of other types in front, `about` is metadata of the schema.
    """
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    types = {**(first or {}), **{name: kinds[kind] for name, kind in columns.items()}}
    schema = pyarrow.schema(list(types.items()), metadata=about and dict(about))
    left, count = iter(rows), 0
    with parquet.ParquetWriter(out, schema) as writer:
        while group := list(islice(left, ROWS)):
            count += len(group)
            by_column = {name: [storable(row[name]) for row in group] for name in types}
            writer.write_table(pyarrow.table(by_column, schema=schema))
    return count
