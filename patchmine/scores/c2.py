"""C2-Score: how alike the strongest patches of a unit are, each pair weighted by both activations.

After FaCT (NeurIPS 2025, arXiv 2510.25512), whose score takes features of DINOv2 under the unit's map: the sum of
a_i a_j cos(f_i, f_j) over pairs of different patches, divided by that of a_i a_j. Here f are the layer's own vectors at
the patches, minus their mean over all kept patches, and without the unit's own channel, which is high in all of them.
Patches that are not positive have no weight.
"""

from __future__ import annotations

import numpy as np

from patchmine.ranking import CELLS
from patchmine.scores._evidence import Evidence, Float64, unit_length

HELP = "c2: C2-Score, the similarity of the unit's best patches; from -1, 1 for one kind of patch"
KEPT = True


def of_layer(evidence: Evidence) -> Float64:
    vectors = evidence.vectors
    top = evidence.index.store.top_of_all(evidence.layer)
    found = np.full(evidence.units, np.nan)
    for unit in range(evidence.units):
        rows = np.flatnonzero(top.filled[unit] & (top.values[unit] > 0))[: evidence.k]
        at = np.searchsorted(vectors.places, top.images[unit, rows] * CELLS + top.positions[unit, rows])
        rows, at = rows[at < len(vectors.places)], at[at < len(vectors.places)]
        if len(rows) < 2:
            continue
        features = vectors.centered(at)
        features[:, unit] = 0
        weights = top.values[unit, rows].astype(np.float64)
        pulled = weights @ unit_length(features)
        own = (weights**2 * (features.any(axis=1))).sum()
        found[unit] = (pulled @ pulled - own) / (weights.sum() ** 2 - (weights**2).sum())
    return found
