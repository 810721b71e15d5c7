"""Circular padding makes a torus of real networks: at every default layer, the map rolls with the input.

    python -m pytest tests/slow/test_torus.py -m slow -s

Prints for each layer its stride in input pixels, and the largest change of its map, relative to its largest value, when
the input is rolled by whole strides: for circular padding, and for the network as trained.
"""

from __future__ import annotations

import pytest
import torch

from patchmine import models
from patchmine.networks.layers import choose
from patchmine.networks.taps import survey
from patchmine.study.instruments.padding import padded
from patchmine.study.instruments.torus import TOLERANCE, change_when_rolled, torus

pytestmark = pytest.mark.slow

SIDE = 224


@pytest.mark.parametrize("model", ["efficientnet_lite0", "torchvision:resnet18@random", "torchvision:vgg16@random"])
def test_circular_padding_makes_a_torus(model: str) -> None:
    network = models.load(model)
    circular = padded(network.module, "circular")
    size = (SIDE, SIDE)
    changes = {}
    for layer in choose(network, ()):
        changes[layer] = torus(circular, layer, size)
        (tap,) = survey(network.module, torch.zeros(1, 3, *size), [layer])
        step = (SIDE // tap.layout.grid[0], SIDE // tap.layout.grid[1])
        zeros = change_when_rolled(network.module, tap, size, step)
        print(f"\n{model} {layer}: stride {step[0]}, circular {changes[layer]:.1e}, as trained {zeros:.1e}", end="")
    assert changes
    assert max(changes.values()) <= TOLERANCE, changes
