"""Projections: equal to what a transposed network gives by hand, at the place of the patch, and nothing left behind."""

import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from patchmine.defaults import LAYOUTS, PROJECTIONS
from patchmine.errors import PhotographError, RequestError
from patchmine.networks.taps import survey
from patchmine.photographs.crops import piece
from patchmine.photographs.placement import Placement, View
from patchmine.questions.project import MOST_STEPS, Projector, _step
from patchmine.questions.rectifiers import Until
from patchmine.sheets.layouts.pairs import pairs_page, projection_tile
from patchmine.units import Box
from tests.conftest import jpeg
from tests.support.commands import failed
from tests.support.sheets import HATCH, pixels

attr = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:.torch.jit.trace")

TARGET = (2, 3, 4)


class Net(nn.Module):
    """Three convolutions without padding, and a way to rectify between them."""

    def __init__(self, first, second):
        super().__init__()
        torch.manual_seed(5)
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, stride=2), nn.Conv2d(8, 4, 3)
        self.first, self.second = first, second

    def forward(self, x):
        return self.c(self.second(self.b(self.first(self.a(x)))))


def in_place_for_its_effect(x):
    F.relu_(x)
    return x


SHARED = nn.ReLU(inplace=True)
WAYS = {
    "modules": (nn.ReLU(), nn.ReLU()),
    "one module twice, in place": (SHARED, SHARED),
    "ReLU6": (nn.ReLU6(), nn.ReLU6(inplace=True)),
    "functions": (F.relu, torch.relu),
    "methods": (torch.Tensor.relu, in_place_for_its_effect),
    "functions with ceilings": (F.relu6, lambda x: F.hardtanh(x, 0, 6, inplace=True)),
}


def picture(seed=1, size=21):
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 4


def until(module, layer="c", rectified=True, method="deconv", size=21):
    (tap,) = survey(module, torch.zeros(1, 3, size, size), [layer])
    found = Until(module, tap, rectified=rectified)
    found.find(picture(size=size), method)
    return found


def one_hot(shape, target=TARGET):
    start = torch.zeros(shape)
    start[(0, *target)] = 1
    return start


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_a_deconvnet_is_the_transposed_network_computed_directly(way):
    net, x = Net(*WAYS[way]).eval(), picture()
    found = attr.Deconvolution(until(net)).attribute(x.clone().requires_grad_(), TARGET)
    back = F.conv_transpose2d(one_hot(net(x.clone()).shape), net.c.weight).relu()
    back = F.conv_transpose2d(back, net.b.weight, stride=2).relu()
    assert torch.allclose(found, F.conv_transpose2d(back, net.a.weight), atol=1e-5)
    assert found.abs().max() > 0.01


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_guided_backpropagation_also_stops_where_nothing_went_forward(way):
    net, x = Net(*WAYS[way]).eval(), picture()
    ceiling = 6 if "6" in way or "ceilings" in way else torch.inf
    found = attr.GuidedBackprop(until(net)).attribute(x.clone().requires_grad_(), TARGET)
    before_first = net.a(x)
    before_second = net.b(before_first.clamp(0, ceiling))
    if ceiling == 6:
        assert (before_first > 6).any()
    back = F.conv_transpose2d(one_hot(net(x.clone()).shape), net.c.weight)
    back = back.relu() * ((before_second > 0) & (before_second < ceiling))
    back = F.conv_transpose2d(back, net.b.weight, stride=2)
    back = back.relu() * ((before_first > 0) & (before_first < ceiling))
    assert torch.allclose(found, F.conv_transpose2d(back, net.a.weight), atol=1e-5)


class Shortcut(nn.Module):
    """A rectifier and a way around it, and one module in two branches."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.a, self.b, self.left, self.right = (nn.Conv2d(n, m, 1) for n, m in ((3, 5), (5, 5), (5, 4), (5, 4)))
        self.relu = nn.ReLU()
        self.c = nn.Identity()

    def forward(self, x):
        x = self.a(x)
        x = self.b(self.relu(x)) + x
        return self.c(self.left(self.relu(x)) + self.right(self.relu(-x)))


@torch.no_grad()
def test_ways_around_a_rectifier_and_modules_called_side_by_side():
    net, x = Shortcut().eval(), picture()
    found = attr.Deconvolution(until(net)).attribute(x.clone().requires_grad_(), TARGET)
    start = one_hot(net(x).shape)
    middle = F.conv_transpose2d(start, net.left.weight).relu() - F.conv_transpose2d(start, net.right.weight).relu()
    back = F.conv_transpose2d(middle, net.b.weight).relu() + middle
    expected = F.conv_transpose2d(back, net.a.weight)
    assert torch.allclose(found, expected, atol=1e-5)
    # captum on the network itself gives something else: that is what rectifying.py is for.
    assert not torch.allclose(attr.Deconvolution(net).attribute(x.requires_grad_(), TARGET), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("strange", "named"),
    [
        (nn.SiLU(), "Silu"),
        (nn.LeakyReLU(), "LeakyRelu"),
        (nn.Hardtanh(), "Hardtanh"),
        (lambda x: x.clamp(min=0), "Clamp"),
        (lambda x: x * torch.sigmoid(x), "Sigmoid"),
    ],
)
def test_what_has_no_deconvnet_is_refused_and_never_given_its_plain_gradient(strange, named):
    net = Net(nn.ReLU(), strange).eval()
    for method in ("deconv", "guided"):
        with pytest.raises(RequestError, match=rf"--project {method} .* layer c leads through .*{named}"):
            until(net, method=method)
    until(net, rectified=False, method="ig")
    # Not on the way to an earlier layer.
    until(net, layer="b")


def test_a_compiled_rectifier_that_no_hook_reaches_is_refused():
    net = Net(torch.jit.trace(nn.ReLU(), torch.zeros(1, 6, 4, 4)), nn.ReLU()).eval()
    with pytest.raises(RequestError, match="leads through"):
        until(net)


def test_a_layer_that_no_gradient_leaves_is_said():
    net = Net(nn.ReLU(), torch.Tensor.detach).eval()
    with pytest.raises(RequestError, match="no gradient from layer c reaches the image.*occlusion"):
        until(net, rectified=False, method="ig")


# Through an index


def state(module):
    """Hooks, flags and gradients of every module and parameter."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [
        (name, one.training, [list(getattr(one, kind)) for kind in kinds], sorted(one._modules))
        for name, one in module.named_modules()
    ]
    tensors = [(name, p.requires_grad, p.grad, p._version) for name, p in module.named_parameters()]
    return modules, tensors


@pytest.fixture
def shapes_index(shapes_index, network):
    """The index with this network in the place of its own."""
    shapes_index._asked._network = network
    return shapes_index


@pytest.fixture(scope="module")
def network():
    from patchmine import models

    found = models.load("shapes")
    found.module.template.train()
    found.module.template.register_forward_hook(lambda *_: None)
    found.module.colour.weight.requires_grad_()
    return found


@pytest.mark.parametrize("method", PROJECTIONS)
def test_a_projection_lies_in_the_receptive_field_and_leaves_nothing_behind(shapes_index, network, method):
    before = state(network.module)
    project = Projector(shapes_index, method)
    for patch in shapes_index.unit("colour:1").top(2):
        size = shapes_index.placement(patch.image_id).input
        seen = patch.input_box.intersect(Box(0, 0, *size))
        values = project(patch, seen)
        assert values.shape == (3, size[1], size[0])
        assert values.dtype == np.float32
        inside = values[:, seen.top : seen.bottom, seen.left : seen.right]
        assert np.abs(inside).max() > 0
        assert np.count_nonzero(values) == np.count_nonzero(inside)
    assert state(network.module) == before


@pytest.mark.parametrize("method", PROJECTIONS)
def test_nothing_is_left_behind_by_an_error_either(shapes_index, network, method, monkeypatch):
    patch = shapes_index.unit("colour:1").top(1)[0]
    before = state(network.module)
    project = Projector(shapes_index, method)
    seen = Box(100, 100, 120, 120)
    project(patch, seen)
    calls = []

    def forward(x):
        calls.append(x)
        raise MemoryError("in the middle")

    with monkeypatch.context() as patched:
        patched.setattr(network.module.colour, "forward", forward)
        with pytest.raises(MemoryError):
            project(patch, seen)
    assert calls
    assert state(network.module) == before


def activation(network, patch, pixels):
    (tap,) = survey(network.module, pixels, [patch.unit.layer])
    with torch.no_grad():
        return Until(network.module, tap)(pixels)[:, patch.unit.channel, patch.position.y, patch.position.x]


def prepared(index, patch):
    from patchmine.photographs.decode import normalized, prepare

    return normalized(prepare(index.photograph(patch.image_id), index.preprocessing).tensor[None], index.preprocessing)


def test_integrated_gradients_add_up_to_what_the_activation_gains(shapes_index, network):
    patch = shapes_index.unit("thing:3").top(1)[0]
    x = prepared(shapes_index, patch)
    gained = activation(network, patch, x) - activation(network, patch, torch.zeros_like(x))
    total = Projector(shapes_index, "ig")(patch, patch.input_box).sum()
    assert total == pytest.approx(gained.item(), rel=0.05)
    assert patch.value == pytest.approx(activation(network, patch, x).item(), abs=1e-4)


def test_occlusion_is_what_covering_by_hand_takes_away(shapes_index, network):
    patch = shapes_index.unit("colour:1").top(1)[0]
    x = prepared(shapes_index, patch)
    seen = patch.input_box.intersect(Box(0, 0, x.shape[3], x.shape[2]))
    down, across = shapes_index.field("colour").group(1).stride
    # Not the whole field, and a side that is no whole number of strides.
    region = Box(seen.left, seen.top, seen.right - 1, seen.bottom)
    assert down < region.width < region.height < MOST_STEPS * down
    values = Projector(shapes_index, "occlusion")(patch, region)
    whole, lost, covers = activation(network, patch, x), torch.zeros_like(x), torch.zeros_like(x)
    for top in range(region.top, region.bottom - down, down):
        for left in range(region.left, region.right - across, across):
            covered, under = x.clone(), np.s_[..., top : top + 2 * down, left : left + 2 * across]
            outside = torch.ones_like(x, dtype=torch.bool)
            outside[..., region.top : region.bottom, region.left : region.right] = False
            covered[under] = 0
            covered[outside] = x[outside]
            lost[under] += (whole - activation(network, patch, covered)).item()
            covers[under] += 1
    expected = torch.where(covers > 0, lost / covers.clamp(min=1), 0.0)[0].numpy().copy()
    expected[:, :, : region.left] = expected[:, :, region.right :] = 0
    expected[:, : region.top] = expected[:, region.bottom :] = 0
    assert np.abs(values).max() > 0.01
    assert np.allclose(values, expected, atol=1e-4)


def test_occlusion_takes_no_more_steps_than_it_says():
    assert [_step(stride, length) for stride, length in ((16, 147), (32, 224), (2, 11), (2, 224), (1, 600))] == [
        *(16, 32, 2, 10, 25)
    ]
    assert _step(64, 20) == 20


# On the page


def test_projection_and_patch_show_the_same_place_at_the_same_scale():
    placement = Placement(source=(480, 320), resized=(384, 256), left=80, top=16, input=(224, 224), reach=2.0)
    x, y = 100, 60  # in the input
    values = np.zeros((3, 224, 224), np.float32)
    values[:, y - 2 : y + 2, x - 2 : x + 2] = 1
    photograph = Image.new("RGB", placement.source)
    middle = (x + 80) * 1.25, (y + 16) * 1.25
    photograph.paste("white", tuple(round(m + d) for d in (-2.5, 2.5) for m in middle))
    for window in (Box(80, 40, 130, 80), Box(-20, 30, 160, 130), Box(0, 0, 224, 224)):
        view = View(window, window.intersect(Box(0, 0, 224, 224)))
        size = (window.width * 3, window.height * 3)
        seen = piece(jpeg(photograph, quality=100), placement, view).drawn(size)
        drawn = projection_tile(values, placement, view, size)
        assert seen.size == drawn.size == size
        for image in (seen, drawn):
            bright = np.argwhere(np.asarray(image.convert("L")).astype(int) > 250)
            expected = ((y - window.top) * 3, (x - window.left) * 3)
            assert bright.mean(axis=0) == pytest.approx(expected, abs=2)
            assert len(bright) == pytest.approx(144, rel=0.5)
        # What is padding on one is padding on the other.
        padded = max(0, -window.left) * 3
        assert (np.asarray(seen)[:, :padded] == np.asarray(drawn)[:, :padded]).all()


def test_a_tile_is_symmetric_about_gray_whatever_its_scale():
    placement = Placement(source=(40, 40), resized=(40, 40), left=0, top=0, input=(40, 40), reach=2.0)
    whole = Box(0, 0, 40, 40)
    values = np.random.default_rng(0).normal(size=(3, 40, 40)).astype(np.float32)
    drawn = [
        np.asarray(projection_tile(v, placement, View(whole, whole), (40, 40))).astype(int)
        for v in (values, 1e-6 * values, -values)
    ]
    assert (drawn[0] == drawn[1]).all()
    assert np.abs(drawn[0] + drawn[2] - 255).max() <= 1
    assert 0 <= drawn[0].min() < 3
    nothing = np.zeros_like(values)
    nothing[0, 0, 0] = np.nan
    gray = np.asarray(projection_tile(nothing, placement, View(whole, whole), (40, 40)))
    assert ((gray == 127) | (gray == 128)).all()


def test_sheets_by_the_command_line_and_twice_the_same(cli, shapes_index_dir, tmp_path):
    done = cli("top", "-i", shapes_index_dir, "--unit", "colour:3", "-k", 2, "--project", "deconv", "-o", "t.pdf")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")
    for name in ("a.png", "b.png"):
        words = ("--unit", "contrast:3", "--layout", "zeiler", "--crop", "rf", "-o", name)
        done = cli("sheet", "-i", shapes_index_dir, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == name
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_deconvnet_without_choices_says_that_it_does_not_see_the_photograph(shapes_index, network):
    project = Projector(shapes_index, "deconv")
    assert "No max pooling lies before contrast, colour" in project.remark(["contrast", "colour", "thing"])
    assert project.remark(["thing"]) is None
    assert Projector(shapes_index, "guided").remark(["colour"]) is None
    fields = []
    for patch in shapes_index.unit("colour:1").top(10):
        box = patch.input_box
        if Box(0, 0, *shapes_index.placement(patch.image_id).input).contains(box):
            fields.append(project(patch, box)[:, box.top : box.bottom, box.left : box.right])
    assert len(fields) > 1
    assert all(np.allclose(field, fields[0], atol=1e-6) for field in fields)


def test_a_photograph_that_is_gone_leaves_the_others(shapes_index, network, tmp_path, monkeypatch):
    patches = shapes_index.unit("colour:1").top(3)
    there = shapes_index.photograph

    def photograph(image):
        if image == patches[1].image_id:
            raise PhotographError("has gone")
        return there(image)

    monkeypatch.setattr(shapes_index, "photograph", photograph)
    project, unit = Projector(shapes_index, "guided"), shapes_index.unit("colour:1")
    page = pairs_page(unit, patches, project)
    assert page.missing == [f"{patches[1].image}: has gone"]
    hatched = [{tuple(p) for p in np.asarray(pixels(one)).reshape(-1, 3)} <= HATCH for one in page.pictures]
    assert hatched == [False, False, False, True, False, False]


def test_strips_of_units_by_pattern(cli, shapes_index_dir, tmp_path):
    done = cli("sheet", "-i", shapes_index_dir, "--match", "colour:[12]", "-k", 3, "-o", "s.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "s.png"
    with Image.open(tmp_path / "s.png") as image:
        assert image.width > image.height


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["top", "--unit", "thing:3", "--project", "deconv"], "--project deconv needs a sheet.*add -o SHEET"),
        (["top", "--unit", "thing:3", "--project", "guide", "-o", "x.png"], "--project 'guide'; did you mean guided"),
        (["sheet", "--unit", "thing:3", "--layout", "zeiger", "-o", "x.png"], "layout 'zeiger'; did you mean zeiler"),
        (["sheet", "--unit", "thing:3", "--project", "ig", "-o", "x.png"], "use --layout zeiler"),
        (["sheet", "-o", "x.png"], "no units given"),
        (["sheet", "--match", "nothing*", "-o", "x.png"], "no unit matches --match nothing"),
        (["sheet", "--unit", "thing:3", "--match", "x", "-o", "x.png"], "exclude each other"),
        (["sheet", "--match", "*", "-o", "x.png"], "units do not fit on a page"),
        (["sheet", "--unit", "thing:3", "-o", "x.gif"], "'x.gif' is not a sheet"),
    ],
)
def test_bad_input_is_one_line(cli, shapes_index_dir, words, message):
    assert re.search(message, failed(cli(words[0], "-i", shapes_index_dir, *words[1:])))


def test_without_captum_it_is_said_what_to_install(cli, shapes_index_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    words = ["-i", shapes_index_dir, "--unit", "thing:3", "-o", "x.png"]
    for more in (["top", "--project", "ig"], ["sheet", "--layout", LAYOUTS[1]]):
        assert "pip install 'patchmine[attribution]'" in failed(cli(more[0], *words, *more[1:]))
