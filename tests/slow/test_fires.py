"""Whether `fires` tells the truth about photographs that are not in the index.

    python -m pytest tests/slow/test_fires.py -m slow -s --photographs DIR [--limit 800]

Random photographs are held out and the others are indexed. `fires` ranks all units for each photograph held out, and
torch runs the network on it, with hooks alone. Every value, place, percentile, deviation and the order are computed
again: the value as the maximum of the layer's output, the percentile by bisection in the sorted column of the table.
"""

from __future__ import annotations

import csv
import random
from bisect import bisect_left, bisect_right
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from patchmine import build_index, models, open_index
from patchmine.index import Index
from patchmine.networks.network import Network
from patchmine.photographs.decode import normalized, prepare
from patchmine.questions.fires import Fires
from patchmine.sources import open_source

pytestmark = pytest.mark.slow

Maps = dict[str, NDArray[np.float32]]
HELD = 12
CLOSE = 1e-5
"""How near values must be, relative to the largest of the layer: batches of another size add in another order."""


def plain(network: Network, index: Index, data: bytes) -> Maps:
    """The output of each layer of the network for a photograph: (channels, height, width)."""
    maps: Maps = {}

    def keep(_module: object, _inputs: object, output: torch.Tensor, *, layer: str) -> None:
        found = output[0].float().clone()
        maps[layer] = (found if found.ndim == 3 else found[:, None, None]).numpy()

    hooks = [
        network.module.get_submodule(layer).register_forward_hook(partial(keep, layer=layer)) for layer in index.layers
    ]
    with torch.no_grad():
        network.module(normalized(prepare(data, index.preprocessing).tensor[None], index.preprocessing))
    for hook in hooks:
        hook.remove()
    return maps


def compare(found: Fires, maps: Maps, columns: dict[str, list[list[float]]]) -> Counter[str]:
    """How many units were compared, and in how many of them something is wrong."""
    counts: Counter[str] = Counter(
        {"units": len(found.units), "left out": sum(map(len, maps.values())) - len(found.units)}
    )
    for fired in found.units:
        unit, patch = fired.unit.unit, fired.patch
        image = maps[unit.layer][unit.channel]
        room = CLOSE * float(np.abs(maps[unit.layer]).max())
        counts["identical values"] += patch.value == image.max()
        counts["wrong values"] += abs(patch.value - float(image.max())) > room
        counts["wrong places"] += image[patch.position.y, patch.position.x] < image.max() - room
        column = columns[unit.layer][unit.channel]
        below, up_to = bisect_left(column, patch.value), bisect_right(column, patch.value)
        counts["wrong percentiles"] += abs(fired.percentile - (below + up_to) / 2 / len(column)) > 1e-12
        spread = pstdev(column)
        deviation = (patch.value - fmean(column)) / spread if spread else 0.0
        counts["wrong deviations"] += abs(fired.deviation - deviation) > 1e-3 * max(1, abs(deviation))
    keys = [(-fired.percentile, -fired.deviation) for fired in found.units]
    counts["wrong order"] += sum(one > other for one, other in pairwise(keys))
    return counts


@pytest.fixture(scope="module")
def counted(photographs: Path, seed: int, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """`compare` over all photographs held out."""
    source = open_source(str(photographs))
    entries = list(source.entries())
    held = set(random.Random(seed).sample(range(len(entries)), HELD))
    folder = tmp_path_factory.mktemp("held")
    with (folder / "others.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "class"])
        writer.writerows((photographs / e.path, e.class_name) for n, e in enumerate(entries) if n not in held)
    build_index(folder / "others.csv", folder / "others.patchmine")
    index = open_index(folder / "others.patchmine")
    network = models.load(index.job.model)
    columns = {layer: np.sort(index.store.table(layer)[0].T, axis=1).tolist() for layer in index.layers}
    total: Counter[str] = Counter()
    for number in sorted(held):
        found = index.fires(photographs / entries[number].path, k=sum(index.layers.values()))
        total += compare(found, plain(network, index, source.read(entries[number].path)), columns)
        best = found.units[0]
        print(f"\n{entries[number].path}: {best.unit.name} {best.patch.value:.3g} {best.percentile:.2%}", end="")
    print(f"\n{HELD} photographs against {len(index)}: {total['units']} values, {total['identical values']} identical")
    return total


@pytest.mark.parametrize(
    "mistake", ["left out", "wrong values", "wrong places", "wrong percentiles", "wrong deviations", "wrong order"]
)
def test_no_unit_is(mistake: str, counted: Counter[str]) -> None:
    assert counted["units"] > 0
    assert counted[mistake] == 0
