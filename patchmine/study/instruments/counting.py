"""Statistics of peak counts: how they grow with the canvas, and ratios of two groups, with intervals. NumPy only.

Counts are fitted by Poisson regression with a log link, and the variance is scaled by Pearson's dispersion (McCullagh &
Nelder, Generalized Linear Models, 1989, chapters 2 and 6). Counts of 0 then need no special treatment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and the number of observations behind it."""

    value: float
    low: float
    high: float
    observations: int

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high, "observations": self.observations}

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def exponent(areas: Sequence[float], counts: Sequence[int]) -> Estimate | None:
    """The b of counts ~ areas ** b: 1 for a fixed pitch, 0 for a fixed count.

    None for fewer than two areas, fewer than three counts, or no count above 0.
    """
    seen = np.asarray(counts, float)
    size = np.log(np.asarray(areas, float))
    if len(np.unique(size)) < 2 or len(seen) < 3 or not seen.any():
        return None
    design = np.stack([np.ones_like(size), size - size.mean()], 1)
    fit = np.array([log(max(seen.mean(), 1e-3)), 0.0])
    for _ in range(100):
        expected = np.exp(np.clip(design @ fit, -30, 30))
        information = design.T @ (expected[:, None] * design) + 1e-9 * np.eye(2)
        step = np.linalg.solve(information, design.T @ (seen - expected))
        fit = fit + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    freedom = len(seen) - 2
    dispersion = _dispersion(seen, np.exp(design @ fit), freedom)
    error = sqrt(dispersion * np.linalg.inv(information)[1, 1]) * student(freedom)
    return Estimate(float(fit[1]), float(fit[1] - error), float(fit[1] + error), len(seen))


def ratio(counts: Sequence[int], base: Sequence[int], share: float = 1.0) -> Estimate | None:
    """The mean of `counts` over the mean of `base`, whose exposure is `share` times as large; None if all are 0.

    Half a count is added to both sums, so that neither is 0.
    """
    return ratio_over([(counts, base)], share)


def ratio_over(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], share: float = 1.0) -> Estimate | None:
    """The `ratio` of all pairs together, with the scatter of the counts estimated within each group."""
    groups = [np.asarray(group, float) for pair in pairs for group in pair]
    some, other = (sum(float(np.sum(pair[side])) for pair in pairs) for side in (0, 1))
    many = [sum(len(pair[side]) for pair in pairs) for side in (0, 1)]
    if not min(many, default=0) or not (some or other):
        return None
    value = (some + 0.5) / many[0] / ((other + 0.5) / many[1]) / share
    freedom = sum(many) - len(groups)
    means = np.concatenate([np.full(len(group), max(group.mean(), 0.5 / len(group))) for group in groups])
    dispersion = _dispersion(np.concatenate(groups), means, freedom)
    error = min(student(freedom) * sqrt(dispersion * (1 / (some + 0.5) + 1 / (other + 0.5))), 50)
    return Estimate(value, value * exp(-error), value * exp(error), sum(many))


def _dispersion(seen: NDArray[np.float64], expected: NDArray[np.float64], freedom: int) -> float:
    """Pearson's dispersion, at least a tenth of Poisson's: counts that show no scatter are still only a few counts."""
    if freedom < 1:
        return 1.0
    return max(float((((seen - expected) ** 2) / np.maximum(expected, 1e-9)).sum() / freedom), 0.1)


def student(freedom: int) -> float:
    """Student's t for 95 %, by the Cornish-Fisher expansion; within 1 % from 3 degrees of freedom on."""
    if freedom < 1:
        return 12.7
    z, v = _Z, float(freedom)
    found = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    return found + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)


__all__ = ["Estimate", "exponent", "ratio", "ratio_over", "student"]
