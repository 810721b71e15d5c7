"""Labels by evidence: what a unit responds to, judged by the classes of the photographs. Uses numpy alone.

The rule
========
A *label* is a class, or a WordNet noun above one. It is tested if at least LEAST photographs carry it and at least
LEAST do not. Of labels that the same photographs carry, only the most specific is tested. For each unit and label:

1. *Separation* is the area under the ROC curve (AUROC). Among all pairs of a photograph with the label and one
   without, it is the share in which the unit's activation is higher on the first; ties count half. Photographs
   without a class or with a non-finite activation are left out.
2. A label on m photographs is *significant* if m photographs drawn at random would rarely reach its AUROC: with a
   probability of at most ALPHA divided by the number of labels tested (Bonferroni). The probability is bounded, not
   approximated: W. Hoeffding, "Probability inequalities for sums of bounded random variables", JASA 58 (1963),
   sections 4 and 6. The ranks of the label's photographs are a sample without replacement from all ranks of the unit,
   ties included. Their mean exceeds t with a probability of at most exp(-m (s t - K(s))) for every s > 0. Here K(s)
   is the logarithm of the mean of exp(s rank). So the bound holds for rare labels and for units that are 0 nearly
   everywhere, where the usual normal approximation of the Mann-Whitney test finds too many labels. The price is power:
   a label that half of the photographs carry needs twice the evidence.
3. The *lower bound* of an AUROC A is the area A' below it that solves A - A' = Z sd(A'). Here sd is the standard
   deviation by J. A. Hanley and B. J. McNeil ("The meaning and use of the area under a receiver operating
   characteristic (ROC) curve", Radiology 143, 1982). Taking it at A' instead of A, as R. G. Newcombe does (Statistics
   in Medicine 25, 2006, 559-573), keeps the bound honest for few photographs: five that rank above all others have an
   AUROC of 1 and a bound of 0.75.

The unit's label comes from the significant labels whose lower bound is less than MARGIN below the highest. It is the
one that the fewest photographs carry, then the one with the higher bound, then the first in alphabetical order. A unit
without a significant label has no label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log

import numpy as np
from numpy.typing import NDArray

from patchmine.labels.wordnet import ancestors, breadth
from patchmine.ranking import Float32

LEAST = 5
"""Minimum number of photographs that carry a label, and minimum number that do not."""

ALPHA = 0.05
"""Maximum probability that a unit unrelated to the classes gets a label."""

Z = 1.959964
"""The normal quantile of the lower bound: one-sided 97.5 %."""

MARGIN = 0.02
"""Lower bounds that differ by less count as equal."""

STEPS = 0.01 * 1.15 ** np.arange(88)
"""Values of s to try for the bound on the probability. Each gives a valid bound; a finer grid would gain little."""

POINTS = 1024
"""Maximum number of distinct ranks in a unit's distribution; above it, ranks are rounded away from the middle."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """The labels to test: `keys`, and `members`, bool (labels, classes): whether a class lies below a label."""

    keys: tuple[str, ...]
    members: NDArray[np.bool_]

    @classmethod
    def of_classes(cls, classes: Sequence[str]) -> Labels:
        """The classes and all nouns above them, sorted; of those with the same classes, only the most specific."""
        above = [{name} | ancestors(name) for name in classes]
        keys = sorted(set().union(*above))
        members = np.array([[key in of_class for of_class in above] for key in keys], np.bool_)
        members = members.reshape(len(keys), len(classes))
        most_specific: dict[bytes, str] = {}
        # Of two nouns above the same classes, the deeper one has more ancestors.
        for key in sorted(keys, key=lambda key: (key not in classes, breadth(key), -len(ancestors(key)), key)):
            most_specific.setdefault(members[keys.index(key)].tobytes(), key)
        chosen = set(most_specific.values())
        kept = [row for row, key in enumerate(keys) if key in chosen]
        return cls(tuple(keys[row] for row in kept), members[kept])

    def tried(self, counts: NDArray[np.int64]) -> Labels:
        """The labels with enough photographs on both sides; `counts` (classes,) has the photographs of each class."""
        inside = self.members @ counts
        kept = np.flatnonzero((inside >= LEAST) & (counts.sum() - inside >= LEAST))
        return Labels(tuple(self.keys[row] for row in kept), self.members[kept])

    @cached_property
    def weights(self) -> Float64:
        return self.members.astype(np.float64)


@dataclass(frozen=True)
class Labeled:
    """The labels of units: `label`, int32 (units,), a row of `keys` or -1; `auroc`, float32 (units,), NaN for none."""

    keys: tuple[str, ...]
    label: NDArray[np.int32]
    auroc: Float32


def label_units(columns: Iterable[Float32], codes: NDArray[np.integer], labels: Labels) -> Labeled:
    """The labels of all units by the rule.

    `columns` yields activations in blocks (images, units of the block), so that only one block is in memory at a time.
    `codes` (images,) is the row of each image's class, -1 for none.
    """
    with_class = np.flatnonzero(codes >= 0)
    codes = codes[with_class]
    tried = labels.tried(np.bincount(codes, minlength=labels.members.shape[1]).astype(np.int64))
    chosen: list[int] = []
    aurocs: list[float] = []
    cumulants = _Cumulants()
    for block in columns:
        for column in block[with_class].T:
            row, auroc = _label(Separation.of(column, codes, tried), tried, cumulants)
            chosen.append(row)
            aurocs.append(auroc)
    return Labeled(tried.keys, np.array(chosen, np.int32), np.array(aurocs, np.float32))


@dataclass(frozen=True)
class Separation:
    """How well one unit separates each label.

    `auroc`, `inside` and `outside`, float64 (labels,), are the AUROC and the numbers of photographs with and without
    the label. `ranks` are the unit's distinct midranks, ascending, and `shares` the share of the `count` photographs
    at each rank.
    """

    count: int
    auroc: Float64
    inside: Float64
    outside: Float64
    ranks: Float64
    shares: Float64

    @classmethod
    def of(cls, column: Float32, codes: NDArray[np.integer], labels: Labels) -> Separation:
        """The separation by activations (images,) of images with classes `codes` (images,).

        Sums of ranks are exact in float64, so the result depends neither on the order of addition nor on the machine.
        """
        finite = np.isfinite(column)
        if not finite.all():
            column, codes = column[finite], codes[finite]
        count = len(column)
        order = np.argsort(column)
        ordered = column[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if count else np.zeros(0, np.int64)
        sizes = np.diff(np.r_[starts, count])
        middle = starts + (sizes + 1) / 2
        ranks = np.empty(count)
        ranks[order] = np.repeat(middle, sizes)
        classes = labels.members.shape[1]
        inside = labels.weights @ np.bincount(codes, minlength=classes)
        total = labels.weights @ np.bincount(codes, ranks, minlength=classes)
        outside = count - inside
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = (total - inside * (inside + 1) / 2) / (inside * outside)
        return cls(count, auroc, inside, outside, middle, sizes / max(count, 1))

    @property
    def tied(self) -> bool:
        return len(self.ranks) < self.count

    def cumulants(self) -> tuple[Float64, Float64]:
        """K(s) for s in STEPS, of the ranks centered on 0 and divided by `count`, and of their mirror image."""
        centered = (self.ranks - (self.count + 1) / 2) / self.count
        return _cumulants(centered, self.shares), _cumulants(-centered[::-1], self.shares[::-1])

    def evidence(self, cumulants: tuple[Float64, Float64]) -> Float64:
        """Minus the logarithm of the bound on the probability of such an AUROC, float64 (labels,).

        Photographs with the label rank high exactly when those without it rank low; the sharper of both bounds counts.
        """
        found = np.zeros(len(self.auroc))
        rows = np.flatnonzero(self.auroc > 0.5)
        inside, outside, more = self.inside[rows], self.outside[rows], (self.auroc[rows] - 0.5) / self.count
        for size, mean, cumulant in zip((inside, outside), (outside * more, inside * more), cumulants, strict=True):
            best = (STEPS * mean[:, None] - cumulant).max(axis=1, initial=0)
            found[rows] = np.maximum(found[rows], size * best)
        return found


def _cumulants(points: Float64, shares: Float64) -> Float64:
    if len(points) > POINTS:
        starts = np.linspace(0, len(points), POINTS, endpoint=False).astype(np.int64)
        # The highest of each group represents it, so that the bound still holds.
        points, shares = points[np.r_[starts[1:], len(points)] - 1], np.add.reduceat(shares, starts)
    highest = STEPS * points[-1]
    return highest + np.log(np.exp(STEPS[:, None] * points - highest[:, None]) @ shares)


def lower_bound(auroc: Float64, inside: Float64, outside: Float64) -> Float64:
    """The lower bounds of the rule, from areas and the numbers of photographs with and without the label (labels,)."""
    low, high = np.zeros_like(auroc), auroc.copy()
    for _ in range(40):
        middle = (low + high) / 2
        above = auroc - middle > Z * spread(middle, inside, outside)
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return low


def spread(area: Float64, inside: Float64, outside: Float64) -> Float64:
    """Hanley and McNeil's standard deviation of an estimated area (Radiology 143, 1982)."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    square = area**2
    variance = area * (1 - area) + (inside - 1) * (first - square) + (outside - 1) * (second - square)
    found: Float64 = np.sqrt(np.maximum(variance, 0) / (inside * outside))
    return found


class _Cumulants:
    """Cumulants of a unit's ranks. Those of untied ranks are cached: they depend only on the number of photographs."""

    def __init__(self) -> None:
        self._untied: dict[int, tuple[Float64, Float64]] = {}

    def of(self, separation: Separation) -> tuple[Float64, Float64]:
        if separation.tied:
            return separation.cumulants()
        if separation.count not in self._untied:
            self._untied[separation.count] = separation.cumulants()
        return self._untied[separation.count]


def _label(separation: Separation, tried: Labels, cumulants: _Cumulants) -> tuple[int, float]:
    """The row of the unit's label and its AUROC; -1 and NaN without a label."""
    if not tried.keys or not separation.count:
        return -1, np.nan
    enough = (separation.inside >= LEAST) & (separation.outside >= LEAST)
    convincing = separation.evidence(cumulants.of(separation)) >= log(len(tried.keys) / ALPHA)
    rows = np.flatnonzero(enough & convincing)
    if not len(rows):
        return -1, np.nan
    inside, area = separation.inside[rows], separation.auroc[rows]
    bounds = lower_bound(area, inside, separation.outside[rows])
    near = np.flatnonzero(bounds > bounds.max() - MARGIN)
    best = min(near, key=lambda at: (inside[at], -bounds[at], tried.keys[rows[at]]))
    return int(rows[best]), float(area[best])
