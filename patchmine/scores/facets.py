"""Polysemanticity: how many different things the top patches of a unit show, against patches drawn at random.

It counts the directions of the patches' vectors that are stronger than any in random sets of the layer's patches
(`questions.facets`): 1 for a unit of one thing. The null is that of the polysemanticity index (2025, arXiv 2508.16950).
"""

from __future__ import annotations

import numpy as np

from patchmine.questions.facets import facets
from patchmine.scores._evidence import Evidence, Float64

HELP = "facets: the number of different things that the unit's top patches show"
KEPT = True


def of_layer(evidence: Evidence) -> Float64:
    counts = facets(evidence.index.store, evidence.layer).astype(np.float64)
    return np.where(counts > 0, counts, np.nan)
