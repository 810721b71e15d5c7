"""No layout lays a text over another, over a picture or beyond the page, however long names and numbers are."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import patchmine
from patchmine.sheets.layouts.bands import spectrum_page
from patchmine.sheets.layouts.compare import compare_page
from patchmine.sheets.layouts.context import context_page
from patchmine.sheets.layouts.fires import BEST, fires_page
from patchmine.sheets.layouts.grid import grid_page
from patchmine.sheets.layouts.pairs import pairs_page
from patchmine.sheets.layouts.similar import similar_page
from patchmine.sheets.layouts.strips import strips_page
from patchmine.sheets.layouts.zeiler import zeiler_page
from patchmine.sheets.page import Page, Text, add_line, add_rank
from patchmine.system.progress import Silent
from tests.support.sheets import edges, faults

NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    inner = nn.Sequential()
    inner.add_module("depthwise_separable_projection", nn.Conv2d(8, 12, 3, 2, 1))
    outer = nn.Sequential()
    outer.add_module("bottleneck_with_squeeze_and_excitation", inner)
    stem = nn.Sequential(nn.Conv2d(3, 8, 5, 4, 2), nn.ReLU())
    net = nn.Sequential()
    net.add_module("stem", stem)
    net.add_module("feature_extraction_backbone_stage_four", outer)
    return net.eval()
"""
DEEP = "feature_extraction_backbone_stage_four.bottleneck_with_squeeze_and_excitation.depthwise_separable_projection"
CLASS = "the very long name of a class that somebody gave to a folder of photographs once upon a time"


class Projector:
    """Projections that are all gray."""

    method, progress = "gradxinput", Silent()

    def remark(self, _):
        return "A remark that says at some length what a reader has to know about the projections on this page."

    def __call__(self, patch, region):
        return np.zeros((3, *patch.placement.input[::-1]), np.float32)


@pytest.fixture(scope="module")
def long_names(photographs, tmp_path_factory):
    """An index of a network with long layers, of classes with long names, with units that have long names."""
    folder = tmp_path_factory.mktemp("long")
    for place in sorted(photographs.iterdir()):
        shutil.copytree(place, folder / "photographs" / f"{CLASS} {place.name}")
    (folder / "a_network_of_my_own.py").write_text(NETWORK)
    model = f"{folder / 'a_network_of_my_own.py'}:build"
    patchmine.build_index(folder / "photographs", folder / "x.patchmine", model=model, layers=("stem.0", DEEP))
    index = patchmine.open_index(folder / "x.patchmine")
    index.use(model)
    units = [index.unit(f"{layer}:{channel}") for layer in ("stem.0", DEEP) for channel in (0, 1, 2)]
    for unit in units[::2]:
        given = {**index.names_file.given, str(unit.unit): f"{'a name that goes on and on ' * 3}{unit.unit.channel}"}
        replace(index.names_file, given=given).write(index.directory)
        vars(index).pop("names_file")
    index = patchmine.open_index(folder / "x.patchmine")
    index.use(model)
    return index


@pytest.fixture(scope="module")
def units(long_names):
    return [long_names.unit(f"{layer}:{channel}") for layer in ("stem.0", DEEP) for channel in (0, 1, 2)]


@pytest.mark.parametrize(("k", "crop"), [(1, "image"), (9, "auto"), (25, "rf")])
def test_of_one_unit(long_names, units, k, crop):
    for unit in (units[0], units[3]):
        patches = unit.top(k, crop=crop)
        assert faults(grid_page(unit, patches)) == []
        assert faults(pairs_page(unit, patches, Projector())) == []
        spread = unit.top(k, "spectrum", crop=crop)
        column = long_names.store.column(unit.unit.layer, unit.unit.channel)[0]
        assert faults(spectrum_page(unit, spread, column)) == []


@pytest.mark.parametrize("k", [1, 9, 25])
def test_of_several_units(units, k):
    for chosen in (units[2:5], units[:1]):
        assert faults(strips_page([(unit, unit.top(k)) for unit in chosen], k)) == []
        assert faults(zeiler_page([(unit, unit.top(min(k, 9))) for unit in chosen], Projector())) == []


def test_of_tight_crops(units):
    for k in (9, 1):
        rows = [(unit, unit.top(k, crop="tight")) for unit in units[:2]]
        assert faults(context_page(rows)) == []
        assert faults(strips_page(rows, k)) == []
        assert faults(grid_page(*rows[1])) == []


@pytest.mark.parametrize("k", [1, 25])
def test_of_a_photograph(long_names, k):
    photograph = long_names.path(0)
    fires = long_names.fires(photograph, k=k)
    assert faults(fires_page(fires, [fired.unit.top(BEST) for fired in fires.units])) == []
    assert faults(similar_page(long_names.similar(image=photograph, layer=DEEP, k=k))) == []
    assert faults(similar_page(long_names.similar(f"{DEEP}:0", k=k))) == []


@pytest.mark.parametrize(("k", "unit"), [(1, 0), (9, 3), (25, 0)])
def test_of_synthetic_images(units, k, unit):
    assert faults(compare_page(units[unit].compare(k=k, steps=1, images=2))) == []


@pytest.mark.parametrize("value", ["7.3", "-1.23e-21", "inf", "the place of a number " * 9])
@pytest.mark.parametrize("width", [36, 60, 200])
def test_numbers_beside_ranks_and_names(value, width):
    page = Page(240, 60)
    add_rank(page, (20, 20, width), "100 (above)", value)
    add_line(page, (20, 40, width), Text("name " * 20, 0, 0, 9, bold=True), Text(value, 0, 0, 7))
    assert faults(page) == []
    for text in page.texts:
        left, _, right, _ = edges(text)
        assert left >= 19.7
        assert right <= 20 + width + 0.3


def test_the_check_sees_what_is_wrong():
    page = Page(100, 40, texts=[Text("one", 5, 20, 9), Text("two", 15, 22, 9), Text("a long text", 80, 30, 9)])
    assert faults(page) == ["'a long text' leaves the page", "'one' lies over 'two'"]
