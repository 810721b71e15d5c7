"""The numbers of a unit over all photographs of an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchmine.store.reading import Store
from patchmine.store.statistics import TIED
from patchmine.units import Unit


@dataclass(frozen=True)
class Statistics:
    """A unit's activations over all photographs. `tied` counts those that hold its very maximum."""

    mean: float
    std: float
    minimum: float
    maximum: float
    positive: float
    tied: int

    @classmethod
    def of(cls, stats: Mapping[str, Any], channel: int) -> Statistics:
        """Those of one channel, from the arrays of its layer as `Store.stats` gives them."""
        numbers = {name: float(stats[name][channel]) for name in ("mean", "std", "minimum", "maximum", "positive")}
        return cls(**numbers, tied=int(stats["tied"][channel]))

    @property
    def finite(self) -> bool:
        """Whether any photograph has a finite activation; without one, the mean and the shares mean nothing."""
        return self.maximum >= self.minimum

    @property
    def saturated(self) -> bool:
        return self.tied > TIED

    @property
    def dead(self) -> bool:
        """Never above 0, or the same for every photograph."""
        return self.finite and (self.maximum <= 0 or self.maximum == self.minimum)

    @property
    def marks(self) -> list[str]:
        """The reasons to doubt the unit's rankings: dead, saturated, non-finite."""
        found = {"dead": self.dead, "saturated": self.saturated, "non-finite": not self.finite}
        return [mark for mark, holds in found.items() if holds]


def left_out(store: Store, index: str, unit: Unit) -> str | None:
    """On how many photographs of an index a unit is not finite, in words; None without any.

    Only an index with a table tells, or a unit that is finite on no photograph.
    """
    (counted,) = (entry["non_finite"] for entry in store.manifest["layers"] if entry["layer"] == unit.layer)
    if not counted:
        return None
    if not Statistics.of(store.stats(unit.layer), unit.channel).finite:
        return f"{unit} has no patch in {index}, being finite on no photograph"
    if not store.has_table:
        return None
    values, _ = store.column(unit.layer, unit.channel)
    count = int(len(values) - np.isfinite(values).sum())
    return f"not finite on {count} of {len(values)} photographs, which never rank" if count else None
