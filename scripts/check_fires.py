"""Whether `fires` tells the truth of photographs that are not in the index.

    python scripts/check_fires.py PHOTOGRAPHS [--held 12] [--seed 0] [--layers PATTERN]

Random photographs of a folder are held out and the others are indexed. Each of those held out is shown to `fires`,
which is asked for all units, and to the network as torch runs it, with hooks alone. Every value, place, percentile,
deviation and the order are computed again: the value as the maximum of the layer's output, the percentile by bisection
in the sorted column of the table.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
from bisect import bisect_left, bisect_right
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import torch
from numpy.typing import NDArray

from patchmine import build_index, models, open_index
from patchmine.networks.network import Network
from patchmine.photographs.decode import normalised, prepare
from patchmine.questions.fires import Fires
from patchmine.reading.opened import Index
from patchmine.sources import open_source

Maps = dict[str, NDArray[np.float32]]
CLOSE = 1e-5
"""Of values, relative to the largest of the layer: one photograph or a batch, the order of sums differs."""

WRONG = ("left out", "wrong values", "wrong places", "wrong percentiles", "wrong deviations", "wrong order")


def plain(network: Network, index: Index, data: bytes) -> Maps:
    """What each layer of the network puts out for a photograph: (channels, height, width)."""
    maps: Maps = {}

    def keep(_module: object, _inputs: object, output: torch.Tensor, *, layer: str) -> None:
        found = output[0].float().clone()
        maps[layer] = (found if found.ndim == 3 else found[:, None, None]).numpy()

    hooks = [
        network.module.get_submodule(layer).register_forward_hook(partial(keep, layer=layer)) for layer in index.layers
    ]
    with torch.no_grad():
        network.module(normalised(prepare(data, index.preprocessing).tensor[None], index.preprocessing))
    for hook in hooks:
        hook.remove()
    return maps


def compare(found: Fires, maps: Maps, columns: dict[str, list[list[float]]]) -> Counter[str]:
    """How many units were looked at, and of how many something is wrong."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", action="append", default=[])
    options = parser.parse_args()
    source = open_source(str(options.folder))
    entries = list(source.entries())
    held = set(random.Random(options.seed).sample(range(len(entries)), options.held))
    with tempfile.TemporaryDirectory() as temporary:
        listing = Path(temporary) / "others.csv"
        with listing.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "class"])
            writer.writerows(
                (options.folder.resolve() / entry.path, entry.class_name)
                for number, entry in enumerate(entries)
                if number not in held
            )
        build_index(listing, Path(temporary) / "others.patchmine", layers=tuple(options.layers))
        index = open_index(Path(temporary) / "others.patchmine")
        network = models.load(index.job.model)
        columns = {layer: np.sort(index.store.table(layer)[0].T, axis=1).tolist() for layer in index.layers}
        total: Counter[str] = Counter()
        for number in sorted(held):
            path = options.folder / entries[number].path
            found = index.fires(path, k=sum(index.layers.values()))
            total += compare(found, plain(network, index, source.read(entries[number].path)), columns)
            total["photographs"] += 1
            best = found.units[0]
            print(f"{entries[number].path}: {best.unit.name} {best.patch.value:.3g} {best.percentile:.2%}")
        print(f"{total['photographs']} photographs against {len(index)}: {total['units']} values")
        for what in ("identical values", *WRONG):
            print(f"{what:18} {total[what]}")
    return 1 if any(total[what] for what in WRONG) else 0


if __name__ == "__main__":
    sys.exit(main())
