"""Tight crops keep their promise when they are measured apart from the search, and survive being killed.

    python -m pytest tests/slow/test_tight.py -m slow -s --index INDEX --units 50 [--kills 50]

For units drawn from each of three deep layers and their best nine patches: what the crop retains on both backgrounds,
and whether any side could move in, by plain torch with scipy's blur; what it retains on backgrounds that the search
never saw (of noise, another draw); what is left without it; and what boxes of equal area retain that come from
occlusion, from the activation map (as Grad-CAM of a unit in its own layer) and from the gradient times the input.
Prints a line for each.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from patchmine.index import Index, open_index
from patchmine.mining.build import build_index
from patchmine.networks.taps import Tap, maps, run_until, survey, tapped
from patchmine.photographs.decode import normalized, prepare
from patchmine.reading.patch import Patch
from patchmine.sources.shapes import Shapes
from patchmine.tight.search import moved_in
from patchmine.units import Box, Unit
from tests.support.drawn_units import drawn_of

pytestmark = pytest.mark.slow

LAYERS = ("blocks.5", "blocks.6", "bn2.drop")
UNITS, K, SHARE = 6, 9, 0.8
CELL, SQUARE = 4, 28  # input pixels of a cell of evidence, and of the square that occlusion moves

Evidence = NDArray[np.float64]
COLUMNS = (
    "retained", "moved in", "on mean color", "on noise", "on a photograph", "without", "occlusion", "map", "gradient",
    "area",
)  # fmt: skip


class Looker:
    """The network of an index, unfolded, at one layer."""

    def __init__(self, index: Index, layer: str) -> None:
        self.index, self.layer = index, layer
        self.module = index.network().module
        self.taps: tuple[Tap, ...] = survey(self.module, index.network().blank(), [layer])
        self.other = self.picture(index.photograph(len(index) // 2))

    def picture(self, data: bytes) -> Tensor:
        return normalized(prepare(data, self.index.preprocessing).tensor[None], self.index.preprocessing)[0]

    def values(self, inputs: list[Tensor], patch: Patch) -> NDArray[np.float64]:
        found = maps(self.module, torch.stack(inputs), self.taps)[self.layer]
        cells: NDArray[np.float64] = found[:, patch.unit.channel, patch.position.y, patch.position.x].double().numpy()
        return cells

    def gradient(self, picture: Tensor, patch: Patch) -> Evidence:
        seen: list[Tensor] = []
        inputs = picture[None].clone().requires_grad_(True)
        with tapped(self.module, {self.layer: seen.append}):
            run_until(self.module, inputs, self.layer)
        value = seen[0][0, patch.unit.channel, patch.position.y, patch.position.x]
        (gradient,) = torch.autograd.grad(value, inputs)
        return _cells((gradient[0] * picture).sum(0))

    def activation_map(self, picture: Tensor, patch: Patch) -> Evidence:
        found = maps(self.module, picture[None], self.taps)[self.layer][:, patch.unit.channel, None]
        return _cells(torch.nn.functional.interpolate(found.clamp(min=0), picture.shape[1:], mode="bilinear")[0, 0])

    def occlusion(self, picture: Tensor, patch: Patch) -> Evidence:
        gray = torch.zeros_like(picture)
        tops, lefts = (range(0, length - SQUARE + 1, SQUARE) for length in picture.shape[1:])
        covered = [_mixed(picture, gray, Box(x, y, x + SQUARE, y + SQUARE)) for y in tops for x in lefts]
        lost = self.values([picture], patch) - self.values(covered, patch)
        found: Evidence = np.kron(lost.reshape(len(tops), len(lefts)), np.ones((SQUARE // CELL,) * 2)).astype(
            np.float64
        )
        return found


def _cells(pixels: Tensor) -> Evidence:
    height, width = (length // CELL for length in pixels.shape)
    found: Evidence = pixels.reshape(height, CELL, width, CELL).sum((1, 3)).double().numpy()
    return found


def _mixed(outside: Tensor, inside: Tensor, box: Box) -> Tensor:
    mixed = outside.clone()
    part = (slice(None), slice(box.top, box.bottom), slice(box.left, box.right))
    mixed[part] = inside[part]
    return mixed


def best_box(evidence: Evidence, area: float) -> Box:
    """The box of about that share of the picture, at most 2.5 times as long as wide, with the most evidence for it."""
    height, width = evidence.shape
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = np.maximum(evidence, 0).cumsum(0).cumsum(1)
    wanted, best, found = max(1, round(area * height * width)), -1.0, Box(0, 0, width, height)
    for across in range(1, width + 1):
        down = max(1, min(height, round(wanted / across)))
        if 0.4 <= across / down <= 2.5:
            inside = sums[down:, across:] - sums[:-down, across:] - sums[down:, :-across] + sums[:-down, :-across]
            y, x = np.unravel_index(int(inside.argmax()), inside.shape)
            if inside[y, x] > best:
                best, found = float(inside[y, x]), Box(int(x), int(y), int(x) + across, int(y) + down)
    return Box(*(CELL * edge for edge in found.as_tuple()))


def measured(looker: Looker, patch: Patch) -> list[float]:
    """The numbers of COLUMNS for one patch."""
    assert patch.tight is not None and patch.area is not None
    picture, box = looker.picture(patch.photograph()), patch.tight.box
    gray = torch.zeros_like(picture)
    sigma = min(picture.shape[1:]) / 14
    blur = torch.from_numpy(gaussian_filter(picture.numpy(), (0, sigma, sigma), mode="mirror", truncate=3))
    whole, *blanks = looker.values([picture, gray, blur], patch)

    def retained(part: Box) -> float:
        alone = looker.values([_mixed(gray, picture, part), _mixed(blur, picture, part)], patch)
        return float(min((a - b) / (whole - b) for a, b in zip(alone, blanks, strict=True)))

    def on(background: Tensor) -> float:
        alone, blank = looker.values([_mixed(background, picture, box), background], patch)
        return float((alone - blank) / (whole - blank))

    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(patch.image_id))
    covered = looker.values([_mixed(picture, blur, box)], patch)[0]
    moves = [moved for side in range(4) if (moved := moved_in(box, side)) is not None]
    return [
        retained(box),
        max((retained(moved) for moved in moves), default=0.0),
        on(picture.mean((1, 2), keepdim=True).expand_as(picture)),
        on(noise * picture.std() + picture.mean()),
        on(looker.other),
        float((covered - blanks[1]) / (whole - blanks[1])),
        *(
            retained(best_box(evidence, patch.area))
            for evidence in (
                looker.occlusion(picture, patch),
                looker.activation_map(picture, patch),
                looker.gradient(picture, patch),
            )
        ),
        patch.area,
    ]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_tight_crop_proves_itself(index: Index, layer: str, seed: int, request: pytest.FixtureRequest) -> None:
    if layer not in index.layers:
        pytest.skip(f"the index lacks {layer}: give --index DIR of the default network")
    drawn = drawn_of(index, request.config.getoption("--units") or UNITS, seed, (layer,))[layer]
    units = [index.unit(Unit(layer, channel)) for channel in drawn]
    index.tight(units, K, SHARE)
    looker = Looker(index, layer)
    patches = [patch for unit in units for patch in unit.top(K, crop="tight", share=SHARE) if patch.tight is not None]
    found = np.array([measured(looker, patch) for patch in patches])
    asked = np.mean([patch.tight.asked for patch in patches if patch.tight is not None])
    middle = dict(zip(COLUMNS, np.median(found, axis=0).tolist(), strict=True))
    minimal = float((found[:, 1] < SHARE + 2e-3).mean())
    medians = ", ".join(f"{key} {value:.3f}" for key, value in middle.items())
    print(
        f"\n{layer}: {len(patches)} patches, {asked:.0f} measurements each, smallest retained {found[:, 0].min():.4f}"
    )
    print(f"  locally minimal {minimal:.1%}; medians: {medians}")
    assert found[:, 0].min() >= SHARE
    assert minimal >= 0.95
    assert min(middle["on mean color"], middle["on noise"]) >= 0.75
    assert middle["retained"] > max(middle["occlusion"], middle["map"], middle["gradient"])


def test_a_killed_run_ends_with_the_same_crops(index: Index, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """SIGKILL at random moments; the crops must be those of a run that nobody disturbed."""
    calm, killed = tmp_path / "calm.patchmine", tmp_path / "killed.patchmine"
    for copy in (calm, killed):
        shutil.copytree(index.directory, copy, ignore=shutil.ignore_patterns("tight"))
    layer = list(index.layers)[-1]
    units = [word for channel in range(24) for word in ("--unit", f"{layer}:{channel}")]

    def command(directory: Path) -> list[str]:
        return [sys.executable, "-m", "patchmine", "tighten", "-k", "1", *units, "-i", str(directory)]

    subprocess.run(command(calm), check=True, capture_output=True)
    rng = np.random.default_rng(0)
    for _ in range(request.config.getoption("--kills")):
        running = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            running.wait(timeout=float(rng.uniform(0.5, 9)))
        except subprocess.TimeoutExpired:
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
    subprocess.run(command(killed), check=True, capture_output=True)
    crops = {file.relative_to(calm): file.read_bytes() for file in sorted(calm.glob("tight/*/*.json"))}
    assert crops == {file.relative_to(killed): file.read_bytes() for file in sorted(killed.glob("tight/*/*.json"))}
    assert len(crops) == 24


@pytest.mark.parametrize(("share", "covered"), [(0.8, 0.6), (0.95, 0.85)])
def test_crops_of_planted_shapes_lie_on_them(share: float, covered: float, tmp_path: Path) -> None:
    """The hand-set network looks for drawn shapes: a crop covers most of one, and never much beside it."""
    directory = tmp_path / "shapes.patchmine"
    build_index("shapes:120", directory, model="shapes", keep=10)
    index = open_index(directory)
    source, layer = index.source, list(index.layers)[-1]
    assert isinstance(source, Shapes)
    covers, areas = [], []
    for unit in index.units(layer):
        for patch in unit.top(5, crop="tight", share=share):
            if patch.tight is None:
                continue
            drawn = source.plan(int(patch.image.split(".")[0]))[1]
            placement, shape = patch.placement, max(drawn, key=lambda one: one.box.intersect(patch.box).area).box
            assert placement is not None
            scale = placement.resized[0] / placement.source[0]
            left, top, right, bottom = (round(side * scale) for side in shape.as_tuple())
            inside = Box(left - placement.left, top - placement.top, right - placement.left, bottom - placement.top)
            covers.append(patch.tight.box.intersect(inside).area / inside.area)
            areas.append(patch.tight.box.area / inside.area)
    print(
        f"\n{share}: {len(covers)} patches, covered {np.median(covers):.2f}, area {np.median(areas):.2f} of the shape"
    )
    assert len(covers) > 50
    assert np.median(covers) >= covered
    assert (np.array(areas) <= 1.6).mean() >= 0.95
