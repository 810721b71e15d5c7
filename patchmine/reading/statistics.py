"""The numbers of a unit over all photographs of an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchmine.store.reading import TIED


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
    def saturated(self) -> bool:
        return self.tied > TIED

    @property
    def dead(self) -> bool:
        """Never above 0, or the same for every photograph."""
        return self.maximum <= 0 or self.maximum == self.minimum

    @property
    def marks(self) -> list[str]:
        """The reasons to doubt the unit's rankings: dead, saturated."""
        return [mark for mark in ("dead", "saturated") if getattr(self, mark)]
