"""A value that is not finite: it is counted, never ranked, in words, and costs no other unit anything."""

import json
import warnings

import numpy as np
import pytest
import torch

import patchmine
from patchmine import models
from patchmine.errors import UnitError
from patchmine.networks.folding import finite_weights, folded
from patchmine.networks.taps import maps, survey
from patchmine.questions.facets import facets
from patchmine.reading.statistics import left_out
from patchmine.store.patches_faiss import normalized
from patchmine.study.why import study

# Unit 1 is NaN everywhere, unit 2 infinite; unit 3 overflows on some photographs, and all of layer `last` is NaN.
NETWORK = """
import torch
from torch import nn
from patchmine import Preprocessing

def build(sound=False):
    torch.manual_seed(0)
    net = nn.Sequential()
    net.first, net.norm, net.act = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()
    net.mixed, net.last = nn.Conv2d(4, 5, 3, 1, 1), nn.Conv2d(5, 3, 1)
    if not sound:
        with torch.no_grad():
            net.mixed.weight[1], net.mixed.weight[2] = float("nan"), float("inf")
            net.mixed.weight[3], net.mixed.bias[3] = 3.7e37, 0
    half = (0.5, 0.5, 0.5)
    return net, Preprocessing(32, (32, 32), "bilinear", half, half)

def sound():
    return build(True)
"""


@pytest.fixture(autouse=True)
def no_warning_reaches_the_user():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    file = tmp_path_factory.mktemp("net") / "net.py"
    file.write_text(NETWORK)
    return f"{file}:build"


@pytest.fixture(scope="module")
def both(tmp_path_factory, photographs, spec):
    """Indexes with the network as it diverged, and as it was before."""
    folder = tmp_path_factory.mktemp("indexes")
    for name, model in (("bad", spec), ("good", spec.replace(":build", ":sound"))):
        layers = ("mixed", "last") if name == "bad" else ("mixed",)
        patchmine.build_index(photographs, folder / name, model=model, layers=layers, limit=12)
    return folder


def test_the_other_units_of_the_layer_are_as_without_it(both):
    bad, good = (patchmine.open_index(both / name) for name in ("bad", "good"))
    for channel in (0, 4):
        tops = [index.unit(f"mixed:{channel}").top(5) for index in (bad, good)]
        assert [p.image for p in tops[0]] == [p.image for p in tops[1]]
        assert left_out(bad.store, bad.name, bad.unit(f"mixed:{channel}").unit) is None
    assert bad.field("mixed").effective is not None
    entries = {layer["layer"]: layer["non_finite"] for layer in bad.manifest["layers"]}
    assert entries["last"] == 3 * 12
    assert 24 < entries["mixed"] < 36


def test_it_is_counted_in_words_and_never_ranked(both, cli):
    for unit in ("mixed:1", "last:0"):
        done = cli("top", "-i", both / "bad", "--unit", unit)
        assert f"{unit} has no patch in {both / 'bad'}, being finite on no photograph" in done.stdout
        assert json.loads(cli("top", "-i", both / "bad", "--unit", unit, "--json").stdout)["patches"] == []
    index = patchmine.open_index(both / "bad")
    values = index.store.column("mixed", 3)[0]
    bad = int((~np.isfinite(values)).sum())
    assert 0 < bad < 12
    assert f"not finite on {bad} of 12 photographs" in cli("top", "-i", both / "bad", "--unit", "mixed:3").stdout
    assert all(np.isfinite(patch.value) for patch in index.unit("mixed:3").top(12))
    refused = cli("similar", "-i", both / "bad", "--unit", "mixed:1")
    assert refused.returncode == 1
    assert "being finite on no photograph: try another unit" in refused.stderr


def test_units_mark_it_and_json_holds_no_nan(both, cli):
    units = json.loads(cli("units", "-i", both / "bad", "--json").stdout, parse_constant=pytest.fail)["units"]
    marked = [f"{unit['layer']}:{unit['channel']}" for unit in units if "non-finite" in unit["marks"]]
    assert marked == ["mixed:1", "mixed:2", "last:0", "last:1", "last:2"]
    for unit in units:
        if "non-finite" in unit["marks"]:
            assert (unit["max"], unit["mean"], unit["positive"], unit["marks"]) == (None, None, None, ["non-finite"])
    for sort in ("max", "mean", "positive"):
        assert cli("units", "-i", both / "bad", "--sort", sort).returncode == 0


def test_neighbors_and_facets_leave_the_channel_out(both):
    index = patchmine.open_index(both / "bad")
    found = index.similar(unit="mixed:0", k=3)
    assert len(found.patches) == 3
    assert found.similarities[0] == pytest.approx(1, abs=1e-3)
    counts = facets(index.store, "mixed")
    assert counts[0] >= 1
    assert counts[1] == 0
    assert facets(index.store, "last").tolist() == [0, 0, 0]  # a layer without any vector


def test_a_vector_beyond_float16_keeps_its_direction():
    assert normalized(np.array([[3e30, 0, np.nan]], np.float32)).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("command", ["synth", "project", "tight"])
def test_gradients_and_crops_of_the_others_are_finite(command, both, spec):
    index = patchmine.open_index(both / "bad")
    index.use(spec)
    unit = index.unit("mixed:0")
    if command == "synth":
        (image,) = unit.synthesize(steps=2, images=1)
        assert image.stopped is None
        assert np.isfinite(image.value)
    elif command == "tight":
        (patch,) = unit.top(1, crop="tight")
        assert patch.tight is not None
    else:
        (patch,) = unit.top(1)
        found = index.projector("gradxinput")(patch, patch.input_box)
        assert np.isfinite(found).all()
        assert np.abs(found).max() > 0


def test_verify_and_fires_pass_over_it(both, spec, cli, photographs):
    for words in (("verify",), ("verify", "--crops", "--json"), ("fires", next(photographs.rglob("*.jpg")), "--json")):
        done = cli(*words, "-i", both / "bad", "--model", spec)
        assert done.returncode == 0, done.stderr
        if "--json" in words:
            json.loads(done.stdout, parse_constant=pytest.fail)


def test_why_refuses_it_in_words(both, spec, tmp_path):
    index = patchmine.open_index(both / "bad")
    with pytest.raises(UnitError, match="has no patch in .*bad, being finite on no photograph; choose another unit"):
        study(index, index.unit("mixed:1").unit, models.load(spec), tmp_path, 1)


def test_folding_compares_what_is_finite(spec):
    module = models.load(spec).module
    taps = survey(module, torch.zeros(1, 3, 32, 32), ["mixed", "last"])
    found = folded(module, taps, torch.zeros(1, 3, 32, 32))
    assert isinstance(module.norm, torch.nn.BatchNorm2d)
    assert not isinstance(found.norm, torch.nn.BatchNorm2d)
    picture = torch.randn(2, 3, 32, 32)
    outputs = [maps(net, picture, taps)["mixed"] for net in (module, found, finite_weights(module))]
    for other in outputs[1:]:
        torch.testing.assert_close(other[:, [0, 4]], outputs[0][:, [0, 4]])
    assert outputs[2].isfinite().all() or outputs[0][:, 3].isinf().any()
