"""One pass over all photographs for what only all positions tell; the index keeps the quantiles and averages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchmine.exports import Export
from patchmine.kept import positions
from patchmine.kept.positions import LEVELS, Positions
from patchmine.quantiles import Sketch


def of_index(export: Export) -> Positions:
    """The statistics that the index keeps, measured now if it keeps none: all its layers in one pass.

    Memory is bounded: 64 kB for each unit and the averages of a batch. Raises StoreError if the result cannot be kept,
    and what `_maps.batches` raises.
    """
    index = export.index
    at = (index.directory, index.store.manifest["job_digest"], index.layers, len(index))
    kept = positions.read(*at)
    if kept is None:
        _measure(export, at)
        kept = positions.read(*at)
        assert kept is not None
    return kept


def _measure(export: Export, at: tuple[object, ...]) -> None:
    from patchmine.exports._maps import batches

    index = export.index
    sketches = {layer: Sketch(units) for layer, units in index.layers.items()}
    export.progress.note("positions.h5 is not in the index yet: measuring all positions of all photographs, once")
    export.progress.begin(len(index), 0, "photographs")
    with positions.writing(*at) as writer:  # type: ignore[arg-type]
        for batch in batches(index, range(len(index)), list(index.layers), export.asked.run.workers):
            for layer, maps in batch.maps.items():
                values = maps.flatten(2).numpy()
                sketches[layer].add(values)
                with np.errstate(invalid="ignore", over="ignore"):
                    writer.mean(
                        layer, _rows(batch.images.tolist()), values.mean(2, dtype=np.float64).astype(np.float32)
                    )
            export.progress.advance(len(batch.images))
        for layer, sketch in sketches.items():
            writer.quantiles(layer, sketch.quantiles(np.array(LEVELS)))


def _rows(images: Sequence[int]) -> slice | list[int]:
    """The rows of these photographs as HDF5 takes them; ids of one input size ascend, and mostly follow each other."""
    first, last = images[0], images[-1]
    return slice(first, last + 1) if last - first + 1 == len(images) else list(images)
