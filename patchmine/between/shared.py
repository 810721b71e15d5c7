"""The photographs that two indexes share, and each index's activations on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import RequestError
from patchmine.fields.cropping import Cropping
from patchmine.ranking import NO_IMAGE, Float32, Int64, TopK, sort_keys
from patchmine.reading.answers import Patches, counted
from patchmine.reading.cropped import cropped, seat_of
from patchmine.reading.opened import OpenIndex
from patchmine.units import Unit

LEAST = 0.5
"""The share of the smaller index's photographs that the other must have, or the two are not compared."""


@dataclass(frozen=True)
class Side:
    """An index and the ids of the shared photographs in it, int64 (shared,): row i is one photograph on both sides."""

    index: OpenIndex[Any]
    images: Int64

    def values(self, layer: str) -> Float32:
        """The activations of a layer on the shared photographs, float32 (shared, units). Raises StoreError without a
        table."""
        values, _ = self.index.store.table_on_disk(layer)
        whole = values[:]
        return whole if len(whole) == len(self.images) and _is_range(self.images) else whole[self.images]

    def tops(self, layer: str, k: int, values: Float32 | None) -> list[Int64]:
        """The rows of the k shared photographs that drive each unit hardest, best first; fewer where fewer are finite.

        Without `values`, those of the layer, they come from the top patches that the index keeps.
        """
        if values is not None:
            best = TopK.of_batch(values, np.zeros(values.shape, np.int64), np.arange(len(values)), k)
        else:
            best = self._kept(layer, k)
        return [images[filled] for images, filled in zip(best.images, best.filled, strict=True)]

    def _kept(self, layer: str, k: int) -> TopK:
        """Equal values are ordered by row, so that both sides order them alike."""
        kept = self.index.store.top_of_all(layer)
        rows = np.full(len(self.index), NO_IMAGE, np.int64)
        rows[self.images] = np.arange(len(self.images))
        at = rows[np.where(kept.filled, kept.images, 0)]
        values = np.where(kept.filled & (at != NO_IMAGE), kept.values, np.float32(-np.inf))
        keys = np.sort(sort_keys(values, at), axis=1)[:, :k]
        return TopK(keys, np.zeros(keys.shape, np.int64))


def sides(first: OpenIndex[Any], second: OpenIndex[Any]) -> tuple[Side, Side]:
    """Both indexes with the photographs that they share, by the digest of their bytes, in the order of the first.

    Raises RequestError if they share less than LEAST of the photographs of the smaller one.
    """
    where: dict[str, list[int]] = defaultdict(list)
    for record in reversed(second.store.records()):
        where[record.digest].append(record.image)
    # A copy of a photograph meets a copy of it: each is taken once.
    pairs = [(record.image, where[record.digest].pop()) for record in first.store.records() if where.get(record.digest)]
    smaller = min(len(first), len(second))
    if len(pairs) < LEAST * smaller:
        raise RequestError(
            f"{first.name} and {second.name} share {counted(len(pairs), 'photograph', 'photographs')}, fewer than "
            f"{LEAST:.0%} of the {smaller} of the smaller one: index the same photographs with both networks"
        )
    both: NDArray[np.int64] = np.array(pairs, np.int64).reshape(-1, 2)
    return Side(first, both[:, 0]), Side(second, both[:, 1])


def best(
    index: OpenIndex[Any], unit: Unit, k: int, photographs: Container[str], cropping: Cropping | None = None
) -> Patches:
    """The k best patches of a unit among the photographs with these digests, numbered from 1; fewer where fewer are
    known."""
    deepest = len(index) if index.store.has_table else min(len(index), index.store.keep)
    depth = min(k, deepest)
    while True:
        ranked = [patch for patch in index.unit(unit).top(depth) if index.digest(patch.image_id) in photographs]
        if len(ranked) >= k or depth == deepest:
            break
        depth = min(2 * depth, deepest)
    cropping = cropping or Cropping()
    settled = index.settled(unit, cropping)
    patches = [
        index.patch(unit, rank, patch.value, patch.image_id, seat_of(patch).place, settled)
        for rank, patch in enumerate(ranked[:k], 1)
    ]
    patches, settled = cropped(index, patches, cropping, settled)
    return Patches(patches, index, unit=unit, cropping=settled)


def _is_range(images: Int64) -> bool:
    return bool((images == np.arange(len(images))).all())
