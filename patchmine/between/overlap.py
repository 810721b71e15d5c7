"""Rank-biased overlap: how much two rankings agree, the first ranks counting most.

Webber, Moffat & Zobel, "A similarity measure for indefinite rankings" (TOIS 2010), equation 32: the agreement down to
the last common rank, which is taken to hold below it as well.
"""

from __future__ import annotations

import numpy as np

from patchmine.ranking import Int64

PERSISTENCE = 0.9
"""The weight of a rank in that of the one above it: the first ten ranks have 86 % of all weight."""


def overlap(first: Int64, second: Int64) -> float | None:
    """The overlap of two rankings (ranks,) of distinct numbers, 0 to 1; None if one is empty.

    The longer one is cut to the length of the other.
    """
    depth = min(len(first), len(second))
    if not depth:
        return None
    same = first[:depth, None] == second[None, :depth]
    ranks = np.arange(1, depth + 1)
    agreed = same.cumsum(0).cumsum(1).diagonal() / ranks
    weights = (1 - PERSISTENCE) / PERSISTENCE * PERSISTENCE**ranks
    return float(agreed @ weights + agreed[-1] * PERSISTENCE**depth)
