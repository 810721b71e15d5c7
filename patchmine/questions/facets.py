"""Counts the different things that a unit responds to, from the directions of its top patches' vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import CELLS, Float32
from patchmine.store.reading import Store

DRAWS = 20
"""Random sets of patches for comparison, drawn from all kept patches of the layer, each as large as the unit's set."""

_BLOCK = 8192


def facets(store: Store, layer: str) -> NDArray[np.int64]:
    """The number of facets of each unit of the layer (units,); 0 for a unit without patches.

    Takes the vectors of the unit's kept top patches, minus the mean of all kept vectors of the layer, each normalized
    to length 1. Similar patches share a direction, which shows as a large eigenvalue of the matrix of their cosines:
    one cluster makes one, two make two.

    The number of facets is the number of eigenvalues larger than every eigenvalue of DRAWS random sets of the same
    size, drawn with a fixed seed, and at least one. The layer's vectors are held in memory.
    """
    stored, image, position = store.vectors(layer)
    vectors = np.nan_to_num(stored[:], copy=False, nan=0, posinf=0, neginf=0)  # as `patches_faiss.normalized` does
    blocks = (vectors[row : row + _BLOCK].astype(np.float64).sum(axis=0) for row in range(0, len(vectors), _BLOCK))
    mean = (sum(blocks, np.zeros(vectors.shape[1])) / max(len(vectors), 1)).astype(np.float32)
    places = image * CELLS + position
    top = store.top_of_all(layer)
    filled, wanted = top.filled, top.images * CELLS + top.positions
    rng = np.random.default_rng(0)
    chance: dict[int, float] = {}
    found = np.zeros(store.channels[layer], np.int64)
    for unit in range(len(found)):
        rows = np.searchsorted(places, np.unique(wanted[unit][filled[unit]]))
        rows = rows[rows < len(places)]
        if not len(rows):
            continue
        if len(rows) not in chance:
            draws = (rng.choice(len(vectors), len(rows), replace=False) for _ in range(DRAWS))
            chance[len(rows)] = max(_eigenvalues(vectors[np.sort(draw)] - mean)[-1] for draw in draws)
        # A small margin, so that a set of all patches does not exceed itself by rounding.
        larger = _eigenvalues(vectors[rows] - mean) > chance[len(rows)] * 1.0001
        found[unit] = max(1, int(larger.sum()))
    return found


def _eigenvalues(vectors: Float32) -> NDArray[np.floating]:
    """The eigenvalues of the matrix of cosines between vectors (patches, channels), ascending."""
    scaled = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found: NDArray[np.floating] = np.linalg.eigvalsh(scaled @ scaled.T)
    return found
