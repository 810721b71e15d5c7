"""Does a patch's box hold all that made its value? Noise everywhere else must not change it.

    python scripts/check_patches.py PHOTOGRAPHS [-i INDEX] [--patches 200] [--view crop|pad|whole]

For patches drawn over all layers: every source pixel outside `box` is replaced by noise, and the activation at the
patch's position computed again; then the pixels along each inner edge of the box are inverted, where that edge is not
the picture's own. Prints by layer how many values stayed (relative 1e-4, absolute below 1) and how many edges can
change the value. Exits with 1 when one value moved.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import patchmine
from patchmine import models
from patchmine.networks.network import Network, Tap, last_call, run_until, survey, tapped
from patchmine.photographs.decode import normalised, prepare
from patchmine.photographs.upright import upright
from patchmine.reading.opened import Index
from patchmine.units import Box, Patch

TOLERANCE = 1e-4
EDGE_PX = 4  # the outermost source pixels of the resize filter weigh too little to be seen alone


def activation(network: Network, tap: Tap, picture: np.ndarray, patch: Patch) -> float:
    """What the unit does at the patch's position when the network sees the picture, uint8 (height, width, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    pixels = prepare(buffer.getvalue(), network.preprocessing).tensor
    found: list[Tensor] = []
    with (
        torch.inference_mode(),
        tapped(network.module, {tap.layer: last_call(tap, lambda o: found.append(tap.layout.grid_of(o).clone()))}),
    ):
        run_until(network.module, normalised(pixels[None], network.preprocessing), tap.layer, tap.calls)
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


def drawn(index: Index, count: int) -> list[Patch]:
    """Patches spread evenly over the layers: random units, random ranks among the top 25."""
    rng = np.random.default_rng(0)
    each = -(-count // len(index.layers))
    patches = []
    for layer, channels in index.layers.items():
        for _ in range(each):
            top = index.unit(f"{layer}:{rng.integers(channels)}").top(25)
            patches.append(top[int(rng.integers(len(top)))])
    return patches[:count]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-i", "--index", type=Path)
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--view", default="crop", help="for an index that is not there yet")
    parser.add_argument("--limit", type=int, help="likewise")
    options = parser.parse_args()
    index_path = options.index or Path(f"{options.folder.name}.patchmine")
    if not index_path.exists():
        patchmine.build_index(options.folder, index_path, view=options.view, limit=options.limit)
    index = patchmine.open_index(index_path, options.folder)
    network = replace(models.load(index.manifest["job"]["model"]), preprocessing=index.preprocessing)
    rng = np.random.default_rng(1)
    patches, stayed, live, tried, worst = Counter[str](), Counter[str](), Counter[str](), Counter[str](), 0.0
    taps = {layer: survey(network.module, network.blank(), [layer])[0] for layer in index.layers}
    for patch in drawn(index, options.patches):
        layer, box = patch.unit.layer, patch.box
        picture = np.asarray(upright(index.photograph(patch.image_id)))
        before = activation(network, taps[layer], picture, patch)
        noisy = rng.integers(0, 256, picture.shape, dtype=np.uint8)
        inside = (slice(box.top, box.bottom), slice(box.left, box.right))
        noisy[inside] = picture[inside]
        moved = abs(activation(network, taps[layer], noisy, patch) - before) / max(1, abs(before))
        worst = max(worst, moved)
        patches[layer] += 1
        stayed[layer] += moved <= TOLERANCE
        for strip in edges(box, (picture.shape[1], picture.shape[0])):
            changed = picture.copy()
            changed[strip] = 255 - changed[strip]
            tried[layer] += 1
            live[layer] += activation(network, taps[layer], changed, patch) != before
    for layer in index.layers:
        edge = f"{live[layer]:3} of {tried[layer]:3} edges live"
        print(f"{layer:10} {stayed[layer]:3} of {patches[layer]:3} values stayed; {edge}")
    print(f"{stayed.total()} of {patches.total()} values stayed, largest change {worst:.1e}")
    return 0 if stayed.total() == patches.total() else 1


if __name__ == "__main__":
    sys.exit(main())
