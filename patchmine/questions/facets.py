"""How many different things a unit responds to, as far as its own top patches tell: directions of their vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import CELLS, Float32
from patchmine.store.reading import Store

DRAWS = 20
"""Sets of patches drawn at random from all kept of the layer, as many as a unit has, to compare it with."""

_BLOCK = 8192


def facets(store: Store, layer: str) -> NDArray[np.int64]:
    """The number of facets of each unit of the layer (units,); 0 for a unit without patches.

    Take the vectors of the unit's kept top patches, less the mean of all kept vectors of the layer, each of length 1.
    Patches that are alike share a direction, which shows as an eigenvalue of the matrix of their cosines: one cluster
    makes one large eigenvalue, two make two. Those that are larger than any eigenvalue of DRAWS sets of as many patches
    of the layer, drawn at random with a fixed seed, count; one at least. The layer's vectors are held in memory.
    """
    stored, image, position = store.vectors(layer)
    vectors = stored[:]
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
        # With a little room, so that a set which is all that there is does not exceed itself by rounding.
        larger = _eigenvalues(vectors[rows] - mean) > chance[len(rows)] * 1.0001
        found[unit] = max(1, int(larger.sum()))
    return found


def _eigenvalues(vectors: Float32) -> NDArray[np.floating]:
    """Of the cosines between vectors (patches, channels), ascending."""
    scaled = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found: NDArray[np.floating] = np.linalg.eigvalsh(scaled @ scaled.T)
    return found
