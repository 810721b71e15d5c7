"""Tables of which most cells are zero, column by column: the maxima of latents that seldom fire.

A cell has a value and a position; one with the value 0 at the position 0 is not stored. So a column read back is the
column that was written, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32, Int64

UNITS = 4096
"""The units of a wide table that are in memory at once."""


def blocks(units: int) -> Iterator[slice]:
    """All units in blocks of at most UNITS."""
    for first in range(0, units, UNITS):
        yield slice(first, min(first + UNITS, units))


@dataclass(frozen=True)
class Columns:
    """The stored cells of a table of `rows` rows, unit by unit, each unit's in ascending order of rows.

    Those of unit u are at `start[u]` up to `start[u + 1]`; `start` is int64 (units + 1,). `row` uint32, `value` float32
    and `position` uint16 or uint32 are (cells,).
    """

    rows: int
    start: Int64
    row: NDArray[np.uint32]
    value: Float32
    position: NDArray[np.integer]

    @classmethod
    def of(cls, values: Float32, positions: NDArray[np.integer]) -> Columns:
        """A dense table: values and positions (rows, units)."""
        stored = (values.view(np.uint32) != 0) | (positions != 0)  # minus zero is stored too
        unit, row = np.nonzero(stored.T)
        start = np.concatenate([[0], np.cumsum(stored.sum(axis=0))]).astype(np.int64)
        return cls(len(values), start, row.astype(np.uint32), values[row, unit], positions[row, unit])

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """The tables of consecutive rows as one; all have the same units."""
        counts = np.stack([np.diff(part.start) for part in parts])
        start = np.concatenate([[0], np.cumsum(counts.sum(axis=0))]).astype(np.int64)
        unit = np.concatenate([np.repeat(np.arange(len(count)), count) for count in counts])
        order = np.argsort(unit, kind="stable")
        before = np.cumsum([0, *(part.rows for part in parts)])
        row = np.concatenate([part.row + np.uint32(first) for part, first in zip(parts, before, strict=False)])
        value, position = (np.concatenate([getattr(part, name) for part in parts]) for name in ("value", "position"))
        return cls(int(before[-1]), start, row[order], value[order], position[order])

    def dense(self) -> tuple[Float32, NDArray[np.integer]]:
        """Values and positions, both (rows, units)."""
        shape = (self.rows, len(self.start) - 1)
        values, positions = np.zeros(shape, np.float32), np.zeros(shape, self.position.dtype)
        unit = np.repeat(np.arange(shape[1]), np.diff(self.start))
        values[self.row, unit], positions[self.row, unit] = self.value, self.position
        return values, positions

    @property
    def smaller(self) -> bool:
        """Whether the stored cells take fewer bytes than the dense table."""
        return len(self.row) * (8 + self.position.itemsize) < self.rows * (len(self.start) - 1) * (
            4 + self.position.itemsize
        )


def arrays(values: Float32, positions: NDArray[np.integer]) -> dict[str, NDArray[Any]]:
    """A table as named arrays: stored cells if they take fewer bytes, else `value` and `position`."""
    found = Columns.of(values, positions)
    if not found.smaller:
        return {"value": values, "position": positions}
    return {"start": found.start, "row": found.row, "cells": found.value, "places": found.position}
