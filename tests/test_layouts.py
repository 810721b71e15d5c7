"""No layout lays a text over another, over a picture or beyond the page, however long names and numbers are."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import patchmine
from patchmine.sheets.captions import Template
from patchmine.sheets.layouts.bands import spectrum_page
from patchmine.sheets.layouts.compare import compare_page
from patchmine.sheets.layouts.context import context_page
from patchmine.sheets.layouts.facets import facets_of, facets_page
from patchmine.sheets.layouts.fires import BEST, fires_page
from patchmine.sheets.layouts.grid import grid_page
from patchmine.sheets.layouts.layer import layer_pages
from patchmine.sheets.layouts.pairs import pairs_page
from patchmine.sheets.layouts.queries import queries_page, trial_of
from patchmine.sheets.layouts.similar import similar_page
from patchmine.sheets.layouts.strips import strips_page
from patchmine.sheets.layouts.zeiler import zeiler_page
from patchmine.sheets.page import Page, Picture, Rectangle, Text, add_line, add_rank, stacked
from patchmine.sheets.style import PAGE, style_of
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
    for copy in range(5):
        for place in sorted(photographs.iterdir()):
            shutil.copytree(place, folder / "photographs" / f"{copy} {CLASS} {place.name}")
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


TEMPLATE = Template("{name} {layer} {rank} {value:.2f} {class} {retained:.0%} {image}\n{rank}")
STYLES = {
    "page": PAGE,
    "icml": style_of("icml"),
    "all": replace(style_of("nature2"), caption=TEMPLATE, frame="class", scale_bar=True),
    "narrow": replace(style_of("30mm"), frame="sign", scale_bar=True, columns=3),
}


SOME = [(1, "page"), (9, "icml"), (9, "narrow"), (25, "all"), (100, "narrow"), (100, "page")]
"""How many patches, in which style."""


@pytest.mark.parametrize(("k", "style"), SOME)
def test_of_one_unit(long_names, units, k, style):
    style, crop = STYLES[style], {1: "image", 25: "rf"}.get(k, "auto")
    for unit in (units[0], units[3]):
        patches = unit.top(k, crop=crop)
        assert len(patches) == k
        assert faults(grid_page(unit, patches, style)) == []
        assert faults(pairs_page(unit, patches, Projector(), style)) == []
        spread = unit.top(k, "spectrum", crop=crop)
        column = long_names.store.column(unit.unit.layer, unit.unit.channel)[0]
        assert faults(spectrum_page(unit, spread, column, style)) == []


@pytest.mark.parametrize(("k", "style"), SOME)
def test_of_several_units(units, k, style):
    style = STYLES[style]
    for chosen in (units[2:5], units[:1]):
        rows = [(unit, unit.top(k)) for unit in chosen]
        assert faults(strips_page(rows, k, style)) == []
        assert faults(context_page(rows, style)) == []
        assert faults(stacked([grid_page(*row, style) for row in rows], style)) == []
    assert faults(zeiler_page([(unit, unit.top(min(k, 9))) for unit in units[2:5]], Projector(), style)) == []


@pytest.mark.parametrize(("k", "style"), SOME[:-2])
def test_of_facets_and_queries(units, k, style):
    style = STYLES[style]
    found = facets_of(units[3], units[3].top(100), k)
    assert faults(facets_page(units[3], found, k, style)) == []
    trial = trial_of(units[3].top(k + 1), units[3].top(k + 1, "bottom"), k, seed=0)
    assert len(trial.high) == len(trial.low) == k
    assert faults(queries_page([(units[3], trial), (units[2], trial)], style)) == []


@pytest.mark.parametrize(("k", "style"), SOME)
def test_of_a_layer(units, k, style):
    pages = list(layer_pages(units * (30 if k == 1 else 1), k, lambda unit: unit.top(k), STYLES[style]))
    assert [fault for page in pages for fault in faults(page)] == []
    assert {link.page for page in pages for link in page.links} == set(
        range(sum(bool(page.links) for page in pages), len(pages))
    )


@pytest.mark.parametrize(("k", "style"), SOME[:2])
def test_of_tight_crops(units, k, style):
    style = STYLES[style]
    rows = [(unit, unit.top(k, crop="tight")) for unit in units[:2]]
    assert faults(context_page(rows, style)) == []
    assert faults(strips_page(rows, k, style)) == []
    assert faults(grid_page(*rows[1], style)) == []


@pytest.mark.parametrize("k", [1, 25])
def test_of_a_photograph(long_names, k):
    photograph = long_names.path(0)
    fires = long_names.fires(photograph, k=k)
    assert faults(fires_page(fires, [fired.unit.top(BEST) for fired in fires.units])) == []
    assert faults(similar_page(long_names.similar(image=photograph, layer=DEEP, k=k))) == []
    assert faults(similar_page(long_names.similar(f"{DEEP}:0", k=k))) == []


@pytest.mark.parametrize(("k", "unit"), [(1, 0), (9, 3), (25, 0)])
def test_of_synthetic_images(units, k, unit):
    found = units[unit].compare(k=k, steps=1, images=2)
    for style in STYLES.values():
        assert faults(compare_page(found, style)) == []


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
    picture = Picture(Image.new("RGB", (9, 9)), 90, 0, 20, 10)
    page = Page(100, 40, [picture], [Text("one", 5, 20, 9)], [Rectangle(5, 18, 9, 9, "#000000")])
    assert faults(page) == ["a picture leaves the page", "'one' lies over a rectangle"]
