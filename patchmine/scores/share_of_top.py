"""How much of a unit's activation its best photographs carry: the rest is what a sheet of them does not show.

The sum of the positive activations on the top k, divided by that on all photographs.
"""

from __future__ import annotations

import numpy as np

from patchmine.scores._evidence import Evidence, Float64

HELP = "share-of-top: the share of the unit's activation over all photographs that its best 25 carry"
KEPT = True


def of_layer(evidence: Evidence) -> Float64:
    fired = np.where(np.isfinite(evidence.values), np.maximum(evidence.values, 0), 0)
    count = min(evidence.k, len(fired))
    best = np.partition(fired, len(fired) - count, axis=0)[len(fired) - count :].sum(axis=0, dtype=np.float64)
    total = fired.sum(axis=0, dtype=np.float64)
    return np.divide(best, total, out=np.full(evidence.units, np.nan), where=total > 0)
