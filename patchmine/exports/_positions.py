"""One pass over all photographs for what only all positions tell; the index keeps the quantiles and averages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from patchmine.exports import Export
from patchmine.kept import positions
from patchmine.kept.positions import FILE, LEVELS, Positions
from patchmine.quantiles import Sketch
from patchmine.system.atomic import unwritable


@contextmanager
def measured(export: Export) -> Iterator[Positions]:
    """The statistics that the index keeps, measured now if it keeps none: all its layers in one pass.

    Those of an index that cannot be written last for the block. Memory is bounded: 64 kB for each unit and the averages
    of a batch. Raises what `_maps.batches` raises.
    """
    index = export.index
    kept = _kept(export, index.directory)
    if kept is not None:
        yield kept
        return
    why = unwritable(index.directory)
    with TemporaryDirectory(prefix="patchmine-") as elsewhere:
        folder = index.directory if why is None else Path(elsewhere)
        once = f" ({FILE} cannot be kept: {why})" if why is not None else f", which {FILE} keeps"
        export.progress.note(f"measuring all positions of all photographs{once}")
        _measure(export, folder)
        found = _kept(export, folder)
        assert found is not None
        yield found


def _kept(export: Export, folder: Path) -> Positions | None:
    index = export.index
    return positions.read(folder, index.store.manifest["job_digest"], index.layers, len(index))


def _measure(export: Export, folder: Path) -> None:
    from patchmine.exports._maps import batches

    index = export.index
    sketches = {layer: Sketch(units) for layer, units in index.layers.items()}
    export.progress.begin(len(index), 0, "photographs")
    with positions.writing(folder, index.store.manifest["job_digest"], index.layers, len(index)) as writer:
        for batch in batches(index, range(len(index)), list(index.layers), export.asked.workers):
            for layer, maps in batch.maps.items():
                values = maps.flatten(2).numpy()
                sketches[layer].add(values)
                with np.errstate(invalid="ignore", over="ignore"):
                    averages = values.mean(2, dtype=np.float64).astype(np.float32)
                writer.mean(layer, _rows(batch.images.tolist()), averages)
            export.progress.advance(len(batch.images))
        for layer, sketch in sketches.items():
            writer.quantiles(layer, sketch.quantiles(np.array(LEVELS)))


def _rows(images: Sequence[int]) -> slice | list[int]:
    """The rows of these photographs as HDF5 takes them; ids of one input size ascend, and mostly follow each other."""
    first, last = images[0], images[-1]
    return slice(first, last + 1) if last - first + 1 == len(images) else list(images)
