"""What a synthetic image costs beyond the passes through the network, and how torch-lucent fares beside it.

    python -m scripts.bench.synthesis INDEX [--steps 256] [--rounds 1] [--images 1 16]
    python -m scripts.bench.synthesis INDEX --lucent [--units 64] [--steps 256] [--together 16]

The first: seconds per image of the neuron objective at the default settings, and as a ratio to as many bare passes
forward and backward of the same network, prepared alike, on the same canvas, one after each step; the median where
there are several rounds. Preparing the network, once for a layer, is left out; with fewer steps than the default, what
is done once for an image weighs more.

The second, after `pip install torch-lucent`: the same units, network, steps and canvas (the network's whole input) in
one run, with the neuron objective of both: the largest activation anywhere on the finished picture, with eight bits and
unmoved, and seconds per image, one image at a time or in batches of the same size. The units are those of
`tests/slow/test_synthesis.py`. lucent 0.1.8 gets two repairs: the functions that it takes from kornia
(get_rotation_matrix2d, warp_affine) have moved and are put back; and it normalizes as the networks of torchvision
expect, so it is given this network's numbers instead, after its standard transformations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch

import patchmine
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField
from patchmine.index import Index
from patchmine.models import load_for_index
from patchmine.networks.network import Network
from patchmine.synthesis.ascent import Ascent
from patchmine.synthesis.canvas import whole
from patchmine.synthesis.library import canvas_of
from patchmine.synthesis.recipe import Recipe
from patchmine.units import Unit
from scripts.bench.measuring import command_line
from tests.support.drawn_units import LAYERS, drawn_of


@dataclass
class Beside:
    """Does one bare pass after each step, so that what else the machine does falls on both alike."""

    ascent: Ascent
    images: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        shape = (self.images, 3, *self.ascent.canvas.size)
        self.inputs = torch.randn(shape).contiguous(memory_format=torch.channels_last)

    def __call__(self, _done: int, _of: int) -> None:
        """Forward to the layer and backward to the input."""
        at = self.ascent.canvas.position
        assert at is not None
        began = perf_counter()
        leaf = self.inputs.detach().requires_grad_()
        with torch.enable_grad():
            torch.autograd.grad(self.ascent.maps(leaf)[:, 0, at.y, at.x].sum(), leaf)
        self.seconds += perf_counter() - began


def cost(index: Index, network: Network, layers: Sequence[str], steps: int, rounds: int, batches: list[int]) -> None:
    recipe = Recipe(steps=steps).settled()
    print("layer       canvas  picture  images  s/image at the default steps  bare passes  ratio")
    for layer in layers:

        @cache
        def at(size: tuple[int, int], layer: str = layer) -> ReceptiveField:
            return receptive_fields(network.module, size, [layer])[layer]

        canvas = canvas_of(index, Unit(layer, 0), recipe, at)
        ascent = Ascent(network.module, layer, canvas, network.preprocessing)
        for images in batches:
            channels = list(range(images))
            ascent.run(channels, Recipe(steps=2).settled(), advance=Beside(ascent, images))
            own, passes = [], []
            for _ in range(rounds):
                beside = Beside(ascent, images)
                began = perf_counter()
                ascent.run(channels, recipe, advance=beside)
                own.append(perf_counter() - began - beside.seconds)
                passes.append(beside.seconds)
            ratio = median(a / b for a, b in zip(own, passes, strict=True))
            each, all_passes = (median(times) / images / steps * Recipe.steps for times in (own, passes))
            sides = f"{canvas.size[0]:6}  {canvas.picture.width:7}"
            print(f"{layer:10}  {sides}  {images:6}  {each:28.2f}  {all_passes:11.2f}  {ratio:5.2f}", flush=True)


def against_lucent(network: Network, other: Network, chosen: dict[str, list[int]], steps: int, together: int) -> None:
    """`other` is the same network for lucent, which leaves hooks on it that cannot be copied."""
    import kornia
    from kornia.geometry import transform as moved
    from lucent.optvis import objectives, param, render, transform
    from torchvision.transforms import Normalize

    for name in ("get_rotation_matrix2d", "warp_affine"):
        if not hasattr(kornia, name):
            setattr(kornia, name, getattr(moved, name))
    size = network.preprocessing.crop
    own = [*transform.standard_transforms, Normalize(network.preprocessing.mean, network.preprocessing.std)]
    print("unit            patchmine  seconds    lucent  seconds")
    rows = []
    for layer, drawn in chosen.items():
        ascent = Ascent(network.module, layer, whole(size), network.preprocessing)
        for start in range(0, len(drawn), together):
            channels = drawn[start : start + together]
            began = perf_counter()
            found = ascent.run(channels, Recipe(steps=steps).settled())
            mine = (perf_counter() - began) / len(channels)
            torch.manual_seed(0)
            np.random.seed(0)
            wanted = [objectives.neuron(layer.replace(".", "_"), c, batch=n) for n, c in enumerate(channels)]
            began = perf_counter()
            (pictures,) = render.render_vis(
                other.module,
                objectives.Objective.sum(wanted),
                lambda count=len(channels): param.image(size[1], h=size[0], batch=count),
                transforms=own,
                thresholds=(steps,),
                preprocess=False,
                progress=False,
                show_image=False,
            )
            theirs = (perf_counter() - began) / len(channels)
            pixels = torch.from_numpy((pictures * 255).round().clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2)
            reached = ascent.activations(pixels)
            for n, one in enumerate(found):
                rows.append((float(one.activations.max()), mine, float(reached[n, one.channel].max()), theirs))
                unit = f"{layer}:{one.channel}"
                print(f"{unit:14}  {rows[-1][0]:9.1f}  {mine:7.1f}  {rows[-1][2]:8.1f}  {theirs:7.1f}", flush=True)
    table = np.array(rows)
    higher = (table[:, 0] > table[:, 2]).sum()
    print(
        f"higher in {higher} of {len(rows)} units; {np.median(table[:, 0] / table[:, 2]):.2f} times as high, in "
        f"{np.median(table[:, 1] / table[:, 3]):.2f} of the time (medians); "
        f"{table[:, 1].mean():.1f} and {table[:, 3].mean():.1f} s an image (means)"
    )


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    parser.add_argument("--lucent", action="store_true")
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--together", type=int, default=16)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 16])
    given = parser.parse_args()
    index = patchmine.open_index(given.index)
    network = load_for_index(index.job)
    if given.lucent:
        chosen = drawn_of(index, given.units // len(given.layers), 0, given.layers)
        other = load_for_index(index.job)
        against_lucent(network, other, chosen, given.steps or Recipe.steps, given.together)
    else:
        cost(index, network, given.layers, given.steps or Recipe.steps, given.rounds, given.images)


if __name__ == "__main__":
    main()
