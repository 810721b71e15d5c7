"""A synthetic image drives its unit harder than the best photograph of an index.

    python -m pytest tests/slow/test_synthesis.py -m slow -s --index INDEX --units 64 [--steps N] [--method M]

For units drawn from each of four layers, with the default recipe of the neuron objective: the activation on the
synthetic image (as it would be saved, with eight bits, and unmoved) over the largest of all photographs of the index.
Prints the smallest, quartiles, and in how many units it is above 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest

from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField
from patchmine.index import Index
from patchmine.models import load_for_index
from patchmine.synthesis.amplitudes import of_index
from patchmine.synthesis.ascent import Ascent
from patchmine.synthesis.library import BATCH, canvas_of
from patchmine.synthesis.recipe import Recipe
from patchmine.units import Unit
from tests.support.drawn_units import LAYERS, drawn_of

pytestmark = pytest.mark.slow

ENOUGH = 0.95
UNITS = 8


@dataclass
class Made:
    """The ratios of all units, and the layers where the same recipe gave other bytes the second time."""

    ratios: list[float] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def made(index: Index, request: pytest.FixtureRequest, seed: int) -> Made:
    if missing := set(LAYERS) - set(index.layers):
        pytest.skip(f"the index lacks {', '.join(sorted(missing))}: give --index DIR of the default network")
    units = request.config.getoption("--units") or UNITS
    network = load_for_index(index.job)
    steps, method = (request.config.getoption(name) for name in ("--steps", "--method"))
    recipe = Recipe(steps=steps or Recipe.steps, method=method or Recipe.method).settled()
    amplitudes = of_index(index) if recipe.method == "maco" else None
    made = Made()
    print("\nlayer       units  smallest  quarter  median  three quarters  largest  above 1")
    for layer, drawn in drawn_of(index, max(1, units // len(LAYERS)), seed, LAYERS).items():

        @cache
        def at(size: tuple[int, int], layer: str = layer) -> ReceptiveField:
            return receptive_fields(network.module, size, [layer])[layer]

        ascent = Ascent(network.module, layer, canvas_of(index, Unit(layer, 0), recipe, at), network.preprocessing)
        batches = [drawn[start : start + BATCH] for start in range(0, len(drawn), BATCH)]
        found = [one for batch in batches for one in ascent.run(batch, recipe, amplitudes=amplitudes)]
        best = [index.unit(Unit(layer, channel)).statistics.maximum for channel in drawn]
        ratios = [one.value / other for one, other in zip(found, best, strict=True)]
        print(shown(layer, ratios), flush=True)
        made.ratios += ratios
        once, again = (ascent.run(drawn[:1], recipe, amplitudes=amplitudes)[0].picture.tobytes() for _ in range(2))
        if once != again:
            made.unlike.append(layer)
    print(shown("all", made.ratios))
    return made


def shown(layer: str, ratios: list[float]) -> str:
    low, first, middle, third, high = np.quantile(ratios, [0, 0.25, 0.5, 0.75, 1])
    above = sum(ratio > 1 for ratio in ratios)
    line = f"{layer:10}  {len(ratios):5}  {low:8.2f}  {first:7.2f}  {middle:6.2f}  {third:14.2f}  {high:7.2f}"
    return f"{line}  {above:5}"


def test_almost_every_synthetic_image_drives_its_unit_harder_than_all_photographs(made: Made) -> None:
    assert np.mean([ratio > 1 for ratio in made.ratios]) >= ENOUGH, made.ratios


def test_the_same_recipe_gives_the_same_bytes_again(made: Made) -> None:
    assert made.unlike == []
