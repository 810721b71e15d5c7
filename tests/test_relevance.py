"""Relevance: its rules against formulas written apart, its pass over an index, and the ranking by it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from importlib import resources

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import patchmine
from patchmine.defaults import Run
from patchmine.errors import PatchmineError, PhotographError
from patchmine.networks.network import Network
from patchmine.networks.taps import survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.photographs.placement import Preprocessing
from patchmine.questions.verify import verify
from patchmine.relevance.classes import outputs
from patchmine.relevance.propagation import Propagator, conserves
from patchmine.relevance.rules import Rules
from patchmine.relevance.table import Relevances
from patchmine.sheets.captions import COLORS
from patchmine.sheets.layouts._overlays import enlarged, heat_of
from patchmine.sheets.layouts.context import context_page
from patchmine.sheets.layouts.grid import grid_page
from patchmine.sheets.layouts.orders import orders_page
from patchmine.store.hdf5 import dataset_digests
from patchmine.system.progress import Silent
from patchmine.units import Box
from tests.support.commands import failed

SMALL = Preprocessing(
    resize=32, crop=(32, 32), interpolation="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)

PLAIN = """
import torch
from torch import nn
from patchmine.photographs.placement import Preprocessing

def plain():
    torch.manual_seed(1)
    conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1, bias=False)
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 5, bias=False)]
    net = nn.Sequential(conv(3, 6), nn.ReLU(inplace=True), nn.MaxPool2d(2), conv(6, 7), nn.ReLU(inplace=True), *pooled)
    return net, Preprocessing(32, (32, 32), "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

def blind():
    net, preprocessing = plain()
    net[7] = nn.Linear(7, 5)
    net[7].weight.data.zero_()
    return net, preprocessing

def biased():
    net, preprocessing = plain()
    net[3] = nn.Conv2d(6, 7, 3, padding=1)
    net[3].bias.data.fill_(3)
    return net, preprocessing

def ending():
    net, preprocessing = plain()
    return nn.Sequential(net, nn.Softmax(1)), preprocessing

def maps():
    net, preprocessing = plain()
    return net[:5], preprocessing
"""

BUILT = ("index", "shapes:48", "--model", "shapes", "--shard-size", 12, "--keep", 10)


class Gated(nn.Module):
    """Each part that a rule is for: a depthwise convolution, squeeze and excite, sums of two shapes, in place too."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.SiLU(inplace=True))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.out = nn.Conv2d(8, 8, 1)
        self.short = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x):
        x = self.stem(x)
        y = self.deep(x)
        y = self.out(y * self.gate(y))
        y += self.short(x)
        return self.head(nn.functional.gelu(y).mean((2, 3)))


class Attending(nn.Module):
    """Tokens with a class token, positions, layer norm and attention, as timm writes a vision transformer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 17, 16))
        self.norm, self.scale = nn.LayerNorm(16), nn.Parameter(torch.full((16,), 0.5))
        self.qkv, self.mix = nn.Linear(16, 48), nn.Linear(16, 16)
        self.begin, self.end, self.head = nn.Identity(), nn.Identity(), nn.Linear(16, 4, bias=False)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.begin(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place)
        q, k, v = self.qkv(self.norm(x)).reshape(len(x), 17, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.end(x + self.mix(mixed) * self.scale)[:, 0])


class Multihead(nn.Module):
    """Attention as torchvision's vision transformers have it, which flattens its tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.begin, self.head = nn.Identity(), nn.Linear(16, 4, bias=False)

    def forward(self, x):
        x = self.begin(self.embed(x).flatten(2).transpose(1, 2))
        y = self.norm(x)
        return self.head((x + self.attention(y, y, y, need_weights=False)[0]).mean(1))


def network_of(module, layers):
    torch.manual_seed(0)
    built = module().eval()
    for parameter in built.parameters():  # biases too, which LRP usually loses relevance to
        if parameter.ndim == 1:
            parameter.data.uniform_(-0.5, 0.5)
    network = Network("small", built, SMALL, "0")
    return network, survey(built, network.blank(), layers)


def pixels(count=4, size=32):
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(2)).to(torch.uint8)


@pytest.mark.parametrize(
    ("module", "layers", "bypassed"),
    [
        (Gated, ["stem", "deep", "short"], {"deep", "short"}),
        (Attending, ["begin", "qkv", "end"], {"qkv"}),
        (Multihead, ["begin"], set()),
    ],
)
def test_relevance_is_conserved_wherever_no_path_leads_around(module, layers, bypassed):
    network, taps = network_of(module, layers)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    propagator = Propagator(network, taps, "plus", torch.device("cpu"))
    assert propagator.bypassed == bypassed
    found = propagator.run(pixels())
    expected = network.module(normalized(pixels(), SMALL)).detach()
    np.testing.assert_allclose(found.start, expected.max(1).values, rtol=1e-4)
    for layer, relevance in found.layers.items():
        if layer in bypassed:
            assert np.abs(relevance.conserved - 1).min() > 1e-3
        else:
            np.testing.assert_allclose(relevance.conserved, 1, atol=2e-4)
        # The head reads the class token alone, which has no position.
        assert (relevance.maximum.max() > 0) == (layer != "end")
        assert (np.abs(relevance.placed) > 0).all() == (layer != "end")
    assert all(torch.equal(before[name], value) for name, value in network.module.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.module.parameters())


def test_the_default_network_conserves_relevance_on_photographs(network, taps):
    photographs = [resources.files("skimage") / "data" / name for name in ("chelsea.png", "coffee.png", "rocket.jpg")]
    shown = torch.stack([prepare(file.read_bytes(), network.preprocessing).tensor for file in photographs])
    found = Propagator(network, taps, "plus", torch.device("cpu")).run(shown)
    for layer, relevance in found.layers.items():
        np.testing.assert_allclose(relevance.conserved, 1, atol=0.1, err_msg=layer)


@pytest.mark.parametrize("signed", [False, True])
def test_a_convolution_shares_by_positive_contributions(signed):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1, stride=2)
    x = torch.randn(2, 3, 6, 6) if signed else torch.rand(2, 3, 6, 6)
    given = torch.randn(2, 4, 3, 3)
    x.requires_grad_()
    with Rules():
        y = conv(x)
    torch.testing.assert_close(y, conv(x.detach()))
    (found,) = torch.autograd.grad(y, x, given)
    # One share after the other, as zennit's ZPlus without a bias.
    padded = nn.functional.pad(x.detach(), (1, 1, 1, 1)).double()
    expected = torch.zeros_like(padded)
    for n, o, row, col in np.ndindex(*given.shape):
        window = (n, slice(None), slice(2 * row, 2 * row + 3), slice(2 * col, 2 * col + 3))
        parts = (padded[window] * conv.weight[o].detach().double()).clamp(min=0)
        expected[window] += parts / parts.sum() * given[n, o, row, col]
    torch.testing.assert_close(found.double(), expected[:, :, 1:-1, 1:-1], rtol=1e-3, atol=1e-5)


def test_a_window_without_a_contribution_gives_its_relevance_to_the_inputs():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    conv.weight.data.fill_(-1)
    conv.bias.data.fill_(2)
    x = torch.zeros(1, 1, 5, 5).requires_grad_()
    with Rules():
        y = conv(x)
    given = torch.zeros_like(y)
    given[0, 0, 2, 2] = 3
    (found,) = torch.autograd.grad(y, x, given)
    assert found.sum().item() == pytest.approx(3, rel=1e-4)
    torch.testing.assert_close(found[0, 0, 1:4, 1:4], torch.full((3, 3), 1 / 3), rtol=1e-4, atol=0)


def test_a_pixel_of_many_inputs_keeps_its_relevance_where_contributions_cancel():
    """All inputs are 0, nearly all contributions are negative, or all of them are."""
    torch.manual_seed(0)
    conv = nn.Conv2d(48, 8, 1)
    conv.bias.data.fill_(100.0)
    x = torch.randn(4, 48, 2, 2)
    x[1], against = 0, -conv.weight.data[:1].sign()
    x[2:] = against * x[2:].abs()
    x[2, :2] *= -1
    x.requires_grad_()
    with Rules():
        y = conv(x)
    torch.testing.assert_close(y, conv(x.detach()))
    for output in range(8):
        given = torch.zeros_like(y)
        given[:, output] = torch.rand(4, 2, 2)
        (found,) = torch.autograd.grad(y, x, given, retain_graph=True)
        arrived, sent = found.sum((1, 2, 3)), given.sum((1, 2, 3))
        torch.testing.assert_close(arrived, sent, rtol=1e-3, atol=0)


def test_a_cancelling_sum_shares_by_magnitude():
    a, b = torch.tensor([3.0, 1.0]).requires_grad_(), torch.tensor([-2.999, 1.0]).requires_grad_()
    with Rules():
        y = a.relu() + b
    shares = torch.autograd.grad(y, (a, b), torch.tensor([6.0, 6.0]))
    torch.testing.assert_close(shares[0], torch.tensor([6 * 3 / 5.999, 3.0]))
    torch.testing.assert_close(shares[0] + shares[1], torch.tensor([6.0, 6.0]))


@pytest.fixture
def plain(tmp_path):
    file = tmp_path / "nets.py"
    file.write_text(PLAIN)
    return f"{file}:plain"


def test_without_biases_it_is_gradient_times_activation(cli, plain, photographs):
    """The oracle, through the command and the index: LRP-0 of a bias-free ReLU network is gradient times input."""
    words = ["index", photographs, "-o", "i", "--model", plain, "--layers", "3", "--shard-size", 10, "--relevance"]
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    index = patchmine.open_index("i")
    index.use(plain)
    net = index.network()
    with h5py.File("i/relevance.h5") as h5:
        kept = {name: h5[f"layers/3/{name}"][:] for name in ("sum", "max", "position", "sum_total", "conserved")}
    for image, record in enumerate(index.store.records()):
        x = normalized(prepare(index.photograph(image), index.preprocessing).tensor[None], index.preprocessing)
        a = net.module[:4](x).detach().requires_grad_()
        logits = net.module[4:](a.clone())
        logits.max().backward()
        r = (a * a.grad)[0].detach().flatten(1).double().numpy()
        assert record.image == image
        np.testing.assert_allclose(kept["sum"][image], r.sum(1), atol=1e-5)
        np.testing.assert_allclose(kept["max"][image], r.max(1), atol=1e-5)
        np.testing.assert_allclose(r[np.arange(7), kept["position"][image]], r.max(1), atol=1e-5)
        np.testing.assert_allclose(kept["sum_total"][image], np.abs(r.sum(1)).sum(), atol=1e-5)
    np.testing.assert_allclose(kept["conserved"], 1, atol=1e-5)
    top = json.loads(cli("top", "-i", "i", "--unit", "3:4", "--by", "relevance", "-k", 24, "--json").stdout)
    column = kept["sum"][:, 4]
    assert (top["by"], top["score"]) == ("relevance", "sum")
    assert [patch["image_id"] for patch in top["patches"]] == np.argsort(-column, kind="stable").tolist()
    np.testing.assert_array_equal([patch["value"] for patch in top["patches"]], np.sort(column)[::-1])
    place = top["patches"][0]["position"]
    assert place["y"] * 16 + place["x"] == kept["position"][column.argmax(), 4]


@pytest.fixture(scope="module")
def small(photographs, tmp_path_factory):
    """24 photographs through a small network, in three shards."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "nets.py").write_text(PLAIN)
    patchmine.build_index(
        photographs, folder / "small.patchmine", model=f"{folder}/nets.py:plain", layers=("3",), shard_size=10
    )
    return folder / "small.patchmine"


def copied(directory, target):
    shutil.copytree(directory, target)
    index = patchmine.open_index(target)
    index.use(index.job.model)
    return index


@pytest.fixture(scope="module")
def finished(shapes_index_dir, tmp_path_factory):
    """The shapes, with relevance added to the finished index by the same command."""
    directory = tmp_path_factory.mktemp("relevance") / "shapes.patchmine"
    shutil.copytree(shapes_index_dir, directory)
    patchmine.open_index(directory).relevance(model="shapes")
    return directory


def test_relevance_is_added_without_a_second_pass(cli, finished, shapes_index_dir, tmp_path):
    shutil.copytree(shapes_index_dir, tmp_path / "s")
    done = cli(*BUILT, "-o", "s", "--relevance", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"]
    assert "relevance to the predicted class" in done.stderr
    before, after = shapes_index_dir / "activations.h5", tmp_path / "s/activations.h5"
    assert before.read_bytes() == after.read_bytes()
    assert dataset_digests(tmp_path / "s/relevance.h5") == dataset_digests(finished / "relevance.h5")
    assert not (tmp_path / "s/relevance").exists()


def test_an_interrupted_pass_resumes_to_the_same_bytes(small, tmp_path, monkeypatch):
    whole, index = copied(small, tmp_path / "whole"), copied(small, tmp_path / "s")
    whole.relevance(rule="plus")
    directory = index.directory
    read, stops = [], [True]

    def photograph(self, image, _read=type(index).photograph):
        read.append(image)
        if image == 20 and stops and stops.pop():
            raise KeyboardInterrupt
        return _read(self, image)

    monkeypatch.setattr(type(index), "photograph", photograph)
    with pytest.raises(KeyboardInterrupt):
        index.relevance(rule="plus", run=Run(workers=1))
    assert sorted(file.name for file in (directory / "relevance").iterdir()) == ["000000.shard", "000001.shard"]
    assert not (directory / "relevance.h5").exists()
    (directory / "relevance/000001.shard").write_bytes(b"torn")
    (directory / ".relevance.h5.x.tmp").write_bytes(b"half")
    read.clear()
    index.relevance(rule="plus", run=Run(workers=2))
    assert sorted(set(read)) == list(range(8, 24))
    assert dataset_digests(directory / "relevance.h5") == dataset_digests(whole.directory / "relevance.h5")
    assert not (directory / ".relevance.h5.x.tmp").exists()
    read.clear()
    assert index.relevance(rule="plus").found
    assert read == []
    assert not index.relevance(rule="gradient").found


def test_relevance_that_no_layer_conserves_does_not_replace_a_useful_one(cli, plain, tmp_path):
    words = ("index", "shapes:12", "-o", "i", "--model", plain.replace("plain", "biased"), "--layers", "0")
    assert cli(*words, "--relevance").returncode == 0
    before = (tmp_path / "i/relevance.h5").read_bytes()
    done = cli(*words, "--relevance", "--rule", "gradient")
    assert done.returncode == 1
    assert "no layer of i conserves relevance (0: median" in done.stderr
    assert done.stderr.strip().endswith("use --rule plus")
    assert (tmp_path / "i/relevance.h5").read_bytes() == before
    assert not (tmp_path / "i/relevance").exists()


def test_the_command_that_adds_relevance_runs_as_it_is_printed(cli, shapes_index_dir, tmp_path):
    shutil.copytree(shapes_index_dir, tmp_path / "s")
    top = ("top", "-i", "s", "--unit", "thing:5", "--by", "relevance")
    command = cli(*top).stderr.partition("again: patchmine ")[2].partition(", with the ")[0]
    assert cli(*shlex.split(command)).returncode == 0
    assert cli(*top).returncode == 0


def test_sheets_show_both_orders_and_how_much_they_share(finished, tmp_path, cli):
    unit = patchmine.open_index(finished).unit("thing:5")
    activation, relevance = unit.top(9), unit.top(9, by="relevance")
    positive = relevance[: sum(patch.value > 0 for patch in relevance)]
    page = orders_page([(unit, activation, relevance)], "the predicted class")
    shared = len({p.image for p in activation} & {p.image for p in positive})
    assert 0 < shared < 9
    texts = [text.text for text in page.texts]
    assert f"by relevance · {shared} of {len(positive)} photographs in common" in texts
    assert len(page.pictures) == 9 + len(positive)
    assert page.frames == {"in both orders": COLORS[0]}
    assert len([rectangle for rectangle in page.rectangles if rectangle.width > 20]) == 2 * shared
    pages = [grid_page(unit, patches) for patches in (activation, relevance)]
    plain, ranked = (" ".join(text.text for text in page.texts) for page in pages)
    assert "by relevance (sum) to the predicted class" in ranked
    assert "relevance" not in plain
    sheet = ("sheet", "-i", finished, "--unit", "thing:5", "--layout", "orders", "--provenance", "-o", "o.png")
    assert cli(*sheet).returncode == 0
    assert "top by relevance" in (tmp_path / "o.csv").read_text()
    assert "by the sum of its relevance" in (tmp_path / "o.txt").read_text()


def test_both_orders_stay_level_where_one_of_them_has_tight_crops(finished, tmp_path):
    index = copied(finished, tmp_path / "s")
    unit = index.unit("thing:5")
    index.tight([unit], 2)
    activation, relevance = unit.top(6, crop="auto"), unit.top(6, crop="auto", by="relevance")
    assert activation[0].proof_text and not all(patch.tightened for patch in activation)
    page = orders_page([(unit, activation, relevance.chosen([3, 4, 5]))], "the predicted class")
    left, right = page.pictures[:6], page.pictures[6:]
    assert {tile.y for tile in right} <= {tile.y for tile in left}
    texts = " ".join(text.text for text in page.texts)
    assert "Clear: " in texts and "Hatched: " in texts


def test_attribution_lies_over_the_crop_alone(shapes_index):
    shapes_index.use("shapes")
    unit = shapes_index.unit("thing:3")
    patches = unit.top(2, crop="rf")
    projector = shapes_index.projector("gradxinput")
    plain, drawn = context_page([(unit, patches)]), context_page([(unit, patches)], projector=projector)
    for patch, before, after in zip(patches, plain.pictures, drawn.pictures, strict=True):
        view = patch.context()
        one, other = (np.asarray(picture.image.image, np.int16) for picture in (before, after))
        changed = np.abs(one - other).max(2) > 0
        lit = patch.placement.to_source(view.lit)
        outside = changed.copy()
        shift = patch.placement.to_source(view.shown.intersect(patch.placement.picture))
        reach = 4  # the edge of the region lies between pixels of the photograph
        rows = slice(max(0, lit.top - shift.top - reach), lit.bottom - shift.top + reach)
        columns = slice(max(0, lit.left - shift.left - reach), lit.right - shift.left + reach)
        assert changed[rows, columns].any()
        outside[rows, columns] = False
        assert not outside.any()
    assert any("what raises the activation" in text.text for text in drawn.texts)


def test_a_small_crop_is_drawn_again_enlarged_in_the_corner_that_is_farthest_from_it(shapes_index):
    shapes_index.use("shapes")
    unit = shapes_index.unit("colour:0")
    patches = unit.top(3, crop="rf")
    page = context_page([(unit, patches)], projector=shapes_index.projector("gradxinput"))
    assert len(page.pictures) == 6
    for patch, tile, inset in zip(patches, page.pictures[::2], page.pictures[1::2], strict=True):
        near, crop = enlarged(patch.context()), patch.context().lit
        assert near.lit == crop and near.window.contains(crop) and near.window.width == 2 * crop.width
        assert inset.frame is not None and inset.width == pytest.approx(0.45 * tile.width)
        for low, high, far in (
            (crop.left, crop.right, inset.x > tile.x),
            (crop.top, crop.bottom, inset.y > tile.y),
        ):
            assert far == (low + high < 224)
    assert any("In a corner: a small crop again, enlarged." in text.text for text in page.texts)


def test_heat_is_strongest_where_the_attribution_is():
    values = np.zeros((3, 40, 40), np.float32)
    values[1, 20, 12], values[0, 5, 5], values[2, 30, 30] = 2, 9, -3
    heat = np.asarray(heat_of(values, Box(8, 8, 36, 36), "ig"))
    assert np.unravel_index(heat.argmax(), heat.shape) == (20, 12)
    assert heat.max() == 255
    assert heat[5, 5] == heat[30, 30] == 0
    assert np.asarray(heat_of(values, Box(8, 8, 36, 36), "guided"))[30, 30] == 255


def test_only_context_sheets_show_attribution(cli, shapes_index_dir):
    done = cli("sheet", "-i", shapes_index_dir, "--unit", "thing:3", "--attribution", "ig", "-o", "s.png")
    assert "--layout strip cannot show --attribution: use --layout context" in done.stderr
    done = cli("sheet", "-i", shapes_index_dir, "--unit", "thing:3", "--layout", "orders", "-o", "s.png")
    assert "has no relevance; add it" in done.stderr


def test_info_tells_how_well_each_layer_conserves(cli, finished):
    document = json.loads(cli("info", "-i", finished, "--json").stdout)
    layers = {layer["layer"]: layer for layer in document["relevance"]}
    assert list(layers) == ["contrast", "colour", "template", "shape", "thing"]
    for name, layer in layers.items():
        assert layer["bypassed"] == (name in ("template", "shape"))
        assert layer["kept"]
        assert (abs(layer["conservation"]["median"] - 1) < 1e-3) != layer["bypassed"]
    assert "thing: median 1.0000, worst photograph 1.0000" in cli("info", "-i", finished).stdout


def test_every_variant_is_a_sort(cli, finished):
    index = patchmine.open_index(finished)
    with h5py.File(finished / "relevance.h5") as h5:
        group = h5["layers/thing"]
        tables = {name: group[name][:] for name in ("sum", "max")}
    total = {name: np.abs(values).sum(1) for name, values in tables.items()}
    for score in ("sum", "max", "sum-normed", "max-normed"):
        what, _, normed = score.partition("-")
        column = tables[what][:, 5] / (total[what] if normed else 1)
        found = index.unit("thing:5").top(48, by="relevance", score=score)
        np.testing.assert_allclose([patch.value for patch in found], np.sort(column)[::-1], rtol=1e-5)
    bottom = index.unit("thing:5").top(3, "bottom", by="relevance")
    assert [patch.value for patch in bottom] == np.sort(tables["sum"][:, 5])[:3].tolist()
    of_class = index.unit("thing:5").top(48, by="relevance", of_class="red cross")
    assert {patch.class_name for patch in of_class} == {"red cross"}
    assert json.loads(cli("top", "-i", finished, "--unit", "thing:5", "--json").stdout)["by"] == "activation"


def test_ranking_by_relevance_needs_no_torch(finished):
    program = (
        "import sys; from patchmine.__main__ import main\n"
        f"sys.argv = ['patchmine', 'top', '-i', {str(finished)!r}, '--unit', 'thing:5', '--by', 'relevance']\n"
        "try: main()\nexcept SystemExit as done: assert not done.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("top", "--unit", "thing:5", "--by", "relevance"),
            "has no relevance; add it, without computing the activations",
        ),
        (("top", "--unit", "thing:5", "--by", "weight"), "unknown --by 'weight'; known: activation, relevance"),
        (("top", "--unit", "thing:5", "--score", "max"), "--score max ranks by relevance: add --by relevance"),
        (("top", "--unit", "thing:5", "--by", "relevance", "--score", "mean"), "unknown --score 'mean'"),
    ],
)
def test_an_index_without_relevance_says_what_adds_it(cli, shapes_index_dir, words, said):
    done = cli(*words, "-i", shapes_index_dir)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("function", ["plain", "maps"])
def test_an_index_of_an_own_network_says_whether_relevance_can_be_added(cli, plain, function):
    model = plain.replace("plain", function)
    assert cli("index", "shapes:12", "-o", "i", "--model", model, "--layers", "3").returncode == 0
    top = ("top", "-i", "i", "--unit", "3:1", "--by", "relevance")
    assert "needs a network that returns one number for each class; if yours does, add it" in cli(*top).stderr
    line = cli(*top, "--model", model).stderr
    if function == "plain":
        assert "i has no relevance; add it, without computing the activations again: patchmine index" in line
    else:
        assert "i has no relevance, and none can be computed" in line
        assert "maps returns shape (1, 7, 16, 16), but relevance needs one number for each class" in line
        assert "patchmine index" not in line


def test_facets_are_of_activations(cli, finished):
    done = cli("top", "-i", finished, "--unit", "thing:5", "--by", "relevance", "--pick", "facets")
    assert "--pick facets groups the patches with the highest activations" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--class-of", "label"), "--class-of label chooses the class of relevance: add --relevance"),
        (("--rule", "plus"), "--rule plus is the way back of relevance: add --relevance"),
        (("--relevance", "--class-of", "nearest"), "unknown --class-of 'nearest'; known: label, predicted"),
        (("--relevance", "--rule", "epsilon"), "unknown --rule 'epsilon'; known: auto, gradient, plus"),
        (("--relevance", "--class-of", "label"), "does not name the classes of its outputs; give --classes"),
        (("--relevance", "--model", "ending", "--layers", "0.3"), "let it return the numbers before the softmax"),
        (("--relevance", "--model", "maps"), "does not return one number for each class"),
    ],
)
def test_what_has_no_relevance_is_refused(cli, plain, words, said):
    words = [plain.replace("plain", word) if word in ("ending", "maps") else word for word in words]
    model = () if "--model" in words else ("--model", plain)
    done = cli("index", "shapes:12", "-o", "i", *model, *words)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]


def test_a_label_must_be_a_class_of_the_network(cli, photographs, tmp_path):
    done = cli("index", photographs, "-o", "i", "--relevance", "--class-of", "label", "--limit", 24)
    assert done.returncode == 1
    assert "efficientnet_lite0 has no class 'other' of 'other/02.jpg'" in done.stderr
    assert not (tmp_path / "i").exists()
    (tmp_path / "flat").mkdir()
    shutil.copy(photographs / "other/02.jpg", tmp_path / "flat/a.jpg")
    done = cli("index", "flat", "-o", "i", "--relevance", "--class-of", "label")
    assert "'a.jpg' has no class; give --labels FILE" in done.stderr


def test_a_file_names_the_outputs_of_a_network(cli, plain, photographs, tmp_path):
    kinds = sorted(folder.name for folder in photographs.iterdir() if folder.is_dir())
    names = ["nothing", *reversed(kinds)][:5]
    names += [f"class {number}" for number in range(5 - len(names))]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    words = ("index", photographs, "-o", "i", "--model", plain, "--layers", "3", "--relevance", "--class-of", "label")
    assert "give --classes FILE, a text with the name of each output on a line" in failed(cli(*words))
    done = cli(*words, "--classes", "names.txt")
    assert done.returncode == 0, done.stderr
    with h5py.File("i/relevance.h5") as h5:
        found = h5["images/output"][:]
    records = patchmine.open_index("i").store.records()
    assert [names[output] for output in found] == [record.class_name for record in records]
    (tmp_path / "other.txt").write_text("\n".join(names[1:] + names[:1]))
    assert cli(*words, "--classes", "other.txt").returncode == 0  # computed again, to other outputs
    with h5py.File("i/relevance.h5") as h5:
        assert not (h5["images/output"][:] == found).any()
    for text, said in (("a\nb\nA\n", "names 'a' twice"), ("\n".join(kinds), "has 5 outputs"), (b"\xff", "not UTF-8")):
        (tmp_path / "bad.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        assert said in cli(*words[:3], "j", *words[4:], "--classes", "bad.txt").stderr.splitlines()[-1]
    assert "file 'none.txt' not found" in failed(cli(*words, "--classes", "none.txt"))
    assert "add --relevance --class-of label" in failed(cli("index", photographs, "--classes", "names.txt"))


def test_labels_begin_at_the_output_of_the_class(network):
    asked = [("a", "n01443537"), ("b", "goldfish"), ("c", "Tench")]
    assert outputs(network, asked) == [1, 1, 0]
    with pytest.raises(PatchmineError, match="no class 'crane'"):  # a bird and a machine
        outputs(network, [("a", "crane")])


def test_a_layer_that_does_not_conserve_is_refused_with_its_figures(cli, plain):
    blind = plain.replace("plain", "blind")
    done = cli("index", "shapes:12", "-o", "i", "--model", blind, "--layers", "[03]", "--relevance")
    assert done.returncode == 1
    assert "no layer of i conserves relevance (0: median 0.0000, worst photograph 0.0000;" in done.stderr
    document = json.loads(cli("info", "-i", "i", "--json").stdout)
    assert [layer["kept"] for layer in document["relevance"]] == [False, False]
    done = cli("top", "-i", "i", "--unit", "3:0", "--by", "relevance")
    assert "i has no relevance of 3: median 0.0000" in done.stderr
    assert "may differ from 1 by at most 0.1" in done.stderr
    assert cli("top", "-i", "i", "--unit", "3:0").returncode == 0


def test_relevance_of_another_index_is_refused_by_name(finished, small, tmp_path, cli):
    other = copied(small, tmp_path / "other")
    shutil.copy(finished / "relevance.h5", other.directory)
    with pytest.raises(
        PatchmineError, match=r"relevance\.h5 is of other photographs than the index; compute it again: p"
    ):
        other.unit("3:5").top(by="relevance")
    assert other.unit("3:5").top(3)
    document = json.loads(cli("info", "-i", other.directory, "--json").stdout)
    assert document["relevance"] == []
    assert "relevance.h5 is of other photographs" in cli("info", "-i", other.directory).stdout


@pytest.mark.parametrize("damage", ["torn", "flipped"])
def test_a_damaged_relevance_is_found_and_mended(finished, tmp_path, damage, cli):
    shutil.copytree(finished, tmp_path / "t")
    file = tmp_path / "t/relevance.h5"
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:3000])
        assert "relevance.h5 is damaged" in failed(cli("top", "-i", "t", "--unit", "thing:5", "--by", "relevance"))
    else:
        with h5py.File(file, "r+") as h5:
            h5["layers/thing/sum"][3, 5] += 1
    assert cli("top", "-i", "t", "--unit", "thing:5").returncode == 0
    assert cli("info", "-i", "t").returncode == 0
    checked = cli("verify", "-i", "t", "--model", "shapes", "--json")
    assert checked.returncode == 1
    wrong = {check["check"]: check["wrong"] for check in json.loads(checked.stdout)["checks"] if not check["ok"]}
    assert list(wrong) == ["relevance"]
    assert "relevance.h5" in wrong["relevance"][0]
    assert "--relevance" in wrong["relevance"][0]
    assert cli(*BUILT, "-o", "t", "--relevance").returncode == 0
    assert dataset_digests(file) == dataset_digests(finished / "relevance.h5")


def test_verify_computes_relevance_again(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "t")
    index = patchmine.open_index(tmp_path / "t")
    index.use("shapes")
    with h5py.File(tmp_path / "t/relevance.h5", "r+") as h5:
        h5["layers/thing/sum"][3, 5] += 1
    monkeypatch.setattr(Relevances, "changed", lambda _: False)  # whoever edits the file can edit its checksum too
    findings = verify(index, everything=True, run=Run(), progress=Silent())
    (wrong,) = next(finding.wrong for finding in findings if finding.check == "relevance")
    assert "differs from that in the index" in wrong


def test_merging_and_extending_keep_relevance(photographs, plain, tmp_path, cli, monkeypatch):
    files = sorted(file for file in photographs.rglob("*") if file.is_file())
    for number, file in enumerate(files):
        half = tmp_path / ("a" if number < 13 else "b") / file.relative_to(photographs)
        half.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, half)
    words = ("--model", plain, "--layers", "3", "--shard-size", 10, "--rule", "plus", "--relevance")
    for source in ("a", "b", photographs):
        assert cli("index", source, "-o", f"{getattr(source, 'name', source)}.patchmine", *words).returncode == 0
    whole = tmp_path / f"{photographs.name}.patchmine"
    done = cli("merge", "a.patchmine", "b.patchmine", "-o", "m.patchmine", "--model", plain)
    assert done.returncode == 0, done.stderr
    same_relevance(whole, tmp_path / "m.patchmine")
    top = ("top", "--unit", "3:4", "--by", "relevance", "--json")
    assert [patch["image"] for patch in json.loads(cli(*top, "-i", "m.patchmine").stdout)["patches"]] == [
        patch["image"] for patch in json.loads(cli(*top, "-i", whole).stdout)["patches"]
    ]
    # The rest of b comes to a; only its photographs are asked.
    for file in (tmp_path / "b").rglob("*"):
        if file.is_file():
            (tmp_path / "a" / file.relative_to(tmp_path / "b")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tmp_path / "a" / file.relative_to(tmp_path / "b"))
    asked = []

    def counted(self, pixels, *rest, _run=Propagator.run):
        asked.append(len(pixels))
        return _run(self, pixels, *rest)

    monkeypatch.setattr(Propagator, "run", counted)
    build = ("index", "a", "-o", "a.patchmine", *words[:-3], "--extend")
    assert cli(*build).returncode == 0
    assert sum(asked) == len(files) - 13
    same_relevance(whole, tmp_path / "a.patchmine")


def same_relevance(one, other):
    """To rounding: other batches."""
    with h5py.File(one / "relevance.h5") as a, h5py.File(other / "relevance.h5") as b:
        names = []
        a.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(names) == 10
        for name in names:
            if name.endswith("digest"):
                np.testing.assert_array_equal(a[name][:], b[name][:])
            elif not name.endswith("position"):
                np.testing.assert_allclose(a[name][:], b[name][:], rtol=1e-4, atol=1e-6)


def test_a_merge_without_all_the_relevance_says_so(small, finished, tmp_path, cli, photographs, plain):
    for half in ("a", "b"):
        (tmp_path / half).mkdir()
    for number, file in enumerate(sorted((photographs / "other").iterdir())):
        shutil.copy(file, tmp_path / ("a" if number % 2 else "b") / file.name)
    for half in ("a", "b"):
        words = ("--model", plain, "--layers", "3", *(("--relevance",) if half == "a" else ()))
        assert cli("index", half, "-o", f"{half}.patchmine", *words).returncode == 0
    done = cli("merge", "a.patchmine", "b.patchmine", "-o", "m.patchmine", "--model", plain)
    assert done.returncode == 0, done.stderr
    assert "b.patchmine has none of this network that is whole; add it with index --relevance" in done.stderr
    assert not (tmp_path / "m.patchmine/relevance.h5").exists()


def test_a_photograph_that_is_gone_ranks_nowhere(small, tmp_path, monkeypatch):
    index = copied(small, tmp_path / "s")

    def photograph(self, image, _read=type(index).photograph):
        if image == 7:
            raise PhotographError("is gone")
        return _read(self, image)

    monkeypatch.setattr(type(index), "photograph", photograph)
    index.relevance()
    ranked = index.unit("3:5").top(24, by="relevance")
    assert {patch.image_id for patch in ranked} == set(range(24)) - {7}


def test_only_a_homogeneous_network_conserves_by_itself():
    torch.manual_seed(0)
    blank = torch.zeros(1, 3, 8, 8)
    plain = [nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2, bias=False)]
    assert conserves(nn.Sequential(*plain), blank)
    assert not conserves(nn.Sequential(plain[0], nn.GELU(), *plain[2:]), blank)
    assert not conserves(nn.Sequential(nn.Conv2d(3, 4, 3), *plain[1:]), blank)


def test_no_relevance_passes_through_directions(cli, tmp_path):
    np.save(tmp_path / "probe.npy", np.eye(24, dtype=np.float32)[:2])
    directory, asked = tmp_path / "x.patchmine", ("--directions", f"thing@probe={tmp_path / 'probe.npy'}")
    words = ("index", "shapes:8", "-o", directory, "--model", "shapes", "--relevance", *asked)
    assert cli(*words).returncode == 0
    assert cli("top", "-i", directory, "--unit", "thing:0", "--by", "relevance").returncode == 0
    assert "no relevance of thing@probe" in failed(
        cli("top", "-i", directory, "--unit", "thing@probe:0", "--by", "relevance")
    )
    alone = cli(*words, "--layers", "thing@probe", "--fresh")
    assert alone.returncode == 1
    assert "the layer that they are read from" in alone.stderr


def test_an_output_that_its_bias_alone_makes_positive_keeps_relevance_bounded():
    """Inputs of both signs, none of which contributes: their sum of positive contributions is nearly nothing."""
    torch.manual_seed(0)
    layer = nn.Conv2d(40, 2, 1)
    x = torch.randn(3, 40, 4, 4)
    layer.weight.data[0] = -x[0, :, 0, 0].sign().mul(torch.rand(40))[:, None, None]  # opposed to one position
    layer.bias.data[:] = 100
    x.requires_grad_()
    with Rules():
        output = layer(x)
    (relevance,) = torch.autograd.grad(output, x, output.detach())
    wide = x.detach().double().movedim(1, -1)[..., None, :] * layer.weight.detach().double()[:, :, 0, 0]
    share = wide.clamp(min=0) / wide.clamp(min=0).sum(-1, keepdim=True).clamp(min=1e-30)
    expected = (share * output.detach().double().movedim(1, -1)[..., None]).sum(-2).movedim(-1, 1)
    assert wide[0, 0, 0, 0].max() <= 0
    torch.testing.assert_close(relevance.sum(1), output.detach().sum(1), rtol=1e-4, atol=0)
    expected, relevance = (part.flatten(2)[..., 1:] for part in (expected, relevance))  # elsewhere, the rule itself
    torch.testing.assert_close(relevance.double(), expected, rtol=1e-3, atol=1e-2)
