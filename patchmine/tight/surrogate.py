"""Predicts how much of an activation a box retains, from the boxes measured so far: a Gaussian process over boxes.

The model is linear in the picture: a box retains the sum of the evidence inside it. Evidence is a random field over the
picture. Its mean is a bump around the position's center with a total of 1, its covariance a Gaussian of the distance.
Then what two boxes retain has a covariance that factors into one term for each axis, in closed form, and boxes of any
size can be compared without a grid of pixels (C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine
Learning", MIT Press 2006, section 2.2; the integral of a process is a process).

Lengths are in divisions: each axis of the domain has DIVISIONS of them. Uses numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import erf, exp, pi, sqrt

import numpy as np
from numpy.typing import NDArray

DIVISIONS = 14
"""Divisions of each axis of the domain: the boxes of the first, coarse search have their edges there."""

LENGTH = 1.2
"""Distance over which evidence is correlated, in divisions."""

VARIANCE = 1e-3
"""Variance of the evidence in an area of 1 x 1 divisions."""

NOISE = 2e-3
"""Variance of a measurement around the linear model."""

WIDTH = 3.0
"""Standard deviation of the bump around the center, in divisions."""

_ROOM = 32  # measurements for which there is room at once

Float64 = NDArray[np.float64]
Spans = NDArray[np.int64]
"""Intervals of pixels along one axis of the domain, int64 (spans, 2)."""


class Surrogate:
    """The process for one domain of (height, width) input pixels; `center` (y, x) lies in it, in the same pixels.

    `watch` chooses the boxes to predict: each interval of columns with each of rows. `mean` and `variance`, float64
    (columns' intervals, rows' intervals), are the prediction for them. `add` takes a measurement.
    """

    def __init__(self, size: tuple[int, int], center: tuple[float, float]) -> None:
        self._down = _Axis(size[0], center[0])
        self._across = _Axis(size[1], center[1])
        self._boxes: NDArray[np.int64] = np.zeros((0, 4), np.int64)  # left, top, right, bottom
        self._root = np.zeros((0, 0))  # Cholesky factor of the covariance of the measurements
        self._news = np.zeros(0)  # its inverse times what was measured less what was expected beforehand
        self._spans: tuple[Spans, Spans] | None = None

    def watch(self, across: Spans, down: Spans) -> None:
        self._spans = across, down
        self.mean: Float64 = np.outer(self._across.expected(across), self._down.expected(down))
        self.variance: Float64 = VARIANCE * np.outer(self._across.variances(across), self._down.variances(down))
        count = len(self._boxes)
        self._rows: Float64 = np.empty((count + _ROOM, self.mean.size))
        if count:
            shared = self._across.among(self._boxes[:, [0, 2]], across)[:, :, None]
            shared = shared * self._down.among(self._boxes[:, [1, 3]], down)[:, None, :]
            rows = self._rows[:count] = np.linalg.solve(self._root, VARIANCE * shared.reshape(count, -1))
            self.mean += (self._news @ rows).reshape(self.mean.shape)
            lost = np.einsum("ij,ij->j", rows, rows).reshape(self.mean.shape)
            self.variance = np.maximum(self.variance - lost, 1e-9)

    def add(self, box: Sequence[int], retained: float) -> None:
        """Take in that the box (left, top, right, bottom in pixels of the domain) retains this much."""
        edges = np.array(box, np.int64)
        across, down = edges[None, [0, 2]], edges[None, [1, 3]]
        expected = float(self._across.expected(across)[0] * self._down.expected(down)[0])
        self._include(edges, retained - expected)

    def _include(self, box: NDArray[np.int64], residual: float) -> None:
        across, down = box[[0, 2]], box[[1, 3]]
        own = VARIANCE * float(self._across.shared(across, across[None])[0] * self._down.shared(down, down[None])[0])
        earlier = self._across.shared(across, self._boxes[:, [0, 2]]) * self._down.shared(down, self._boxes[:, [1, 3]])
        count = len(self._boxes)
        part = np.linalg.solve(self._root, VARIANCE * earlier) if count else np.zeros(0)
        pivot = sqrt(max(own + NOISE - float(part @ part), NOISE / 2))
        root = np.zeros((count + 1, count + 1))
        root[:count, :count], root[count, :count], root[count, count] = self._root, part, pivot
        self._root = root
        self._boxes = np.concatenate([self._boxes, box[None]])
        news = (residual - float(part @ self._news)) / pivot
        self._news = np.append(self._news, news)

        if self._spans is None:
            return
        watched = np.outer(self._across.shared(across, self._spans[0]), self._down.shared(down, self._spans[1]))
        row = (VARIANCE * watched.ravel() - part @ self._rows[:count]) / pivot
        if count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty((_ROOM, row.size))])
        self._rows[count] = row
        self.mean += (news * row).reshape(self.mean.shape)
        self.variance = np.maximum(self.variance - (row * row).reshape(self.mean.shape), 1e-9)


class _Axis:
    """The factors of one axis of `length` pixels, with the bump around `center`."""

    def __init__(self, length: int, center: float) -> None:
        self._scale = length / DIVISIONS
        self._integrals = _integrals(length)
        self._cumulative = _cumulative(length, round(min(max(center, 0), length)))

    def expected(self, spans: Spans) -> Float64:
        """The share of the bump inside each interval (spans,)."""
        found: Float64 = self._cumulative[spans[:, 1]] - self._cumulative[spans[:, 0]]
        return found

    def variances(self, spans: Spans) -> Float64:
        """The factor of the covariance of each interval with itself (spans,)."""
        found: Float64 = 2 * (self._integrals[spans[:, 1] - spans[:, 0]] - self._integrals[0])
        return found

    def shared(self, span: NDArray[np.int64], others: Spans) -> Float64:
        """The factor of the covariance of one interval (2,) with others (spans,): a double integral of a Gaussian."""
        return self.among(span[None], others)[0]

    def among(self, some: Spans, others: Spans) -> Float64:
        """The factors of the covariance of each of some intervals with each of others (some, others)."""
        low, high = some[:, 0, None], some[:, 1, None]
        start, stop = others[:, 0], others[:, 1]
        integrals = self._integrals
        found: Float64 = (
            integrals[np.abs(high - start)]
            + integrals[np.abs(low - stop)]
            - integrals[np.abs(high - stop)]
            - integrals[np.abs(low - start)]
        )
        return found


@lru_cache(maxsize=64)
def _integrals(length: int) -> Float64:
    """The second antiderivative of exp(-d^2 / 2 LENGTH^2) at 0 to `length` pixels, float64 (length + 1,)."""
    found = []
    for pixels in range(length + 1):
        u = pixels * DIVISIONS / length
        found.append(u * LENGTH * sqrt(pi / 2) * erf(u / (LENGTH * sqrt(2))) + LENGTH**2 * exp(-(u**2) / 2 / LENGTH**2))
    return np.array(found)


@lru_cache(maxsize=1024)
def _cumulative(length: int, center: int) -> Float64:
    """The share of the bump before each pixel edge, 0 at the first and 1 at the last, float64 (length + 1,)."""
    edges = (np.arange(length + 1) - center) * DIVISIONS / length / (WIDTH * sqrt(2))
    found = np.array([erf(edge) for edge in edges])
    return (found - found[0]) / (found[-1] - found[0])
