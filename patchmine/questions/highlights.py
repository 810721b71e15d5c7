"""Chooses the units of an index that are worth a first look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from patchmine.reading.opened import OpenIndex, OpenUnit
from patchmine.units import Position, Unit

STRONGEST = 4


def telling_units(index: OpenIndex[Any], layers: Sequence[str], each: int) -> list[OpenUnit]:
    """The `each` units of every layer whose strongest photographs stand out most from the rest.

    A unit's score is the distance of the mean of its four highest activations from the mean of all, in standard
    deviations, times the share of those four receptive fields that lies inside the image. A unit driven by one
    photograph scores less than one driven by four, and a unit that fires at the border scores less than one that fires
    at content.

    Units that saturate or never vary are left out. So is a unit whose best photograph an earlier choice already shows,
    so that one photograph does not fill the sheet.
    """
    chosen: list[OpenUnit] = []
    shown: set[int] = set()
    for layer in layers:
        stats = index.stats(layer)
        best, visible = np.transpose([_strongest(index, layer, channel) for channel in range(index.layers[layer])])
        spread = np.where(stats["std"] > 0, stats["std"], np.inf)
        score = np.where(stats["tied"] > 1, -np.inf, (best - stats["mean"]) / spread * visible)
        taken = 0
        for channel in np.argsort(-score, kind="stable"):
            unit = index.unit(Unit(layer, int(channel)))
            first = index.store.top(layer, int(channel))[1]
            if taken == each or not len(first):
                break
            if int(first[0]) not in shown:
                shown.update(first[:2].tolist())
                chosen.append(unit)
                taken += 1
    return chosen


def _strongest(index: OpenIndex[Any], layer: str, channel: int) -> tuple[float, float]:
    """The mean activation of the strongest patches, and the mean share of their fields inside the image."""
    values, images, places = (array[:STRONGEST] for array in index.store.top(layer, channel))
    if not len(values):
        return -np.inf, 0.0
    fields = [index.field(layer, int(image)) for image in images]
    visible = [
        field.visible(channel, Position(*divmod(int(place), field.grid[1])))
        for field, place in zip(fields, places, strict=True)
    ]
    return float(values.mean()), float(np.mean(visible))
