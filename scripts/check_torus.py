"""Whether circular padding makes a torus of real networks: at every default layer, the map must roll with the input.

    python scripts/check_torus.py [MODEL ...] [--side 224]

Prints for each layer its stride in input pixels, and the largest change of its map, relative to its largest value, when
the input is rolled by whole strides: for circular padding, and for the network as trained. Ends with 1 where the former
is more than 1e-5.
"""

from __future__ import annotations

import argparse
import sys

import torch

from patchmine import models
from patchmine.networks.layers import choose
from patchmine.networks.network import survey
from patchmine.study.instruments.padding import padded
from patchmine.study.instruments.torus import TOLERANCE, change_when_rolled, torus

MODELS = ("efficientnet_lite0", "torchvision:resnet18@random", "torchvision:vgg16@random")


def check(model: str, side: int) -> float:
    """The largest change over the default layers, on the torus."""
    network = models.load(model)
    circular = padded(network.module, "circular")
    size = (side, side)
    worst = 0.0
    for layer in choose(network, ()):
        change = torus(circular, layer, size)
        (tap,) = survey(network.module, torch.zeros(1, 3, *size), [layer])
        step = (side // tap.layout.grid[0], side // tap.layout.grid[1])
        zeros = change_when_rolled(network.module, tap, size, step)
        print(f"{model:28} {layer:12} stride {step[0]:2}   circular {change:.1e}   as trained {zeros:.1e}", flush=True)
        worst = max(worst, change)
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--side", type=int, default=224, help="of the canvas, in pixels (default: 224)")
    arguments = parser.parse_args()
    worst = max(check(model, arguments.side) for model in arguments.models)
    print(f"largest change on the torus: {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(not worst <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
