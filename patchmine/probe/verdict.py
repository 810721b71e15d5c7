"""From what remains of the activation to a verdict in words, with intervals over patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import UnitError
from patchmine.units import Unit

SUFFICES = 0.5
"""What alone brings back at least this share of the activation suffices."""

DRAWS = 1000
"""Samples of patches for the intervals."""

INTERVAL = 0.95

COLOR, SHAPE = ("flat color",), ("gray", "hue turned")
"""The conditions of color without shape, and of shape without the color. Of several the best one counts."""

KINDS = {
    "color": "a color unit",
    "shape": "a shape unit",
    "both": "a unit of both, for neither suffices alone",
    "either": "a unit of either, for each suffices alone",
}
"""The verdicts, in words."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Retained:
    """The share of the activation that remains under a condition, with its interval over patches.

    0 is what unrelated photographs give at the same places, 1 the photograph as it is. It is below 0 where the changed
    patch drives the unit less than an unrelated photograph does. One patch has no interval.
    """

    name: str
    retained: float
    low: float | None
    high: float | None

    @property
    def suffices(self) -> bool:
        return self.retained >= SUFFICES

    @property
    def sure(self) -> bool:
        """Whether the interval allows no other answer."""
        return self.low is not None and self.high is not None and (self.low >= SUFFICES or self.high < SUFFICES)

    def __str__(self) -> str:
        return f"{self.retained:.0%}"


def retained(unit: Unit, name: str, changed: Float64, plain: Float64, unrelated: Float64) -> Retained:
    """The share of `plain` above `unrelated` that `changed` brings back; all are activations of patches, (patches,).

    A negative activation counts as 0: the unit does not fire. The share is the ratio of sums over patches, its interval
    the INTERVAL of DRAWS bootstrap samples of patches; one patch has none. Raises UnitError if the unit fires on its
    patches no more than on unrelated photographs.
    """
    fired = [np.maximum(values, 0) for values in (changed, plain, unrelated)]
    sums = [values.sum() for values in fired]
    if not sums[1] > sums[2]:
        raise UnitError(f"{unit} fires on its patches no more than on other photographs: choose another unit")
    share = float((sums[0] - sums[2]) / (sums[1] - sums[2]))
    if len(plain) == 1:
        return Retained(name, share, None, None)
    rows = np.random.default_rng(0).integers(0, len(plain), (DRAWS, len(plain)))
    drawn = [values[rows].sum(1) for values in fired]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (drawn[0] - drawn[2]) / (drawn[1] - drawn[2])
    low, high = np.quantile(shares[np.isfinite(shares)], ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2))
    return Retained(name, share, float(low), float(high))


@dataclass(frozen=True)
class Verdict:
    """What drives the unit: its `color` alone, its `shape` alone, either, or only both together."""

    color: Retained
    shape: Retained

    @classmethod
    def of(cls, found: dict[str, Retained]) -> Verdict:
        best = [max((found[name] for name in names), key=lambda one: one.retained) for names in (COLOR, SHAPE)]
        return cls(*best)

    @property
    def kind(self) -> str:
        """A word of KINDS."""
        if self.color.suffices:
            return "either" if self.shape.suffices else "color"
        return "shape" if self.shape.suffices else "both"

    @property
    def sure(self) -> bool:
        """Whether the intervals allow no other verdict."""
        return self.color.sure and self.shape.sure

    def __str__(self) -> str:
        one = self.color.low is None
        unsure = (
            "" if self.sure else f" ({'one patch has no interval' if one else 'the intervals allow another verdict'})"
        )
        return f"color alone: {self.color}; shape alone: {self.shape}: {KINDS[self.kind]}{unsure}"
