"""Which units of an index are worth a first look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchmine.reading.opened import Index, IndexedUnit
from patchmine.units import Position

STRONGEST = 4


def telling_units(index: Index, layers: Sequence[str], each: int) -> list[IndexedUnit]:
    """The `each` units of every layer whose strongest photographs stand out most from the rest.

    A unit's score is the distance of the mean of its four highest activations from the mean of all, in standard
    deviations, times the share of those four receptive fields that lies inside the picture. A unit that one photograph
    alone drives scores less than one that four drive, and one that fires at the border less than one that fires at
    something. Units that saturate or never vary are left out, and so is one whose best photograph an earlier choice
    has shown already, so that the sheet is not full of one picture.
    """
    chosen: list[IndexedUnit] = []
    shown: set[int] = set()
    for layer in layers:
        stats = index.stats(layer)
        best, visible = np.transpose([_strongest(index, layer, channel) for channel in range(index.layers[layer])])
        spread = np.where(stats["std"] > 0, stats["std"], np.inf)
        score = np.where(stats["tied"] > 1, -np.inf, (best - stats["mean"]) / spread * visible)
        taken = 0
        for channel in np.argsort(-score, kind="stable"):
            unit = index.unit(f"{layer}:{channel}")
            first = index.store.top(layer, int(channel))[1]
            if taken == each or not len(first):
                break
            if int(first[0]) not in shown:
                shown.update(first[:2].tolist())
                chosen.append(unit)
                taken += 1
    return chosen


def _strongest(index: Index, layer: str, channel: int) -> tuple[float, float]:
    """Mean activation of the strongest patches, and the mean share of their fields inside the picture."""
    values, images, places = (array[:STRONGEST] for array in index.store.top(layer, channel))
    if not len(values):
        return -np.inf, 0.0
    fields = [index.field(layer, int(image)) for image in images]
    visible = [
        field.visible(channel, Position(*divmod(int(place), field.grid[1])))
        for field, place in zip(fields, places, strict=True)
    ]
    return float(values.mean()), float(np.mean(visible))
