"""Rows of finished indexes, reused so that the same photographs are not computed again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import PhotographError, StoreError
from patchmine.executors import Reduced
from patchmine.ranking import CELLS, Int64, TopK, among
from patchmine.sources import Entry, Source
from patchmine.store.reading import MANIFEST, Store
from patchmine.system import digests
from patchmine.system.progress import Progress

_ROWS = 4096  # of the table in memory at once: the rows of a chunk
_CELLS = 1 << 24  # at most, which a wide layer reaches with fewer rows


@dataclass(frozen=True)
class Place:
    """A photograph's row in one of the stores, or the `reason` why it could not be read when that was built."""

    store: int
    row: int
    digest: str
    reason: str | None = None


class Known:
    """Rows of finished indexes of one job, by the path of their photograph. Safe to use from any thread."""

    def __init__(self, stores: Sequence[Store]) -> None:
        """Raises StoreError if a store has no table: it has no rows to reuse."""
        self.places: dict[str, Place] = {}
        self._open(stores)
        for number, store in enumerate(stores):
            # A photograph may be listed more than once: the first has the vector, if any does.
            self.places |= {r.path: Place(number, r.image, r.digest) for r in reversed(store.records())}
            skipped = store.manifest["skipped_files"]
            self.places |= {entry["image"]: Place(number, -1, "", entry["reason"]) for entry in skipped}

    def _open(self, stores: Sequence[Store]) -> None:
        self._stores = list(stores)
        self._tables = [{layer: _Table(store, layer) for layer in store.channels} for store in stores]

    def __getstate__(self) -> dict[str, Any]:
        """Only the folders of the indexes and the places in them are pickled, not open files and locks."""
        return {"places": self.places, "stores": [store.directory for store in self._stores]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.places = state["places"]
        self._open([Store(directory) for directory in state["stores"]])

    def forget(self, paths: Iterable[str]) -> None:
        """Forget these photographs: they are recomputed or dropped."""
        for path in paths:
            self.places.pop(path, None)

    def changed(self, source: Source, workers: int, advance: Callable[[int], None]) -> set[str]:
        """Photographs whose bytes have changed, including those that cannot be read now or could not be then."""

        def differs(path: str) -> bool:
            try:
                return digests.of_bytes(source.read(path)) != self.places[path].digest
            except PhotographError:
                return True
            finally:
                advance(1)

        paths = list(self.places)
        with ThreadPoolExecutor(workers) as pool:
            return {path for path, differ in zip(paths, pool.map(differs, paths), strict=True) if differ}

    def without_vectors(self) -> set[str]:
        """Photographs that now belong in the top of some unit but whose vectors the finished index did not store.

        When a photograph is removed, a unit's next best one moves up and must be recomputed.
        """
        missing: set[str] = set()
        for number, store in enumerate(self._stores):
            here = (place for place in self.places.values() if place.store == number and place.reason is None)
            rows = np.array(sorted(place.row for place in here), np.int64)
            for table in self._tables[number].values():
                top = TopK.empty(table.units, store.keep)
                for values, places, images in table.parts(rows):
                    top = top.merge(TopK.of_batch(values, places, images, store.keep))
                pairs = np.unique(top.images[top.filled] * CELLS + top.positions[top.filled])
                lost = pairs[~among(pairs, table.kept)]
                missing |= {store.image(int(image)).path for image in np.unique(lost // CELLS)}
        return missing

    def size(self, place: Place) -> tuple[int, int]:
        """(width, height) of that photograph in source pixels; (0, 0) if it could not be read."""
        return (0, 0) if place.reason is not None else self._stores[place.store].image(place.row).size

    def prediction(self, place: Place) -> str | None:
        """The class that the network predicted for that photograph."""
        return None if place.reason is not None else self._stores[place.store].image(place.row).prediction

    def without_prediction(self) -> set[str]:
        """Photographs without a prediction."""
        return {path for path, place in self.places.items() if place.reason is None and self.prediction(place) is None}

    def reduced(self, places: Sequence[Place]) -> dict[str, Reduced]:
        """The result that an executor would return for these photographs, by layer, in this order."""
        return {layer: self._of_layer(layer, places) for layer in self._tables[0]}

    def _of_layer(self, layer: str, places: Sequence[Place]) -> Reduced:
        parts = [self._tables[place.store][layer].row(place.row) for place in places]
        kept = [self._tables[place.store][layer].vectors(place.row) for place in places]
        counts = [len(at) for at, _ in kept]
        return Reduced(
            value=np.stack([value for value, _ in parts]),
            position=np.stack([position for _, position in parts]).astype(np.int64),
            row=np.repeat(np.arange(len(places)), counts),
            place=np.concatenate([at for at, _ in kept]),
            vectors=np.concatenate([vectors for _, vectors in kept]),
        )


class _Table:
    """One layer of one store, read in blocks of rows, since photographs are requested in order."""

    def __init__(self, store: Store, layer: str) -> None:
        self.value, self.position = store.table_on_disk(layer)
        self.units = store.channels[layer]
        self._rows = max(1, min(_ROWS, _CELLS // self.units))
        self._vectors, image, position = store.vectors(layer)
        self.kept: Int64 = image * CELLS + position
        self._images = image
        self._places = position
        self._lock = threading.Lock()
        self._first = -1
        self._block: tuple[NDArray[np.float32], NDArray[np.integer]] | None = None

    def row(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        with self._lock:
            first = row - row % self._rows
            if self._block is None or first != self._first:
                rows = slice(first, first + self._rows)
                self._block, self._first = (self.value[rows], self.position[rows]), first
            return self._block[0][row - first].copy(), self._block[1][row - first].copy()

    def parts(self, rows: Int64) -> Iterable[tuple[NDArray[np.float32], NDArray[np.integer], Int64]]:
        """Values, positions and row numbers of these rows, block by block."""
        for first in np.unique(rows - rows % self._rows):
            chosen = rows[(rows >= first) & (rows < first + self._rows)]
            whole = slice(int(first), int(first) + self._rows)
            yield self.value[whole][chosen - first], self.position[whole][chosen - first], chosen

    def vectors(self, row: int) -> tuple[Int64, NDArray[np.float16]]:
        """The places of that photograph that have a stored vector, and the vectors."""
        start, stop = np.searchsorted(self._images, [row, row + 1])
        return self._places[start:stop], self._vectors[start:stop]


def joined(parts: Sequence[tuple[Int64, Mapping[str, Reduced]]]) -> list[tuple[Int64, dict[str, Reduced]]]:
    """Join the parts of one block, with the photographs in ascending order."""
    if len(parts) < 2:
        return [(images, dict(reduced)) for images, reduced in parts]
    images = np.concatenate([images for images, _ in parts])
    order = np.argsort(images)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    offsets = np.cumsum([0, *(len(images) for images, _ in parts[:-1])])

    def of_layer(layer: str) -> Reduced:
        pieces: list[Any] = [reduced[layer] for _, reduced in parts]
        row = rank[np.concatenate([piece.row + offset for piece, offset in zip(pieces, offsets, strict=True)])]
        by_row = np.argsort(row, kind="stable")
        return Reduced(
            value=np.concatenate([piece.value for piece in pieces])[order],
            position=np.concatenate([piece.position for piece in pieces])[order],
            row=row[by_row],
            place=np.concatenate([piece.place for piece in pieces])[by_row],
            vectors=np.concatenate([piece.vectors for piece in pieces])[by_row],
        )

    return [(images[order], {layer: of_layer(layer) for layer in parts[0][1]})]


def of_finished(
    directory: Path,
    source: Source,
    entries: Sequence[Entry],
    predicted: bool,
    finished: bool,
    workers: int,
    progress: Progress,
) -> Known | None:
    """The rows of the finished index in a directory that `--extend` reuses; None without one.

    With `predicted`, photographs without a prediction are recomputed. Raises StoreError if no photograph was added or
    removed (`finished`) but some have changed: the job of the old index would equal that of the new one.
    """
    if not (directory / MANIFEST).exists():
        return None
    known = Known([Store(directory)])
    known.forget(known.places.keys() - {entry.path for entry in entries})
    known.forget([path for path, place in known.places.items() if place.reason is not None])
    progress.begin(len(known.places), 0, "photographs compared")
    changed = known.changed(source, workers, progress.advance)
    if finished and changed:
        raise StoreError(
            f"{len(changed)} photographs have changed, the first {min(changed)!r}, but none was added or removed, so "
            "--extend cannot update the index: build it again with --fresh"
        )
    known.forget(changed)
    known.forget(known.without_vectors())
    if predicted:
        known.forget(known.without_prediction())
    return known
