"""Tight crops of units that look for one drawn shape each, against the shape's place and the smallest box there is.

    python -m pytest tests/slow/test_tight_planted.py -m slow -s

A unit with a threshold keeps 80 % of its activation only while it sees nearly all of its shape, so its crop must cover
it. A linear one keeps 80 % with 80 % of its evidence, so its smallest box covers less: there the crop is compared with
that box alone. Prints a line for each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import patchmine
from patchmine.index import Index
from patchmine.kept.tight_crops import Seat
from patchmine.tight.backgrounds import blurred
from patchmine.tight.search import STEP
from patchmine.tight.tightening import tightened
from patchmine.units import Box, Unit
from tests.support import planted_shapes

pytestmark = pytest.mark.slow

SHARE, LARGEST = 0.8, 1.6
EVERY = 5  # of the units, the boxes of one in so many are compared with all others


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Index:
    directory = tmp_path_factory.mktemp("planted") / "i.patchmine"
    model = f"{planted_shapes.__file__}:build"
    patchmine.build_index(planted_shapes.SOURCE.spec, directory, model=model, layers=["match", "unit"], keep=10)
    index = patchmine.open_index(directory)
    index.use(model)
    return index


def crops(index: Index, layer: str, channels: range) -> Iterator[tuple[int, Box]]:
    """The tight crop of each of these units on the shape that was planted for it."""
    across = index.field(layer).grid[1]
    seats = {}
    for channel in channels:
        row, column = planted_shapes.place(channel)
        unit = Unit(layer, channel)
        seats[unit] = [Seat(unit, planted_shapes.photograph_of(channel), row * across + column)]
    for unit, found in tightened(index, seats, SHARE):
        (crop,) = found.values()
        assert crop is not None
        yield unit.channel, crop.box


def times_the_smallest(channel: int, box: Box, threshold: bool) -> float:
    picture = planted_shapes.pictured(planted_shapes.photograph_of(channel))
    backgrounds = [torch.zeros_like(picture), blurred(picture[None])[0]]
    return box.area / planted_shapes.smallest(channel, backgrounds, SHARE, threshold).area


def test_a_crop_covers_the_shape_that_its_unit_needs(planted: Index) -> None:
    """Each side is at most a step of the grid inside the shape's, and the area at most 1.6 times the shape's box."""
    insets, areas, ratios = [], [], []
    for channel, box in crops(planted, "unit", range(planted_shapes.COUNT)):
        left, top, right, bottom = planted_shapes.main_shape(planted_shapes.photograph_of(channel))
        insets.append(max(box.left - left, box.top - top, right - box.right, bottom - box.bottom))
        areas.append(box.area / ((right - left) * (bottom - top)))
        if channel % EVERY == 0:
            ratios.append(times_the_smallest(channel, box, threshold=True))
    held = (np.array(insets) <= STEP) & (np.array(areas) <= LARGEST)
    print(
        f"\n{held.mean():.1%} of {len(held)} crops cover their shape with at most {LARGEST} times its area; a side is "
        f"at most {max(insets):.1f} px inside, the median area {np.median(areas):.2f}, the largest {max(areas):.2f}; "
        f"{np.median(ratios):.3f} times the smallest box in the median of {len(ratios)}, {max(ratios):.2f} at most"
    )
    assert len(held) >= 100
    assert held.mean() >= 0.95
    assert np.median(ratios) <= 1.1


def test_a_crop_of_a_linear_unit_is_nearly_the_smallest_box(planted: Index) -> None:
    ratios = [
        times_the_smallest(channel, box, threshold=False)
        for channel, box in crops(planted, "match", range(0, planted_shapes.COUNT, EVERY))
    ]
    print(f"\n{np.median(ratios):.3f} times the smallest box in the median of {len(ratios)}, {max(ratios):.2f} at most")
    assert min(ratios) > 0.999
    assert np.median(ratios) <= 1.1
