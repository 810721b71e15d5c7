"""Relevance that was computed before: of an index before it was extended, or of the indexes that are merged.

The relevance of a photograph depends on the photograph and the network alone, so rows are found again by its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import StoreError
from patchmine.relevance import table
from patchmine.relevance.table import PER_IMAGE, PER_UNIT, Conservation, Layer, Origin, Relevances
from patchmine.store.reading import Store
from patchmine.system import digests

_ROWS = 4096

Arrays = Mapping[str, NDArray[Any]]


class Known:
    """The rows of several relevance files, by the digest of the photograph."""

    def __init__(self, files: Sequence[Relevances]) -> None:
        self.files = files
        self._places: dict[bytes, tuple[int, int]] = {}
        for number, file in enumerate(files):
            for row, digest in enumerate(file.images("digest").tolist()):
                self._places.setdefault(digest, (number, row))

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._places

    def images(self, name: str, wanted: Sequence[bytes]) -> NDArray[Any]:
        """A column of these photographs, (photographs,)."""
        return self._taken(wanted, lambda file: file.images(name))

    def rows(self, layer: str, name: str, wanted: Sequence[bytes]) -> NDArray[Any]:
        """What a layer has of these photographs: (photographs, units), or (photographs,)."""
        return self._taken(wanted, lambda file: file.of_layer(layer, name))

    def _taken(self, wanted: Sequence[bytes], data: Callable[[Relevances], Any]) -> NDArray[Any]:
        places = np.array([self._places[digest] for digest in wanted], np.int64).reshape(-1, 2)
        found: NDArray[Any] | None = None
        for number in np.unique(places[:, 0]):
            here = np.flatnonzero(places[:, 0] == number)
            rows = places[here, 1]
            block = data(self.files[number])[rows.min() : rows.max() + 1][rows - rows.min()]
            if found is None:
                found = np.empty((len(wanted), *block.shape[1:]), block.dtype)
            found[here] = block
        return np.zeros(0) if found is None else found


def before(directory: Path, network: str) -> Relevances | None:
    """The relevance that the index has of an earlier set of its photographs; a damaged file counts as none."""
    try:
        found = table.opened(directory)
    except StoreError:
        return None
    if found is None or (found.origin.network == network and not found.changed()):
        return found
    found.close()
    return None


def join(directory: Path, network: str, parts: Sequence[Path]) -> str | None:
    """Put the relevance of the indexes `parts` into the one in `directory`, which was merged from them.

    Returns why not, if some have relevance but it does not make up that of the whole. Raises OSError.
    """
    if not any((part / table.FILE).exists() for part in parts):
        return None
    store = Store(directory)
    wanted = [record.digest.encode() for record in store.records()]
    with ExitStack() as stack:
        files: list[Relevances] = []
        for part in parts:
            found = before(part, network)
            if found is None:
                return f"{part} has none of this network that is whole"
            files.append(stack.enter_context(closing(found)))
            if found.origin.how != files[0].origin.how or found.shape != files[0].shape:
                return f"{parts[0]} and {part} have it of different decisions, rules or layers"
        known = Known(files)
        if not all(digest in known for digest in wanted):
            return "it lacks photographs of the merged index"
        origin = replace(
            files[0].origin,
            index=str(store.manifest["job_digest"]),
            photographs=digests.of_json([digest.decode() for digest in wanted]),
        )
        layers = [_layer(known, figures, wanted) for figures in files[0].layers]
        columns = {name: known.images(name, wanted) for name in table.COLUMNS}
        table.write(directory, origin, layers, columns, len(wanted))
    return None


def _layer(known: Known, figures: Conservation, wanted: Sequence[bytes]) -> Layer:
    conserved, placed = (known.rows(figures.layer, name, wanted) for name in PER_IMAGE)
    found = Conservation.of(figures.layer, conserved, placed, figures.bypassed)
    first = known.files[0]
    return Layer(found, *first.shape[figures.layer], partial(_tables, known, figures.layer, wanted))


def _tables(known: Known, layer: str, wanted: Sequence[bytes]) -> Iterator[Arrays]:
    for start in range(0, len(wanted), _ROWS):
        part = wanted[start : start + _ROWS]
        yield {name: known.rows(layer, name, part) for name in (*PER_UNIT, *PER_IMAGE)}


def decision(directory: Path) -> Origin | None:
    """How the relevance was made that the index has, be it of an earlier set of its photographs."""
    try:
        found = table.opened(directory)
    except StoreError:
        return None
    if found is None:
        return None
    found.close()
    return found.origin
