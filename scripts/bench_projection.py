"""Time one projection of each kind, beside the bare pass forward and backward through the whole network.

python scripts/bench_projection.py -i INDEX [--layers blocks.1 blocks.3 blocks.6] [--units 5]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import median
from time import perf_counter

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

from patchmine import defaults, models, open_index
from patchmine.networks.network import Network
from patchmine.questions.project import Projector
from patchmine.reading.opened import Cropping
from patchmine.sheets import tiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--index", type=Path, required=True)
    parser.add_argument("--layers", nargs="+", default=["blocks.1", "blocks.3", "blocks.6"])
    parser.add_argument("--units", type=int, default=5)
    wanted = parser.parse_args()
    index = open_index(wanted.index)
    network = models.load_for_index(index.job)
    bare = []
    for method in defaults.PROJECTIONS:
        project = Projector(index, lambda: network, method)
        for layer in wanted.layers:
            taken = []
            for channel in range(wanted.units + 1):
                unit = index.unit(f"{layer}:{channel}")
                patch = unit.top(1)[0]
                view = tiles.view(unit, patch, Cropping(index.crop(unit.unit, "auto")))
                region = view.shown.intersect(index.placement(patch.image_id).picture)
                bare.append(_bare(network))
                start = perf_counter()
                project(patch, region)
                taken.append(perf_counter() - start)
            # The first looks for the way through the layer.
            print(f"{method:10} {layer:10} {median(taken[1:]) * 1000:6.0f} ms")
    print(f"bare pass forward and backward {median(bare[1:]) * 1000:.0f} ms")


def _bare(network: Network) -> float:
    picture = network.blank().requires_grad_()
    start = perf_counter()
    network.module(picture).sum().backward()
    return perf_counter() - start


if __name__ == "__main__":
    main()
