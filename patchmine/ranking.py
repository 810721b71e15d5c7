"""The running top-k of every unit, as a value: start empty, add a batch, merge two.

Candidates have a total order, so that shards, workers and resuming cannot change an answer: value descending,
then image id ascending. An image enters a unit's ranking once, with the position of its maximum, so image ids
settle every tie.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Keys = NDArray[np.uint64]

NO_IMAGE = 2**32 - 1
"""The image id of an empty slot; real ids are smaller."""

CELLS = 2**32
"""More cells than any grid has: image * CELLS + position orders (image, position) pairs for grids of any size."""

_SIGN = np.uint32(0x80000000)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def sort_keys(value: Float32, image: Int64) -> Keys:
    """One uint64 key per candidate; ascending keys give the order of candidates. The arguments broadcast.

    The upper half of a key holds the bits of the value, rearranged so that they sort in descending order of value.
    The lower half holds the image id. A value that is not finite gets the key of an empty slot, so it never ranks.
    """
    # Adding 0 turns -0.0 into 0.0: equal numbers must have equal keys.
    bits = np.ascontiguousarray(value + np.float32(0)).view(np.uint32)
    ascending = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    keys = (~ascending).astype(np.uint64) << _SHIFT | np.asarray(image).astype(np.uint64)
    return np.where(np.isfinite(value), keys, _EMPTY_KEY)


def _values_of(keys: Keys) -> Float32:
    ascending = ~(keys >> _SHIFT).astype(np.uint32)
    return np.where(ascending & _SIGN, ascending & ~_SIGN, ~ascending).view(np.float32)


def _empty_key() -> np.uint64:
    bits = np.array(-np.inf, np.float32).view(np.uint32)
    return np.uint64(int(bits)) << _SHIFT | np.uint64(NO_IMAGE)


_EMPTY_KEY = _empty_key()


class TopK(NamedTuple):
    """The best `k` candidates of each unit, best first.

    `keys`, uint64 (units, k), encode value and image; `positions`, int64 (units, k), are y * grid width + x.
    Empty slots come last: value -inf, image NO_IMAGE, position 0.
    """

    keys: Keys
    positions: Int64

    @classmethod
    def empty(cls, units: int, k: int) -> TopK:
        return cls(np.full((units, k), _EMPTY_KEY), np.zeros((units, k), np.int64))

    @classmethod
    def of_batch(cls, values: Float32, positions: NDArray[np.integer], images: Int64, k: int) -> TopK:
        """The top k of one batch: values and positions are (images, units), images are ids (images,)."""
        keys = sort_keys(values.T, images)
        return cls(keys, positions.T.astype(np.int64))._best(k)

    def with_batch(self, values: Float32, positions: NDArray[np.integer], images: Int64) -> TopK:
        """The merge with one batch, as of `of_batch`, faster the fewer candidates rank."""
        keys = sort_keys(values.T, images)
        unit, row = np.nonzero(keys < self.keys[:, -1:])
        if not len(unit):
            return self
        counts = np.bincount(unit)
        slot = np.arange(len(unit)) - (np.cumsum(counts) - counts)[unit]  # a number for each candidate of a unit
        touched, line = np.unique(unit, return_inverse=True)
        more = TopK.empty(len(touched), int(counts.max()))
        more.keys[line, slot] = keys[unit, row]
        more.positions[line, slot] = positions[row, unit]
        best = TopK(self.keys[touched], self.positions[touched]).merge(more)._best(self.k)
        after = TopK(self.keys.copy(), self.positions.copy())
        after.keys[touched], after.positions[touched] = best.keys, best.positions
        return after

    def merge(self, other: TopK) -> TopK:
        """The top k of both; commutative and associative as long as no (unit, image) is in both.

        Raises ValueError if the rankings have different numbers of units.
        """
        if self.keys.shape[0] != other.keys.shape[0]:
            raise ValueError(f"cannot merge rankings of {len(self.keys)} and {len(other.keys)} units")
        both = TopK(
            np.concatenate([self.keys, other.keys], axis=1),
            np.concatenate([self.positions, other.positions], axis=1),
        )
        return both._best(max(self.k, other.k))

    @property
    def k(self) -> int:
        return self.keys.shape[1]

    def _best(self, k: int) -> TopK:
        units, count = self.keys.shape
        keys, positions = self.keys, self.positions
        if count > k:
            chosen = np.argpartition(keys, k - 1, axis=1)[:, :k]
            keys, positions = np.take_along_axis(keys, chosen, 1), np.take_along_axis(positions, chosen, 1)
        order = np.argsort(keys, axis=1)
        keys, positions = np.take_along_axis(keys, order, 1), np.take_along_axis(positions, order, 1)
        positions = np.where(keys == _EMPTY_KEY, 0, positions)
        if count >= k:
            return TopK(keys, positions)
        pad = TopK.empty(units, k - count)
        return TopK(np.hstack([keys, pad.keys]), np.hstack([positions, pad.positions]))

    @property
    def values(self) -> Float32:
        """float32 (units, k)."""
        return _values_of(self.keys)

    @property
    def images(self) -> Int64:
        """int64 (units, k); NO_IMAGE where empty."""
        return (self.keys & _LOW).astype(np.int64)

    @property
    def filled(self) -> NDArray[np.bool_]:
        """bool (units, k); False where empty."""
        return self.keys != _EMPTY_KEY


class Leaders(NamedTuple):
    """The best `k` candidates of each unit so far, unsorted and without positions: the bound for new candidates.

    `keys`, uint64 (units, k), are as in `TopK`, in any order.
    """

    keys: Keys

    @classmethod
    def empty(cls, units: int, k: int) -> Leaders:
        return cls(np.full((units, k), _EMPTY_KEY))

    def with_batch(self, values: Float32, images: Int64) -> Leaders:
        """The leaders after a batch: values (images, units), image ids (images,); faster the fewer candidates rank."""
        keys = sort_keys(values.T, images)
        units = np.flatnonzero((keys < self.keys.max(axis=1, keepdims=True)).any(axis=1))
        if not len(units):
            return self
        both = np.concatenate([self.keys[units], keys[units]], axis=1)
        k = self.keys.shape[1]
        both.partition(k - 1, axis=1)
        after = self.keys.copy()
        after[units] = both[:, :k]
        return Leaders(after)

    @property
    def bound(self) -> tuple[Float32, Int64]:
        """Value, float32, and image id, int64, of the k-th best candidate of each unit, both (units,)."""
        last = self.keys.max(axis=1)
        return _values_of(last), (last & _LOW).astype(np.int64)

    def among(self, images: Int64) -> NDArray[np.bool_]:
        """Whether each image is among the best of each unit: bool (images, units), for ascending ids (images,)."""
        if not len(images):
            return np.zeros((0, len(self.keys)), np.bool_)
        first, span = np.uint64(images[0]), int(images[-1] - images[0]) + 1
        here = (self.keys & _LOW) - first  # unsigned: an id before the first wraps around to the far end
        unit, place = np.nonzero((here < span) & (self.keys != _EMPTY_KEY))
        found = np.zeros((span, len(self.keys)), np.bool_)
        found[here[unit, place].astype(np.int64), unit] = True
        return found[images - images[0]]


def rank_column(values: Float32, descending: bool = True) -> Int64:
    """Image ids, int64, in rank order for one unit's values (images,); values that are not finite are left out.

    `descending=False` ranks the least activating images first: by smallest value, then by smallest image id.
    """
    images = np.arange(len(values), dtype=np.int64)
    keys = sort_keys(values if descending else -values, images)
    order = np.argsort(keys)
    return order[: int(np.isfinite(values).sum())]


def among(numbers: Int64, ascending: Int64) -> NDArray[np.bool_]:
    """Whether each number occurs in a sorted array, bool (numbers,). Unlike np.isin, does not sort it at each call."""
    if not len(ascending):
        return np.zeros(len(numbers), np.bool_)
    place = np.searchsorted(ascending, numbers)
    found: NDArray[np.bool_] = ascending[np.minimum(place, len(ascending) - 1)] == numbers
    return found


def position_dtype(cells: int) -> type[np.uint16] | type[np.uint32]:
    """The dtype in which positions in a grid of `cells` cells are stored."""
    return np.uint16 if cells <= 2**16 else np.uint32
