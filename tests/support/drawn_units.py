"""Units drawn at random, the same ones for a check and for a benchmark that cites it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchmine.index import Index

LAYERS = ("blocks.1", "blocks.2", "blocks.4", "blocks.6")
"""Layers of the default network, from edges to objects."""


def drawn_of(index: Index, units: int, seed: int, layers: Sequence[str]) -> dict[str, list[int]]:
    """So many channels of each layer, the same for a layer whichever others of `LAYERS` are asked for."""
    rng = np.random.default_rng(seed)
    every = LAYERS if set(layers) <= set(LAYERS) else layers
    drawn = {layer: rng.choice(index.layers[layer], units, replace=False) for layer in every}
    return {layer: np.sort(drawn[layer]).tolist() for layer in layers}
