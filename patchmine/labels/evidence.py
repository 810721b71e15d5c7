"""Labels by evidence: the class, or the WordNet noun above classes, that a unit's strongest photographs share.

The rule
========
Only photographs with a class take part: n of them. x is the unit's maximum in each photograph. A *label* is a class or
a noun above classes; m photographs carry it.

1. *Window.* The judgment is about the K strongest photographs, K = min(25, max(5, n // 8)), and a label needs at least
   t = ceil(8 K / 25) of them. With n <= K there are no labels.
2. *Labels tried.* A label is tried if at least max(5, t) photographs carry it and at least 5 do not. A noun above
   classes is not tried if more than half of all photographs carry it. Of labels on the same photographs, only the most
   specific is tried. L is the number of labels tried.
3. *Hits.* c is the K-th highest x; a photographs lie above c, e are equal to c. The hits of a label are its photographs
   above c, plus (K - a) / e for each of its photographs at c: the expected number over all ways to break the tie.
4. *Gate.* A label passes if its hits, rounded down, reach t, and if K photographs drawn at random would rarely have as
   many: with a probability of at most ALPHA / L (Bonferroni), by the hypergeometric distribution. If there is a tie at
   c, the probability counts twice, because the median of a hypergeometric variable is at least its mean rounded down.
5. *Choice.* z = max(x - mean of x, 0)^2. r is Pearson's correlation of z with the 0/1 column of the label. Among the
   labels that pass and have r > 0, the highest r wins (to 9 decimals; then the fewest photographs, then the alphabet).
6. *As specific as the evidence.* While a label strictly below the chosen one passes with the same hits, that label is
   chosen (of several, the one with the highest r).
7. If no label passes, the unit has none. A unit with values that are not finite is judged alone, by the same rule over
   the photographs in which it is finite.

The AUROC of the chosen label is a number beside it; it chooses nothing. All sums are exact, so the order of the
photographs changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchmine.labels.candidates import LEAST, Labels
from patchmine.ranking import Float32
from patchmine.store.label_columns import LabelColumns

RULE = "top-25"
"""The name of the rule in the facts about labels."""

ALPHA = 0.01
"""Maximum probability that a unit unrelated to the classes gets a label."""

WINDOW, SHARE = 25, 8
"""The strongest photographs that are judged, and how many of them must carry the label."""

SLACK = 1e-9
"""Hits that differ by less are equal."""

_WORK = 1 << 21
"""Activations in float64 that are in work at once."""

_REMEMBERED = 8
"""Sets of labels to try that are remembered, of 11 MB for ImageNet's classes."""

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def window(count: int) -> int:
    """The number of strongest photographs to judge among `count`; 0 if there are too few for labels."""
    size = min(WINDOW, max(LEAST, count // 8))
    return size if count > size else 0


def least_hits(size: int) -> int:
    """The least number of hits in a window of that size: a third of it."""
    return -(-SHARE * size // WINDOW)


def label_units(columns: Iterable[Float32], codes: NDArray[np.integer], labels: Labels) -> LabelColumns:
    """The labels of all units by the rule: `label` is a row of the labels' keys, `common` a row of the classes.

    `columns` yields activations in blocks (images, units of the block), so that only one block is in memory at a time.
    `codes` (images,) is the row of each image's class, -1 for none.
    """
    order = np.argsort(codes, kind="stable")
    order = order[np.searchsorted(codes[order], 0) :]  # photographs without a class take no part
    of_image: Int64 = codes[order].astype(np.int64)
    trials = _Trials(labels)
    return LabelColumns.joined(
        [_of_group(group, of_image, trials) for block in columns for group in _groups(block, order)]
    )


def _groups(block: Float32, order: Int64) -> Iterator[Float32]:
    """The units of a block (units, photographs), few at a time, with the photographs in that order."""
    step = max(1, _WORK // max(1, len(order)))
    for start in range(0, block.shape[1], step):
        yield np.ascontiguousarray(block[:, start : start + step].T)[:, order]


def _of_group(values: Float32, codes: Int64, trials: _Trials) -> LabelColumns:
    """The labels of units (units, photographs), whose photographs are sorted by class."""
    found = LabelColumns.none(len(values))
    finite = np.isfinite(values)
    whole = finite.all(axis=1)
    if whole.any():
        found.put(np.flatnonzero(whole), trials.of(codes).judge(values[whole], codes))
    for unit in np.flatnonzero(~whole):
        kept = finite[unit]
        found.put(np.array([unit]), trials.of(codes[kept]).judge(values[None, unit, kept], codes[kept]))
    return found


class _Trials:
    """The labels to try on a set of photographs, with the hits that each needs; remembered by counts of photographs."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._known: dict[bytes, Trial] = {}

    def of(self, codes: Int64) -> Trial:
        counts = np.bincount(codes, minlength=self._labels.members.shape[1]).astype(np.int64)
        key = counts.tobytes()
        if key not in self._known:
            if len(self._known) == _REMEMBERED:
                self._known.popitem()  # the newest: the first is that of all photographs
            self._known[key] = Trial.of(self._labels, counts)
        return self._known[key]


@dataclass(frozen=True)
class Trial:
    """The labels tried on `count` photographs, because at least `least` carry them; `window` is the size of the window.

    `rows` int64 (tried,) are their rows in the labels, `members` float64 (tried, classes), `inside` int64 (tried,) the
    photographs that carry each, and `need` int64 (2, tried) the least hits: without and with a tie at the cut.
    """

    count: int
    window: int
    least: int
    rows: Int64
    members: Float64
    inside: Int64
    need: Int64

    @classmethod
    def of(cls, labels: Labels, counts: Int64) -> Trial:
        count = int(counts.sum())
        size = window(count)
        least = max(LEAST, least_hits(size))
        rows = labels.tried(counts, least) if size else np.zeros(0, np.int64)
        inside = labels.members[rows] @ counts
        need = [needed_hits(count, inside, size, ALPHA / times / max(1, len(rows))) for times in (1, 2)]
        return cls(count, size, least, rows, labels.members[rows].astype(np.float64), inside, np.array(need))

    def judge(self, values: Float32, codes: Int64) -> LabelColumns:
        """The labels of units with finite values (units, photographs), sorted by class."""
        found = LabelColumns.none(len(values))
        if not self.window:
            return found
        found.of[:] = self.window
        above, at, share = self._top(values, codes)
        of_class = above + share * at
        found.common[:] = of_class.argmax(axis=1)
        found.common_hits[:] = of_class.max(axis=1)
        hits = above @ self.members.T + share * (at @ self.members.T)
        tied = (above + at).sum(axis=1) > self.window
        passed = np.floor(hits + SLACK) >= self.need[tied.astype(int)]
        if not passed.any():
            return found
        able = np.flatnonzero(passed.any(axis=1))
        r = self._correlations(values[able], codes)
        for unit, correlations in zip(able, r, strict=True):
            row = self._chosen(passed[unit], correlations, hits[unit])
            if row is not None:
                found.label[unit] = self.rows[row]
                found.hits[unit] = hits[unit, row]
                found.lift[unit] = hits[unit, row] / self.window / (self.inside[row] / self.count)
                found.r[unit] = correlations[row]
                found.auroc[unit] = auroc(values[unit], self.members[row, codes] > 0)
        return found

    def _top(self, values: Float32, codes: Int64) -> tuple[Float64, Float64, Float64]:
        """For each unit the photographs of each class above the cut, and at it, both (units, classes), and the share
        (units, 1) of those at the cut that belongs to the window. Numbers of photographs are exact in float64."""
        units, classes = len(values), self.members.shape[1]
        cut = np.partition(values, self.count - self.window, axis=1)[:, self.count - self.window, None]
        unit, photograph = np.nonzero(values >= cut)
        place = unit * classes + codes[photograph]
        higher = values[unit, photograph] > cut[unit, 0]
        above, at = (
            np.bincount(place[which], minlength=units * classes).reshape(units, classes).astype(np.float64)
            for which in (higher, ~higher)
        )
        return above, at, (self.window - above.sum(axis=1, keepdims=True)) / at.sum(axis=1, keepdims=True)

    def _correlations(self, values: Float32, codes: Int64) -> Float64:
        """r (units, tried) to 9 decimals."""
        x = values.astype(np.float64)
        mean = _exact(x).sum(axis=1, keepdims=True) / self.count
        z = _exact(np.maximum(x - mean, 0) ** 2)
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        of_class = np.zeros((len(x), self.members.shape[1]))
        of_class[:, codes[starts]] = np.add.reduceat(z, starts, axis=1)
        total, squares = z.sum(axis=1, keepdims=True), _exact(z**2).sum(axis=1, keepdims=True)
        share = self.inside / self.count
        root = np.sqrt(self.inside * (1 - share) * np.maximum(squares - total**2 / self.count, 0))
        above = of_class @ self.members.T - total * share
        return np.round(np.divide(above, root, out=np.zeros_like(above), where=root > 0), 9)

    def _chosen(self, passed: NDArray[np.bool_], r: Float64, hits: Float64) -> int | None:
        """The row of the unit's label among those tried."""

        def best(rows: Int64) -> int:
            return min(rows.tolist(), key=lambda row: (-r[row], self.inside[row], row))

        rows = np.flatnonzero(passed & (r > 0))
        if not len(rows):
            return None
        chosen = best(rows)
        while True:
            inside = self.members[chosen]
            same = np.flatnonzero(passed & (np.abs(hits - hits[chosen]) < SLACK) & (self.inside < self.inside[chosen]))
            below = same[(self.members[same] <= inside).all(axis=1)]
            if not len(below):
                return chosen
            chosen = best(below)


def needed_hits(count: int, inside: Int64, size: int, alpha: float) -> Int64:
    """The least k from `least_hits` on that `size` of `count` photographs reach with a probability of at most `alpha`.

    `inside` (labels,) are the photographs that carry each label. The result is size + 1 if no k is enough.
    """
    distinct, which = np.unique(inside, return_inverse=True)
    # Every factor of the hypergeometric distribution as a sum of at most 25 logarithms: exact for any number.
    ways = _log_choices(distinct, size) + _log_choices(count - distinct, size)[:, ::-1]
    chance = np.exp(ways - _log_choices(np.array([count]), size)[:, -1:])
    at_least = np.cumsum(chance[:, ::-1], axis=1)[:, ::-1]
    enough = at_least <= alpha
    enough[:, : least_hits(size)] = False
    need: Int64 = np.where(enough.any(axis=1), enough.argmax(axis=1), size + 1)
    return need[which]


def _log_choices(numbers: Int64, most: int) -> Float64:
    """The logarithm of the number of ways to choose 0 to `most` of each number, (numbers, most + 1)."""
    step = np.arange(most)
    with np.errstate(divide="ignore"):
        factors = np.log(np.maximum(numbers[:, None] - step, 0)) - np.log(step + 1)
    return np.concatenate([np.zeros((len(numbers), 1)), np.cumsum(factors, axis=1)], axis=1)


def _exact(numbers: Float64) -> Float64:
    """The numbers of each row, rounded to multiples of a power of two so that float64 adds them in any order exactly.

    With 50,000 numbers the step is 2^-37 of the highest.
    """
    _, exponent = np.frexp(np.abs(numbers).max(axis=1, keepdims=True))
    step = np.ldexp(1.0, exponent + (int(numbers.shape[1]).bit_length() - 53))
    return np.rint(numbers / step) * step


def auroc(values: Float32, carries: NDArray[np.bool_]) -> float:
    """The share of pairs of a photograph with the label and one without in which the unit is higher on the first.

    Ties count half. Sums of ranks are exact in float64.
    """
    ordered = np.sort(values)
    inside = values[carries]
    ranks = (np.searchsorted(ordered, inside, "left") + np.searchsorted(ordered, inside, "right") + 1) / 2
    m = len(inside)
    return float((ranks.sum() - m * (m + 1) / 2) / (m * (len(values) - m)))
