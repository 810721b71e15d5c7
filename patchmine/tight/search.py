"""The search for a tight crop: it asks for one measurement after another and ends with the smallest box it found.

Which box to measure next is a question of expected gain: the probability that a box retains enough, by the surrogate,
times how much it would better the best box so far (D. R. Jones, M. Schonlau and W. J. Welch,
"Efficient global optimization of expensive black-box functions", Journal of Global Optimization 13, 1998, 455-492, with
the gain in area instead of in value). It goes from coarse boxes anywhere to fine ones near the best, and then moves
single sides in until every such move loses too much. Uses numpy only; the same measurements give the same box.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from math import isfinite, log
from typing import NamedTuple

import numpy as np

from patchmine.tight.surrogate import DIVISIONS, Float64, Spans, Surrogate
from patchmine.units import Box

STEP = 4
"""The grid of a tight crop's sides, in input pixels; the borders of the domain count as on it."""

GREY, BLUR, NOISE, COVERED = 0, 1, 2, 3
"""What surrounds the box: a background, by number, or the whole photograph while the box itself is covered."""

CARRY, DOUBT, AMPLE = 0.84, 0.1, 0.2
"""On noise, a box must retain CARRY of the share, and up to DOUBT more the smaller it is, from a share of AMPLE of the
domain down; else the search finds tiny boxes that fit two backgrounds and little else."""

SPARE, LESS, SMALL, EXCESS, WEIGHT = 0.3, 0.15, 0.15, 0.45, 4.0
"""If more than SPARE is left without a box, it was not the only evidence; of a small box up to LESS less, as it must
prove more, from a share of SMALL of the domain down. The surplus counts against it, times WEIGHT, beside the logarithm
of its area. From EXCESS on more area rarely helps: the unit sees its motif elsewhere too."""

MARGIN = 1e-3
"""A box must retain this much more than asked, so that no rounding elsewhere takes it below."""

SURE = 0.05
"""A rough measurement that misses by more than this rules a box out."""

COARSE, FINE = 32, 20
"""Maximum numbers of boxes tried on the coarse grid, and near the best of them."""

NEAR = 3
"""The fine boxes have each side at most this many steps away from the best box's."""

_GAIN = 1.1e-2  # a box with a smaller expected gain is not worth a measurement
_MODEL = 5e-3  # variance of what a linear model cannot know

Share = float | Float64


class Question(NamedTuple):
    """What the search asks: how much of the activation the box retains on a background, or is left without it."""

    box: Box
    around: int
    exact: bool = True  # else a value of low precision will do


Asking = Generator[Question, float, "Found"]
"""A running search: it yields questions, is sent the shares retained, and returns the box."""


@dataclass(frozen=True)
class Found:
    """A box in input pixels, what it retains on the worse background, what is left `without` it, and how many
    measurements that took."""

    box: Box
    retained: float
    without: float
    asked: int


def search(domain: Box, center: tuple[float, float], share: float, *, rough: bool = False) -> Asking:
    """Search inside the domain, which retains everything, for the smallest box that retains `share`.

    `domain` and `center` (y, x), the position's center, are in input pixels. A measurement that is not finite counts as
    nothing retained. With `rough`, the way to the box takes measurements of low precision; what the box retains, and
    that no side can move in, rests on exact ones.
    """
    run = _Run(domain, center, share, rough)
    yield from run.coarse()
    yield from run.fine()
    yield from run.close()
    if rough:
        yield from run.settle()
    without = yield from run.left(run.best)
    return Found(run.best, run.known[run.best], without, run.asked)


class _Run:
    """The state of one search. The surrogate's intervals are in pixels of the domain, boxes in input pixels."""

    def __init__(self, domain: Box, center: tuple[float, float], share: float, rough: bool) -> None:
        self.domain, self.needed, self.exact = domain, min(share + MARGIN, 1.0), not rough
        self.share = share
        self.best, self.cost, self.asked = domain, 1.0, 0
        self.known: dict[Box, float] = {domain: 1.0}
        self.without: dict[Box, float] = {domain: 0.0}
        self.larger: list[Box] = []  # the boxes that `close` moved a side of, from the largest
        self.first = BLUR  # the background that retained less when both were asked last
        size, middle = (domain.height, domain.width), (center[0] - domain.top, center[1] - domain.left)
        self.retaining, self.needing = Surrogate(size, middle), Surrogate(size, middle)
        for surrogate in (self.retaining, self.needing):
            surrogate.add(self._inside(domain), 1.0)

    def measure(self, box: Box) -> Generator[Question, float, bool]:
        """Whether the box retains enough. The second background is asked only if the first does not rule it out."""
        if box not in self.known:
            retained = yield self._question(box, self.first)
            if retained >= self.needed:
                other = yield self._question(box, 1 - self.first)
                if not other >= retained:
                    self.first, retained = 1 - self.first, other
            self.known[box] = retained if isfinite(retained) else 0.0
        return self.known[box] >= self.needed

    def judge(self, box: Box) -> Generator[Question, float, None]:
        """Measure the box, what is left without it, and it on noise, each only if the one before leaves it a chance."""
        enough = yield from self.measure(box)
        retained: float = self.known[box]
        if enough:
            area = box.area / self.domain.area
            without = yield from self.left(box)
            cost = float(_cost(area, without))
            if cost < self.cost:
                noise = yield self._question(box, NOISE)
                lacking = self.share * (CARRY + DOUBT * max(1 - area / AMPLE, 0.0)) - noise
                if lacking <= 0:
                    self.best, self.cost = box, cost
                else:
                    retained = self.needed - lacking if isfinite(lacking) else 0.0
        self.retaining.add(self._inside(box), _bounded(retained))

    def left(self, box: Box) -> Generator[Question, float, float]:
        """The share left without the box."""
        if box not in self.without:
            without = yield self._question(box, COVERED)
            self.without[box] = without = without if isfinite(without) else 1.0
            self.needing.add(self._inside(box), _bounded(1 - without))
        return self.without[box]

    def coarse(self) -> Generator[Question, float, None]:
        """Measure boxes anywhere, with their sides at the divisions of the domain."""
        spans = _Spans(
            _pairs(_divided(self.domain.left, self.domain.right)), _pairs(_divided(self.domain.top, self.domain.bottom))
        )
        self._watch(spans)
        for _ in range(COARSE):
            box = self._promising(spans)
            if box is None:
                return
            yield from self.judge(box)

    def fine(self) -> Generator[Question, float, None]:
        """Measure boxes whose sides are at most NEAR steps from those of the best one."""
        around: Box | None = None
        for _ in range(FINE):
            if around != self.best:
                around = self.best
                spans = _Spans(
                    _near(around.left, around.right, self.domain.left, self.domain.right),
                    _near(around.top, around.bottom, self.domain.top, self.domain.bottom),
                )
                self._watch(spans)
            box = self._promising(spans)
            if box is None:
                return
            yield from self.judge(box)

    def close(self) -> Generator[Question, float, None]:
        """Move single sides of the best box in by a step until each such move loses too much."""
        sides = list(range(4))
        tried = 0
        while tried < 4:
            box = moved_in(self.best, sides[0])
            enough = False if box is None else (yield from self.measure(box))
            if box is not None and enough:
                self.larger.append(self.best)
                self.best, tried = box, 0
            else:
                sides, tried = [*sides[1:], sides[0]], tried + 1

    def settle(self) -> Generator[Question, float, None]:
        """Measure exactly: the sides go back out, as far as it takes to retain enough, and the box is closed again."""
        self.exact = True
        out = {box: retained for box, retained in self.known.items() if retained < self.needed - SURE}
        self.known, self.without = {**out, self.domain: 1.0}, {self.domain: 0.0}
        while not (yield from self.measure(self.best)):
            self.best = self.larger.pop() if self.larger else _grown(self.best, self.domain)
        yield from self.close()

    def _question(self, box: Box, around: int) -> Question:
        self.asked += 1
        return Question(box, around, self.exact)

    def _inside(self, box: Box) -> tuple[int, int, int, int]:
        left, top = self.domain.left, self.domain.top
        return box.left - left, box.top - top, box.right - left, box.bottom - top

    def _watch(self, spans: _Spans) -> None:
        left, top = self.domain.left, self.domain.top
        for surrogate in (self.retaining, self.needing):
            surrogate.watch(spans.across - left, spans.down - top)

    def _promising(self, spans: _Spans) -> Box | None:
        """The box with the highest expected gain; None if there is none worth a measurement."""
        better = log(self.cost) - np.log(_cost(spans.areas / self.domain.area, 1 - self.needing.mean))
        deviation = np.sqrt(self.retaining.variance + _MODEL)
        # The logistic function in place of the normal distribution: at most 0.01 apart.
        likely = 1 / (1 + np.exp(-1.702 * (self.retaining.mean - self.needed) / deviation))
        gain = np.where(better > 1e-9, likely * better, 0.0)
        for box in self.known:
            gain[spans.at(box)] = 0.0
        column, row = np.unravel_index(int(gain.argmax()), gain.shape)
        return spans.box(int(column), int(row)) if gain[column, row] > _GAIN else None


class _Spans:
    """The boxes with each of some intervals of columns `across` and each of rows `down`, both int64 (spans, 2)."""

    def __init__(self, across: Spans, down: Spans) -> None:
        self.across, self.down = across, down
        self.areas = np.outer(across[:, 1] - across[:, 0], down[:, 1] - down[:, 0])
        self._columns = {pair: number for number, pair in enumerate(map(tuple, across.tolist()))}
        self._rows = {pair: number for number, pair in enumerate(map(tuple, down.tolist()))}

    def box(self, column: int, row: int) -> Box:
        (left, right), (top, bottom) = self.across[column].tolist(), self.down[row].tolist()
        return Box(left, top, right, bottom)

    def at(self, box: Box) -> tuple[int, int] | tuple[list[int], list[int]]:
        """The indices of a box, empty ones if it is not among them."""
        column, row = self._columns.get((box.left, box.right)), self._rows.get((box.top, box.bottom))
        return ([], []) if column is None or row is None else (column, row)


def moved_in(box: Box, side: int) -> Box | None:
    """The box with one side (0 to 3: left, top, right, bottom) a step further in; None if nothing is left of it."""
    left, top, right, bottom = box.as_tuple()
    sides = (
        Box((left // STEP + 1) * STEP, top, right, bottom),
        Box(left, (top // STEP + 1) * STEP, right, bottom),
        Box(left, top, (right - 1) // STEP * STEP, bottom),
        Box(left, top, right, (bottom - 1) // STEP * STEP),
    )
    moved = sides[side]
    return moved if moved.left < moved.right and moved.top < moved.bottom else None


def _grown(box: Box, domain: Box) -> Box:
    """The box with every side a step further out, inside the domain."""
    return Box(
        max(box.left - STEP, domain.left),
        max(box.top - STEP, domain.top),
        min(box.right + STEP, domain.right),
        min(box.bottom + STEP, domain.bottom),
    )


def _cost(area: Share, without: Share) -> Share:
    """What the search makes small: a box's share of the domain, times a fine if too much is left without it."""
    spare = SPARE - LESS * np.maximum(1 - area / SMALL, 0.0)
    return area * np.exp(WEIGHT * np.maximum(np.minimum(without, EXCESS) - spare, 0.0))


def _bounded(share: float) -> float:
    """A share as the surrogates take it: an outlier would bend them everywhere."""
    return min(max(share, -1.0), 2.0)


def _divided(start: int, stop: int) -> list[int]:
    """The edges of the divisions of an axis, on the grid except for the ends."""
    inner = (round(edge / STEP) * STEP for edge in np.linspace(start, stop, DIVISIONS + 1)[1:-1].tolist())
    return [start, *sorted({edge for edge in inner if start < edge < stop}), stop]


def _pairs(edges: list[int]) -> Spans:
    return np.array([(low, high) for low in edges for high in edges if low < high], np.int64)


def _near(low: int, high: int, start: int, stop: int) -> Spans:
    """The intervals with both ends at most NEAR steps away from those of [low, high), inside [start, stop]."""
    lows, highs = (
        {min(max((end // STEP + n) * STEP, start), stop) for n in range(-NEAR, NEAR + 1)} | {end} for end in (low, high)
    )
    return np.array([(a, b) for a in sorted(lows) for b in sorted(highs) if a < b], np.int64)
