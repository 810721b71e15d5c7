"""Time one projection of each kind, beside the bare pass forward and backward through the whole network.

python -m scripts.bench.projection -i INDEX [--layers blocks.1 blocks.3 blocks.6] [--units 5]
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

from patchmine import defaults, models, open_index
from patchmine.networks.network import Network
from patchmine.questions.project import Projector
from scripts.bench.measuring import Figures, command_line, seconds_of


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("-i", "--index", type=Path, required=True)
    parser.add_argument("--layers", nargs="+", default=["blocks.1", "blocks.3", "blocks.6"])
    parser.add_argument("--units", type=int, default=5)
    wanted = parser.parse_args()
    index = open_index(wanted.index)
    network = models.load_for_index(index.job)
    found = Figures()
    for method in defaults.PROJECTIONS:
        project = Projector(index, method)
        for layer in wanted.layers:
            for channel in range(wanted.units + 1):
                unit = index.unit(f"{layer}:{channel}")
                patches = unit.top(1, crop="auto")
                patch, view = patches[0], patches[0].view(patches.cropping)
                region = view.shown.intersect(index.placement(patch.image_id).picture)
                bare, own = _bare(network), seconds_of(partial(project, patch, region))
                if channel:  # the first of a layer looks for the way through it
                    found.add(f"{method:10} {layer}", own)
                    found.add("bare pass forward and backward", bare)
    for name, seconds in found.medians().items():
        print(f"{name:32} {1000 * seconds:6.0f} ms")


def _bare(network: Network) -> float:
    picture = network.blank().requires_grad_()
    return seconds_of(lambda: network.module(picture).sum().backward())


if __name__ == "__main__":
    main()
