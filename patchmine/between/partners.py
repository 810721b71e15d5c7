"""The partner of each unit: the unit of another index that correlates with it most over the shared photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from patchmine.between.correlation import Float64, correlations
from patchmine.between.shared import Side
from patchmine.ranking import Int64
from patchmine.units import Unit

DRAWS = 5
"""Permutations of the photographs for the chance level; each gives a best correlation for every unit."""

CHANCE = 0.95
"""The quantile of the best correlations under permutation that is the chance level of a layer."""

_EQUAL = 1e-9  # correlations that differ by less are equal: the unit of the same name comes first


@dataclass(frozen=True)
class Partners:
    """The partners of all units of one index in the other, both ways. Arrays are by layer, each (units,).

    `own` is the correlation with the unit of the same name, NaN where there is none or one of both never varies. `best`
    are the partners in the other index, `back` those of the other index's units in this one. `chance` is the chance
    level of each layer, None where it was not computed.
    """

    own: Mapping[str, Float64]
    best: Mapping[str, Best]
    back: Mapping[str, Best]
    chance: Mapping[str, float | None]


@dataclass(frozen=True)
class Best:
    """The best partner so far of each unit of a layer, among `layers` of the other index.

    `value` is the correlation, -inf where there is no partner; `layer` the number of the partner's layer, `unit` its
    channel, -1 without a partner.
    """

    layers: tuple[str, ...]
    value: Float64
    layer: Int64
    unit: Int64

    @classmethod
    def none(cls, units: int, layers: tuple[str, ...]) -> Best:
        return cls(layers, np.full(units, -np.inf), np.zeros(units, np.int64), np.full(units, -1, np.int64))

    def take(self, found: Float64, layer: str, same: bool) -> None:
        """Take over what is better among the units of another layer: `found` is (units, units there), finite or -inf.

        With `same` the layer has the same name, and of equal partners the unit of the same channel is taken.
        """
        unit = found.argmax(axis=1)
        value = found.max(axis=1)
        if same:
            channel = np.arange(min(found.shape))
            alike = found[channel, channel]
            tied = (alike >= value[channel] - _EQUAL) & np.isfinite(alike)
            unit[channel[tied]] = channel[tied]
        better = np.isfinite(value) & (value > self.value + (-_EQUAL if same else _EQUAL))
        self.value[better], self.unit[better] = value[better], unit[better]
        self.layer[better] = self.layers.index(layer)

    def of(self, unit: int) -> Unit | None:
        return None if self.unit[unit] < 0 else Unit(self.layers[self.layer[unit]], int(self.unit[unit]))


def partners(first: Side, second: Side, layers: Sequence[str]) -> Partners:
    """The partners of all units. The chance level is computed for these layers of the first index alone.

    It is what the best of so many units reaches if the photographs of the second index are put in another order: the
    CHANCE quantile over DRAWS orders and all units of the layer. Raises StoreError for an index without a table.
    """
    here, there = first.index.layers, second.index.layers
    best = {layer: Best.none(units, tuple(there)) for layer, units in here.items()}
    back = {layer: Best.none(units, tuple(here)) for layer, units in there.items()}
    own = {layer: np.full(units, np.nan) for layer, units in here.items()}
    chance: dict[str, float | None] = {}
    orders = [np.random.default_rng(draw).permutation(len(first.images)) for draw in range(DRAWS)]
    for layer in here:
        values = first.values(layer)
        by_chance = np.full((len(orders), len(best[layer].value)), -np.inf)
        for other in there:
            others = second.values(other)
            found = correlations(values, others)
            if layer == other:
                channels = np.arange(min(found.shape))
                own[layer][channels] = found[channels, channels]
            found = np.nan_to_num(found, copy=False, nan=-np.inf)
            best[layer].take(found, other, layer == other)
            back[other].take(found.T, layer, layer == other)
            for row, order in zip(by_chance, orders if layer in layers else (), strict=False):
                drawn = np.nan_to_num(correlations(values[order], others), copy=False, nan=-np.inf)
                np.maximum(row, drawn.max(axis=1), out=row)
        known = by_chance[np.isfinite(by_chance)]
        chance[layer] = float(np.quantile(known, CHANCE)) if len(known) else None
    return Partners(own, best, back, chance)


__all__ = ["Best", "Partners", "partners"]
