"""Padding changed in a copy: what each layer then sees, that the torus is one, and that the original is untouched."""

import copy

import numpy as np
import pytest
import timm.layers
import torch
import torch.nn.functional as F
from timm.layers import pool2d_same
from torch import nn

from patchmine.errors import RequestError
from patchmine.networks.taps import survey
from patchmine.photographs.placement import Preprocessing
from patchmine.study.instruments.padding import check_room, extended, padded
from patchmine.study.instruments.torus import check_torus, stride, torus
from patchmine.synthesis.ascent import Ascent, synthesize
from patchmine.synthesis.canvas import whole
from patchmine.synthesis.recipe import Recipe

PREPROCESSING = Preprocessing(40, (32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3)
SIZE = (32, 48)
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


class Branching(nn.Module):
    """Every kind of layer that pads, a shortcut with a stride, and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, (7, 5), stride=2, padding=(3, 2))
        self.norm = nn.BatchNorm2d(6)
        self.dilated = nn.Conv2d(6, 6, 3, padding="same", dilation=2)
        self.twice = nn.Conv2d(6, 6, 4, padding="same")
        self.same = timm.layers.Conv2dSame(6, 6, 5, stride=2)
        self.shortcut = nn.Conv2d(6, 6, 1, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.last = nn.Sequential(nn.ReLU(), nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False))

    def forward(self, x):
        x = self.norm(self.first(x)).relu_()
        x = self.twice(self.twice(self.dilated(x)))
        return self.last(self.pool(self.same(x) + self.shortcut(x)))


class Stubborn(nn.Module):
    """Pads in its own code, behind a layer that can be changed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.early = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.own = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.own(F.avg_pool2d(F.pad(self.early(x), (1, 1, 1, 1)), 3, 1))


LAYERS = {
    "conv": nn.Conv2d(3, 4, 5, stride=2, padding=2),
    "even kernel": nn.Conv2d(3, 4, 2, stride=1, padding=1),
    "no padding": nn.Conv2d(3, 4, 3, stride=2),
    "same, even": nn.Conv2d(3, 4, 4, padding="same"),
    "sparse": nn.Conv2d(3, 4, 1, stride=3),
    "reflecting": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "same": timm.layers.Conv2dSame(3, 4, 5, stride=4),
    "standardized": timm.layers.StdConv2dSame(3, 4, 3, stride=2),
    "scaled": timm.layers.ScaledStdConv2d(3, 4, 3, stride=2),
    "mixed": timm.layers.MixedConv2d(3, 6, [3, 5, 7], stride=2, padding="same"),
    "blur": timm.layers.BlurPool2d(3, 5),
    "max pool": nn.MaxPool2d(3, stride=2, padding=1),
    "ceiling": nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "same max pool": pool2d_same.MaxPool2dSame(3, 2),
    "same average": timm.layers.AvgPool2dSame(3, 2),
    "average": nn.AvgPool2d((3, 5), stride=(2, 4), padding=(1, 2)),
    "padding layer": nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(3, 4, 3, stride=2)),
    "mirroring layer": nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3)),
}


@pytest.fixture(scope="module")
def circular():
    return padded(Branching().eval(), "circular")


@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_rolls_with_its_input(kind):
    network = nn.Sequential(LAYERS[kind]).eval()
    assert torus(padded(network, "circular"), "0", (48, 24)) < 1e-5


@pytest.mark.parametrize("kind", ["conv", "same", "max pool", "ceiling", "standardized", "padding layer"])
def test_the_middle_of_the_map_stays_in_its_place(kind):
    network, picture = nn.Sequential(LAYERS[kind]).eval(), torch.randn(1, 3, 48, 48)
    trained, wrapped, mirrored = (padded(network, mode)(picture) for mode in ("zeros", "circular", "reflect"))
    middle = (..., slice(3, 9), slice(3, 9))
    torch.testing.assert_close(trained, network(picture), rtol=0, atol=0)
    for changed in (wrapped, mirrored):
        torch.testing.assert_close(changed[middle], trained[middle])
    assert mirrored.shape == trained.shape


@pytest.mark.parametrize(
    "kind", ["conv", "even kernel", "same", "same, even", "max pool", "same average", "padding layer"]
)
def test_padding_is_that_of_a_larger_picture(kind):
    """What a layer sees at its edge is the picture continued, as numpy continues it, and the trained layer on that."""
    network, picture = nn.Sequential(LAYERS[kind]).eval(), torch.randn(1, 3, 24, 24)
    for mode, known in (("reflect", "reflect"), ("circular", "wrap")):
        changed = padded(network, mode)(picture)
        large = network(torch.from_numpy(np.pad(picture.numpy(), ((0, 0), (0, 0), (24, 24), (24, 24)), mode=known)))
        rows, columns = changed.shape[2:]
        top, left = 24 // round(24 / rows), 24 // round(24 / columns)  # cells of the layer in 24 pixels
        torch.testing.assert_close(changed, large[..., top : top + rows, left : left + columns])


def test_the_torus_is_exact_at_every_layer(circular):
    for layer in ("first", "dilated", "twice", "same", "pool", "last"):
        assert torus(circular, layer, SIZE) < 1e-5, layer
    assert torus(Branching().eval(), "first", SIZE) > 0.1
    assert stride(circular, "first") == (2, 2)
    assert stride(circular, "last") == (8, 8)


def test_unequal_strides():
    network = padded(nn.Sequential(LAYERS["average"], nn.Conv2d(3, 2, 3, stride=3, padding=1)), "circular")
    assert stride(network, "1") == (6, 12)
    assert torus(network, "1", (12, 36)) < 1e-5


def test_the_original_is_untouched():
    network = Branching().eval()
    before = copy.deepcopy(network)
    picture = torch.randn(1, 3, *SIZE)
    expected = network(picture)
    copies = [padded(network, mode) for mode in ("zeros", "reflect", "circular")]
    outputs = [changed(picture) for changed in copies]
    assert len({tuple(output.flatten().tolist()) for output in outputs}) == 3
    torch.testing.assert_close(outputs[0], expected, rtol=0, atol=0)
    torch.testing.assert_close(network(picture), expected, rtol=0, atol=0)
    for (name, part), old, changed in zip(network.named_modules(), before.modules(), copies[2].modules(), strict=True):
        assert type(part) is type(old), name
        assert part.extra_repr() == old.extra_repr(), name
        assert not part._forward_pre_hooks, name
        assert not part._forward_hooks, name
        for tensor, shared in zip(part.parameters(), changed.parameters(), strict=True):
            assert tensor is shared
    assert [name for name, _ in network.named_modules()] == [name for name, _ in copies[2].named_modules()]


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_synthesis_runs_on_the_copy(mode):
    network = padded(Branching().eval(), mode)
    ascent = Ascent(network, "last", whole((32, 32)), PREPROCESSING)
    picture = torch.randn(2, 3, 32, 32)
    assert type(ascent.module.norm) is nn.Sequential  # folded into the convolution before it
    torch.testing.assert_close(ascent.maps(picture), network(picture), rtol=1e-4, atol=1e-5)
    (found,) = synthesize(network, "last", [2], whole((32, 32)), PREPROCESSING, Recipe(steps=8))
    assert found.alive
    assert found.scores[-1] > found.scores[0]
    if mode == "circular":
        assert torus(ascent.module, "last", (32, 32)) < 1e-5


def test_what_pads_in_its_own_code_is_named():
    network = padded(Stubborn().eval(), "circular")
    assert check_torus(network, "early", SIZE) < 1e-5
    assert torus(network, "own", SIZE) > 0.01
    with pytest.raises(RequestError, match=r"^own cannot be put on a torus: at own the map changes by 0\.\d") as error:
        check_torus(network, "own", SIZE)
    assert "\n" not in str(error.value)


def test_a_layer_behind_what_cannot_be_reached_names_the_culprit():
    network = padded(nn.Sequential(Stubborn(), nn.Conv2d(4, 2, 3, padding=1)).eval(), "circular")
    with pytest.raises(RequestError, match="^1 cannot be put on a torus: at 0.own "):
        check_torus(network, "1", SIZE)


def test_canvases_that_do_not_fit_are_refused(circular):
    with pytest.raises(RequestError, match="60x32 pixels .* cells of last: instead of 60 give 56 or 64"):
        torus(circular, "last", (32, 60))
    with pytest.raises(RequestError, match="one cell on a canvas of 8x8"):
        torus(circular, "last", (8, 8))
    pooled = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(RequestError, match="1 has one cell however large"):
        stride(padded(pooled, "circular"), "1")
    adaptive = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.AdaptiveAvgPool2d(6))
    with pytest.raises(RequestError, match="6x6 cells however small"):
        stride(padded(adaptive, "circular"), "1")
    assert torus(padded(adaptive, "circular"), "1", (24, 24)) < 1e-5
    fixed = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 24 * 24, 3))
    with pytest.raises(RequestError, match="cannot take a canvas of 1x1"):
        torus(padded(fixed, "circular"), "0", (24, 24))
    with pytest.raises(RequestError, match="unknown padding 'mirror'"):
        padded(pooled, "mirror")


def test_a_canvas_too_small_to_mirror_or_wrap_is_refused_up_to_the_layer_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 9, padding=4))
    mirrored, wrapped = padded(network, "reflect"), padded(network, "circular")
    for changed, least in ((mirrored, 9), (wrapped, 7)):
        check_room(changed, "0", (least - 2, least - 2))
        check_room(changed, "1", (least, least))
        with pytest.raises(RequestError, match=f"{least - 2}x{least - 2} pixels is too small: 1 pads 4 cells"):
            check_room(changed, "1", (least - 2, least - 2))
        assert survey(changed, torch.zeros(1, 3, 1, 1), ["0"])[0].layout.grid == (1, 1)
    check_room(network, "1", (2, 2))


@pytest.mark.parametrize(("mode", "known"), [("reflect", "reflect"), ("circular", "wrap")])
def test_maps_are_extended_as_numpy_does_it(mode, known):
    maps = torch.randn(2, 3, 3, 5, dtype=torch.float64, requires_grad=True)
    for amounts in [((1, 2), (2, 0)), ((2, 2), (4, 1)), ((7, 3), (11, 6))]:
        expected = np.pad(maps.detach().numpy(), ((0, 0), (0, 0), *amounts), mode=known)
        np.testing.assert_array_equal(extended(maps, amounts, mode).detach().numpy(), expected)
        assert torch.autograd.gradcheck(lambda x, amounts=amounts: extended(x, amounts, mode), maps[:1, :1])
    one = torch.ones(1, 1, 1, 1)
    assert extended(one, ((2, 3), (0, 1)), mode).sum() == 12
    torch.testing.assert_close(extended(maps, ((1, -1), (0, -2)), mode)[..., 1:, :], maps[..., :2, :3])
