"""A patch's box holds all that made its value: noise everywhere else does not change it.

    python -m pytest tests/slow/test_patches.py -m slow -s --photographs DIR

For patches drawn over all layers, of an index that shows the network the middle of a photograph, all of it with
padding, or all of it in its own size: every source pixel outside `box` is replaced by noise, and the activation at the
patch's position computed again. Then the pixels along each inner edge of the box are inverted, where that edge is not
the picture's own, to see whether the box could be smaller.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import patchmine
from patchmine import models
from patchmine.defaults import VIEWS
from patchmine.index import Index
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap, at_call, run_until, survey, tapped
from patchmine.photographs.decode import normalized, prepare
from patchmine.photographs.upright import upright
from patchmine.reading.patch import Patch
from patchmine.units import Box

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
"""Relative, absolute below 1."""

EDGE_PX = 4
"""The outermost source pixels of the resize filter weigh too little to be seen alone."""

PATCHES = 80
SOME = 12
"""Photographs of an index of another view than the default: fields are computed for every size that occurs."""


def activation(network: Network, tap: Tap, picture: np.ndarray, patch: Patch) -> float:
    """The unit's activation at the patch's position for a picture, uint8 (height, width, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    pixels = prepare(buffer.getvalue(), network.preprocessing).tensor
    found: list[Tensor] = []
    with (
        torch.inference_mode(),
        tapped(network.module, {tap.layer: at_call(tap, lambda o: found.append(tap.layout.grid_of(o).clone()))}),
    ):
        run_until(network.module, normalized(pixels[None], network.preprocessing), tap.layer, tap.call)
    return float(found[0][0, patch.unit.channel, patch.position.y, patch.position.x])


def edges(box: Box, size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """The strips along the inner edges that are not edges of the picture itself."""
    rows, cols = slice(box.top, box.bottom), slice(box.left, box.right)
    strips = []
    if box.top > 0:
        strips.append((slice(box.top, box.top + EDGE_PX), cols))
    if box.bottom < size[1]:
        strips.append((slice(box.bottom - EDGE_PX, box.bottom), cols))
    if box.left > 0:
        strips.append((rows, slice(box.left, box.left + EDGE_PX)))
    if box.right < size[0]:
        strips.append((rows, slice(box.right - EDGE_PX, box.right)))
    return strips


def drawn(index: Index, count: int, rng: np.random.Generator) -> list[Patch]:
    """Patches spread evenly over the layers: random units, random ranks among the top 25."""
    each = -(-count // len(index.layers))
    patches = []
    for layer, channels in index.layers.items():
        for _ in range(each):
            top = index.unit(f"{layer}:{rng.integers(channels)}").top(25)
            patches.append(top[int(rng.integers(len(top)))])
    return patches[:count]


@pytest.fixture(scope="module", params=VIEWS)
def viewed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index of each view."""
    if request.param == VIEWS[0]:
        default: Index = request.getfixturevalue("index")
        return default
    directory = tmp_path_factory.mktemp(request.param) / "viewed.patchmine"
    patchmine.build_index(request.getfixturevalue("photographs"), directory, view=request.param, limit=SOME)
    return patchmine.open_index(directory)


def test_noise_outside_the_box_never_changes_the_value(viewed: Index, seed: int) -> None:
    network = replace(models.load(viewed.manifest["job"]["model"]), preprocessing=viewed.preprocessing)
    rng = np.random.default_rng(seed)
    patches, stayed, live, tried, moved = Counter[str](), Counter[str](), Counter[str](), Counter[str](), {}
    taps = {layer: survey(network.module, network.blank(), [layer])[0] for layer in viewed.layers}
    for patch in drawn(viewed, PATCHES, rng):
        layer, box = patch.unit.layer, patch.box
        picture = np.asarray(upright(viewed.photograph(patch.image_id)))
        before = activation(network, taps[layer], picture, patch)
        noisy = rng.integers(0, 256, picture.shape, dtype=np.uint8)
        inside = (slice(box.top, box.bottom), slice(box.left, box.right))
        noisy[inside] = picture[inside]
        change = abs(activation(network, taps[layer], noisy, patch) - before) / max(1, abs(before))
        patches[layer] += 1
        stayed[layer] += change <= TOLERANCE
        if change > TOLERANCE:
            moved[f"{patch.unit} in {patch.image}"] = change
        for strip in edges(box, (picture.shape[1], picture.shape[0])):
            changed = picture.copy()
            changed[strip] = 255 - changed[strip]
            tried[layer] += 1
            live[layer] += activation(network, taps[layer], changed, patch) != before
    for layer in viewed.layers:
        edge = f"{live[layer]} of {tried[layer]} edges live"
        print(f"\n{viewed.preprocessing.view} {layer}: {stayed[layer]} of {patches[layer]} stayed; {edge}", end="")
    assert patches.total() > 0
    assert moved == {}
