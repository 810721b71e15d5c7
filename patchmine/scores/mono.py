"""MonoScore: how alike the photographs are that drive a unit, each pair weighted by both activations.

Pach et al., "Sparse autoencoders learn monosemantic features in vision-language models" (2025, arXiv 2504.02821): with
w the activations scaled to 0..1 and s the cosines of an embedding, the sum of w_i w_j s_ij over pairs, divided by that
of w_i w_j. Two running sums give both in one pass: |sum of w e|^2 - sum of w^2, and (sum of w)^2 - sum of w^2.
"""

from __future__ import annotations

import numpy as np

from patchmine.scores._evidence import BLOCK, Evidence, Float64

HELP = "mono: MonoScore, the similarity of the photographs that drive the unit; from -1, 1 for one kind of photograph"
KEPT = True


def of_layer(evidence: Evidence) -> Float64:
    embedding = evidence.embedding
    values = evidence.values[embedding.images]
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    varies = high > low
    low, spread = np.where(varies, low, 0), np.where(varies, high - low, 1)
    pulled = np.zeros((values.shape[1], embedding.vectors.shape[1]))
    total, squares = np.zeros((2, values.shape[1]))
    for start in range(0, len(values), BLOCK):
        rows = slice(start, start + BLOCK)
        weights = np.where(known[rows], (values[rows] - low) / spread, 0).astype(np.float64)
        pulled += weights.T @ embedding.vectors[rows]
        total += weights.sum(axis=0)
        squares += (weights**2).sum(axis=0)
    pairs = total**2 - squares
    with np.errstate(divide="ignore", invalid="ignore"):
        found = ((pulled**2).sum(axis=1) - squares) / pairs
    return np.where(varies & (pairs > 1e-9 * total**2), found, np.nan)
