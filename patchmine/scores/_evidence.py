"""What an index keeps of one layer, for its scores, and an embedding of its photographs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.ranking import CELLS, Float32, Int64
from patchmine.reading.opened import OpenIndex

Float64 = NDArray[np.float64]

BLOCK = 4096
"""Rows that are in memory in full precision at once."""


class Lacking(Exception):  # noqa: N818 - a reason, not an error
    """Why an index has no such score."""


@dataclass(frozen=True)
class Embedding:
    """A vector of length 1 for each of some photographs, float32 (photographs, channels); `images` are their ids.

    The photograph's kept vectors of a layer, minus the mean of all, each of length 1, added up. `layer` is their layer:
    the last of the index. It stands in the place of DINOv2 or CLIP, which the published scores use.
    """

    layer: str
    images: Int64
    vectors: Float32

    @classmethod
    def of(cls, index: OpenIndex[Any]) -> Embedding:
        layer = list(index.layers)[-1]
        kept = Vectors.of(index, layer)
        total = np.zeros((len(index), kept.stored.shape[1]), np.float32)
        for start in range(0, len(kept.stored), BLOCK):
            rows = slice(start, start + BLOCK)
            np.add.at(total, kept.places[rows] // CELLS, unit_length(kept.centered(rows)))
        images = np.flatnonzero(total.any(axis=1)).astype(np.int64)
        return cls(layer, images, unit_length(total[images]))


@dataclass(frozen=True)
class Vectors:
    """The kept vectors of a layer: `stored` float16 (patches, channels), their `mean`, and image * CELLS + position,
    ascending."""

    stored: NDArray[np.float16]
    mean: Float32
    places: Int64

    @classmethod
    def of(cls, index: OpenIndex[Any], layer: str) -> Vectors:
        stored, image, position = index.store.vectors(layer)
        known = np.nan_to_num(stored[:], copy=False, nan=0, posinf=0, neginf=0)
        total = np.zeros(known.shape[1])
        for start in range(0, len(known), BLOCK):
            total += known[start : start + BLOCK].sum(axis=0, dtype=np.float64)
        return cls(known, (total / max(len(known), 1)).astype(np.float32), image * CELLS + position)

    def centered(self, rows: slice | Int64) -> Float32:
        """Some vectors minus the mean, float32 (rows, channels)."""
        found: Float32 = self.stored[rows] - self.mean
        return found


class Evidence:
    """One layer of an index, and the embedding of its photographs; read when first asked for."""

    k = defaults.K
    """The patches that count as a unit's top."""

    def __init__(self, index: OpenIndex[Any], layer: str, embedded: list[Embedding]) -> None:
        """`embedded` holds the embedding, or is empty until the first score needs it."""
        self.index, self.layer, self._embedded = index, layer, embedded

    @property
    def units(self) -> int:
        return self.index.layers[self.layer]

    @property
    def embedding(self) -> Embedding:
        if not self._embedded:
            self._embedded.append(Embedding.of(self.index))
        return self._embedded[0]

    @cached_property
    def values(self) -> Float32:
        """The activations, float32 (images, units). Raises Lacking without a table."""
        if not self.index.store.has_table:
            raise Lacking("the index was built with --no-table and keeps only the top patches")
        return self.index.store.table_on_disk(self.layer)[0][:]

    @cached_property
    def vectors(self) -> Vectors:
        return Vectors.of(self.index, self.layer)


def unit_length(vectors: Float32) -> Float32:
    """The vectors (rows, channels), each divided by its length; 0 stays 0."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Float32 = vectors / np.maximum(length, np.float32(1e-12))
    return scaled
