"""Formats rows as aligned text, HTML, or pandas and Arrow tables. Standard library only; those two are optional."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from patchmine.errors import RequestError
from patchmine.system.printable import printable

if TYPE_CHECKING:
    import pandas
    import pyarrow

NONE = "-"
"""Shown in place of a missing value."""

Columns = Mapping[str, type]
"""Column names in order, each with the type int, float, or str. Strings and floats may be missing."""


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document with its nested parts flattened into columns: `box_left` for `left` of `box`."""
    row: dict[str, Any] = {}
    for key, value in document.items():
        row |= {f"{key}_{part}": number for part, number in value.items()} if isinstance(value, dict) else {key: value}
    return row


def in_order(units: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Summaries of units, sorted: numbers descending, except for tight crops, and words ascending.

    Those without a value come last. A `key` that the summaries lack is one of their `scores`.
    """

    def value(unit: dict[str, Any]) -> Any:
        return unit[key] if key in unit else unit["scores"][key]

    given = [unit for unit in units if value(unit) is not None]
    lacking = [unit for unit in units if value(unit) is None]
    return [*sorted(given, key=value, reverse=key not in ("name", "label", "tight")), *lacking]


def text_table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> list[str]:
    """Lines of aligned columns, with numbers right-aligned."""
    cells = [list(header)] + [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(_is_number(row[column]) for row in cells[1:]) and len(cells) > 1 for column in range(len(header))]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def html_table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> str:
    """An HTML table; every cell is escaped."""
    from html import escape

    head = "".join(f'<th style="text-align:left">{escape(_cell(name))}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape(_cell(cell))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def to_pandas(rows: Iterable[Mapping[str, Any]], columns: Columns) -> pandas.DataFrame:
    """A data frame with these columns, even without rows: int64, float64 with NaN for missing values, and this pandas'
    string type. Raises RequestError without pandas."""
    pandas = _wanted("pandas", "to_pandas()")
    numbers = {name: f"{kind.__name__}64" for name, kind in columns.items() if kind is not str}
    return pandas.DataFrame(_by_column(rows, columns), columns=list(columns)).astype(numbers)


def to_arrow(rows: Iterable[Mapping[str, Any]], columns: Columns) -> pyarrow.Table:
    """An Arrow table with these columns, even without rows: int64, double, and string, with null for missing values.
    Raises RequestError without pyarrow."""
    pyarrow = _wanted("pyarrow", "to_arrow()")
    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    return pyarrow.table(_by_column(rows, columns), schema=schema)


def _by_column(rows: Iterable[Mapping[str, Any]], columns: Columns) -> dict[str, list[Any]]:
    rows = list(rows)
    return {name: [storable(row[name]) for row in rows] for name in columns}


def storable(value: Any) -> Any:
    r"""Path bytes that are not UTF-8 as \udcXX escapes, as in the JSON: data frames cannot hold the raw bytes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _wanted(package: str, what: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise RequestError(f"{what} needs {package}, which is not installed: pip install {package}") from None


def _cell(value: object) -> str:
    return NONE if value is None else printable(str(value))


def _is_number(cell: str) -> bool:
    return (
        cell == NONE
        or cell.strip("%").replace(".", "", 1).replace("-", "").replace("e", "", 1).replace("+", "").isdigit()
    )
