"""Does the synthetic image drive its unit harder than the best photograph of an index?

    python scripts/check_synthesis.py INDEX [--units 64] [--layers L ...] [--steps N] [--method M]

For units drawn from each layer, with the default recipe of the neuron objective: the activation on the synthetic image
(as it would be saved, with eight bits, and unmoved) over the largest of all photographs of the index; the smallest,
quartiles, and in how many units it is above 1. Then one unit of each layer twice, whose bytes must be the same. Ends
with 1 unless at least 95 of 100 units are above 1 and all bytes are the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

import patchmine
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField
from patchmine.models import load_for_index
from patchmine.reading.opened import Index
from patchmine.synthesis.amplitudes import of_index
from patchmine.synthesis.ascent import Ascent, Synthetic
from patchmine.synthesis.library import BATCH, canvas_of
from patchmine.synthesis.recipe import Recipe
from patchmine.units import Unit

LAYERS = ("blocks.1", "blocks.2", "blocks.4", "blocks.6")
ENOUGH = 0.95


def drawn_of(index: Index, units: int, seed: int, layers: Sequence[str]) -> dict[str, list[int]]:
    """Channels of each layer, the same for a layer whichever others of `LAYERS` are asked for."""
    rng = np.random.default_rng(seed)
    every = LAYERS if set(layers) <= set(LAYERS) else layers
    drawn = {layer: rng.choice(index.layers[layer], units, replace=False) for layer in every}
    return {layer: np.sort(drawn[layer]).tolist() for layer in layers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--method", default=Recipe.method)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    index = patchmine.open_index(given.index)
    network = load_for_index(index.job)
    recipe = Recipe(steps=given.steps, method=given.method).settled()
    amplitudes = of_index(index) if recipe.method == "maco" else None
    chosen = drawn_of(index, given.units // len(given.layers), given.seed, given.layers)
    ratios, same = [], True
    print("layer       units  smallest  quarter  median  three quarters  largest  above 1")
    for layer in given.layers:

        @cache
        def at(size: tuple[int, int], layer: str = layer) -> ReceptiveField:
            return receptive_fields(network.module, size, [layer])[layer]

        drawn = chosen[layer]
        ascent = Ascent(network.module, layer, canvas_of(index, Unit(layer, 0), recipe, at), network.preprocessing)

        def made(channels: list[int], ascent: Ascent = ascent) -> list[Synthetic]:
            return ascent.run(channels, recipe, amplitudes=amplitudes)

        found = [one for start in range(0, len(drawn), BATCH) for one in made(drawn[start : start + BATCH])]
        best = [index.unit(Unit(layer, channel)).statistics.maximum for channel in drawn]
        own = np.array([one.value for one in found]) / np.array(best)
        ratios.append(own)
        print(f"{layer:10}  {len(own):5}  {shown(own)}  {(own > 1).sum():5}", flush=True)
        same &= made(drawn[:1])[0].picture.tobytes() == made(drawn[:1])[0].picture.tobytes()
    every = np.concatenate(ratios)
    print(f"{'all':10}  {len(every):5}  {shown(every)}  {(every > 1).sum():5}")
    print(f"above 1: {(every > 1).mean():.1%}; the same bytes again: {'yes' if same else 'NO'}")
    raise SystemExit(not (same and (every > 1).mean() >= ENOUGH))


def shown(ratios: np.ndarray) -> str:
    low, first, middle, third, high = np.quantile(ratios, [0, 0.25, 0.5, 0.75, 1])
    return f"{low:8.2f}  {first:7.2f}  {middle:6.2f}  {third:14.2f}  {high:7.2f}"


if __name__ == "__main__":
    main()
