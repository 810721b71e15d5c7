"""Pictures of the photographs inside the index: a sheet drawn from them needs no photograph."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np

from patchmine.errors import PhotographError, StoreError
from patchmine.kept import embedded
from patchmine.units import Box

if TYPE_CHECKING:
    from pathlib import Path

    from patchmine.photographs.placement import Placement
    from patchmine.store.reading import Store
    from patchmine.system.progress import Progress

    class Photographs(Protocol):
        """An opened index, as far as its pictures need it."""

        directory: Path
        store: Store

        @property
        def layers(self) -> dict[str, int]: ...
        def path(self, image: int) -> str: ...
        def digest(self, image: int) -> str: ...
        def photograph(self, image: int) -> bytes: ...
        def placement(self, image: int) -> Placement: ...


def embed(index: Photographs, k: int, workers: int, progress: Progress) -> tuple[int, int]:
    """Put pictures of the photographs with one of the k best patches of any unit into the index; those it holds stay.

    Returns how many of these photographs it has pictures of, and their bytes. A photograph that cannot be read is
    reported. Raises StoreError if the index cannot be written, SourceError if the source has disappeared.
    """
    images = _of_best(index, k)
    progress.begin(len(images), 0, "photographs")
    pool = ThreadPoolExecutor(workers, "embed")
    sizes = []
    try:
        for image, size in zip(images, pool.map(lambda image: _embedded(index, image), images), strict=True):
            progress.advance(1)
            if isinstance(size, str):
                progress.note(f"{index.path(image)}: {size}")
            else:
                sizes.append(size)
    finally:
        pool.shutdown(cancel_futures=True)
    return len(sizes), sum(sizes)


def _of_best(index: Photographs, k: int) -> list[int]:
    """The photographs that hold one of the k best patches of any unit, ascending."""
    tops = [index.store.top_of_all(layer) for layer in index.layers]
    found = [top.images[:, :k][top.filled[:, :k]] for top in tops]
    return [int(image) for image in np.unique(np.concatenate(found))]


def _embedded(index: Photographs, image: int) -> int | str:
    """The bytes of the picture of a photograph, or why there is none."""
    digest, placement = index.digest(image), index.placement(image)
    try:
        if not embedded.size(index.directory, digest):
            photograph, seen = index.photograph(image), placement.to_source(Box(0, 0, *placement.input))
            embedded.write(index.directory, digest, photograph, seen)
        return embedded.size(index.directory, digest)
    except PhotographError as error:
        return str(error)
    except OSError as error:
        raise StoreError(
            f"no picture can be put into {str(index.directory)!r} ({error.strerror or error}): mend that and run the "
            "same command again to resume"
        ) from None
