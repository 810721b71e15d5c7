"""Synthetic images: what is found, that it is found again to the byte, and that the network stays as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from patchmine.errors import ModelError, RequestError
from patchmine.fields.exact import receptive_fields
from patchmine.photographs.placement import Preprocessing
from patchmine.synthesis.ascent import Ascent, drawing, synthesize
from patchmine.synthesis.canvas import Canvas, of_field, whole
from patchmine.synthesis.movements import Movements
from patchmine.synthesis.objectives import likeness
from patchmine.synthesis.parametrization import COLORS, Fourier, Maco, frequencies, resampled, spectrum_of
from patchmine.synthesis.recipe import Recipe
from patchmine.units import Box, Position

PREPROCESSING = Preprocessing(40, (32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3)
CPU = torch.device("cpu")


def network(seed=0):
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.ReLU(inplace=True),
    )
    return layers.eval()


@pytest.fixture(scope="module")
def amplitudes():
    """Those of a photograph would be like this: falling with the frequency."""
    return (0.3 / frequencies((32, 32)).clamp_min(1 / 32)).expand(3, -1, -1)


def bytes_of(found):
    return [one.picture.tobytes() + one.scores.tobytes() for one in found]


@pytest.mark.parametrize("method", ["fourier", "maco", "pixels"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(method, amplitudes):
    def made(seed):
        recipe = Recipe(method=method, steps=6, seed=seed)
        return bytes_of(
            synthesize(network(), "4", [0, 3], whole((32, 32)), PREPROCESSING, recipe, amplitudes=amplitudes)
        )

    assert made(0) == made(0)
    assert made(0)[0] != made(1)[0]
    assert made(0)[0] != made(0)[1]


@pytest.mark.parametrize(("objective", "gain"), [("neuron", 0.2), ("channel", 0.005)])
def test_the_ascent_climbs(objective, gain):
    for found in synthesize(network(), "4", range(5), whole((32, 32)), PREPROCESSING, Recipe(objective, steps=40)):
        assert found.picture.shape == (32, 32, 3)
        assert found.picture.dtype == np.uint8
        assert found.activations.shape == (16, 16)
        assert (found.value if objective == "neuron" else found.mean) > found.scores[0] + gain
        assert found.alive
        assert found.stopped is None


def test_negative_descends():
    (up,) = synthesize(network(), "4", [2], whole((32, 32)), PREPROCESSING, Recipe(steps=30))
    (down,) = synthesize(network(), "4", [2], whole((32, 32)), PREPROCESSING, Recipe("negative", steps=30))
    assert down.value < down.scores[0] < up.value


def test_plain_pixels_find_the_optimum_of_a_filter():
    """The best picture for a linear filter is white where it is positive and black elsewhere."""
    torch.manual_seed(1)
    filters = nn.Conv2d(3, 4, 5, bias=False)
    canvas = whole((5, 5))
    for found in synthesize(filters_in(filters), "0", range(4), canvas, PREPROCESSING, Recipe(method="pixels")):
        weight = filters.weight[found.channel].detach()
        assert np.array_equal(found.picture, ((weight > 0) * 255).permute(1, 2, 0).numpy())
        assert found.value == pytest.approx(float(weight.abs().sum()), rel=1e-5)


def filters_in(filters):
    return nn.Sequential(filters).eval()


def test_fourier_comes_near_the_optimum_of_a_filter():
    torch.manual_seed(1)
    filters = nn.Conv2d(3, 4, 5, bias=False)
    recipe = Recipe(jitter=0, scale=0, rotation=0, steps=150, rate=0.5)
    for found in synthesize(filters_in(filters), "0", range(4), whole((5, 5)), PREPROCESSING, recipe):
        assert found.value > 0.8 * float(filters.weight[found.channel].detach().abs().sum())


class Poisoned(nn.Module):
    """The input as long as it is dark, and no number as soon as it is bright."""

    def forward(self, x):
        return x[:, :1] / (x[:, :1] < 0.5)


def state(module):
    return {
        name: (
            part.training,
            len(part._forward_hooks),
            len(part._forward_pre_hooks),
            len(part._backward_hooks),
            getattr(part, "inplace", None),
            [(p.requires_grad, p.grad is None, p.stride(), p.data_ptr()) for p in part.parameters(recurse=False)],
        )
        for name, part in module.named_modules()
    }


class Enough(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_network_stays_as_it_was(fails, training):
    module = network().train(training)
    module[1].eval()
    module[0].weight.requires_grad_(False)
    module[2].register_forward_hook(lambda *_: None)
    before, numbers = state(module), {name: t.clone() for name, t in module.state_dict().items()}

    def advance(done, _of):
        if fails and done == 2:
            raise Enough

    try:
        synthesize(module, "5", [0, 1], whole((32, 32)), PREPROCESSING, Recipe(steps=3), advance=advance)
    except Enough:
        assert fails
    assert state(module) == before
    assert all(torch.equal(numbers[name], tensor) for name, tensor in module.state_dict().items())


def test_a_unit_behind_a_closed_relu_is_reached():
    module = network()
    with torch.no_grad():
        module[4].bias[:] = module[4].bias - 0.2  # closed on gray, open on what it looks for
    (before,) = synthesize(module, "4", [1], whole((32, 32)), PREPROCESSING, Recipe(steps=60))
    (found,) = synthesize(module, "5", [1], whole((32, 32)), PREPROCESSING, Recipe(steps=60))
    assert before.scores[0] < 0 < before.value
    assert found.scores[0] == 0
    assert found.alive
    assert found.value > 0.5 * before.value


def test_a_dead_unit_is_said_and_does_not_disturb_the_others():
    module = network()
    with torch.no_grad():
        module[4].weight[1] = 0
    alone = synthesize(module, "5", [0], whole((32, 32)), PREPROCESSING, Recipe(steps=12))
    found = synthesize(module, "5", [0, 1], whole((32, 32)), PREPROCESSING, Recipe(steps=12))
    assert [one.alive for one in found] == [True, False]
    assert found[0].value == pytest.approx(alone[0].value, rel=0.05)
    (dead,) = synthesize(module, "5", [1], whole((32, 32)), PREPROCESSING, Recipe(steps=200))
    assert not dead.alive
    assert len(dead.scores) < 200


def test_what_is_no_longer_finite_keeps_the_last_good_picture():
    recipe = Recipe(method="pixels", steps=200)
    (found,) = synthesize(nn.Sequential(Poisoned()).eval(), "0", [0], whole((4, 4)), PREPROCESSING, recipe)
    assert found.stopped is not None
    assert 5 < found.stopped < 200
    assert np.isfinite(found.value)
    assert np.isfinite(found.scores[: found.stopped]).all()
    assert found.picture[2, 2, 0] > 170  # it had become brighter


def test_diverse_images_are_less_alike():
    def alike(diversity):
        module = network()
        recipe = Recipe("diverse", steps=60, diversity=diversity)
        found = synthesize(module, "4", [0], whole((32, 32)), PREPROCESSING, recipe)
        assert len(found) == 4
        pictures = torch.stack([torch.from_numpy(one.picture.copy()).permute(2, 0, 1) for one in found])
        maps = Ascent(module, "4", whole((32, 32)), PREPROCESSING).activations(pictures)
        return float(likeness(maps[:, 1:, 8, 8], 4).mean())

    assert alike(1.0) < alike(0.0) - 0.2


def test_a_start_is_where_it_starts():
    torch.manual_seed(0)
    start = torch.rand(3, 16, 16) * 0.8 + 0.1
    for kind in (Fourier((16, 16), CPU), Maco((16, 16), CPU, spectrum_of(start).abs())):
        assert torch.allclose(kind.pictures(kind.inverse(start)[None])[0], start, atol=1e-4)
    (found,) = synthesize(
        network(), "4", [0], whole((16, 16)), PREPROCESSING, Recipe(steps=1, rate=1e-9), start=start[None]
    )
    assert np.abs(found.picture / 255 - start.permute(1, 2, 0).numpy()).max() < 0.01


@pytest.mark.parametrize("size", [(20, 30), (11, 13)])
def test_the_gradient_of_pictures_is_that_of_plain_torch(size):
    kind = Fourier(size, CPU)
    torch.manual_seed(3)
    parameters = torch.randn(2, 3, *kind.scale.shape, 2, requires_grad=True)
    independent = torch.fft.irfft2(torch.view_as_complex(parameters) * kind.scale, s=kind.roomy, norm="ortho")
    plain = torch.sigmoid(torch.einsum("dc,ichw->idhw", COLORS, independent))[:, :, : size[0], : size[1]]
    weights = torch.randn_like(plain)
    (expected,) = torch.autograd.grad((plain * weights).sum(), parameters)
    (found,) = torch.autograd.grad((kind.pictures(parameters) * weights).sum(), parameters)
    torch.testing.assert_close(kind.pictures(parameters), plain)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def movements(canvas, **changes):
    recipe = Recipe(**{"jitter": 0.1, **changes}).settled()
    return Movements(canvas, recipe, drawing("movements"), torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize("canvas", [Canvas((30, 28), Box(4, 5, 22, 24)), Canvas((18, 29))])
@pytest.mark.parametrize(("changes", "least"), [({}, 0.999), ({"scale": 0.5, "rotation": 30}, 0.999999)])
def test_the_gradient_of_movements_is_the_exact_one_or_nearly(canvas, changes, least):
    height, width = canvas.picture.height, canvas.picture.width
    moves = movements(canvas, **changes)
    single = torch.eye(height * width).view(-1, 1, height, width).expand(-1, 3, -1, -1).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        placed = moves.placed(single)  # where each pixel comes to lie
        wanted = torch.rand(canvas.size, generator=generator)
        (found,) = torch.autograd.grad((placed * wanted).sum(), single)
        exact = placed[:, 0].flatten(1) @ wanted.flatten()
        assert torch.cosine_similarity(found[0, 0].flatten(), exact, 0) > least
        assert found[0, 0].sum() == pytest.approx(float(exact.sum().detach()), rel=0.004)


def test_the_gradient_of_one_moved_picture_is_that_of_two():
    canvas = Canvas((40, 38), Box(4, 5, 32, 33))
    picture = torch.rand((1, 3, 28, 28), generator=torch.Generator().manual_seed(0))
    gradients = []
    for count in (1, 2):
        pictures = picture.expand(count, -1, -1, -1).clone().requires_grad_()
        placed = movements(canvas).placed(pictures)
        gradients.append(torch.autograd.grad(placed[:1].pow(2).sum(), pictures)[0][:1])
    torch.testing.assert_close(*gradients)


def test_movements_are_small_and_never_the_same():
    canvas = Canvas((40, 40), Box(8, 8, 32, 32))
    moves = movements(canvas)
    dot = torch.zeros(1, 3, 24, 24)
    dot[..., 4:6, 18:20] = 1  # at 12, 26 from the canvas's corner to its middle: 13 and 27
    middles = []
    for _ in range(40):
        lit = moves.placed(dot)[0, 0]
        assert lit.sum() == pytest.approx(4, rel=0.12)  # larger and smaller by 5 %
        rows, columns = torch.arange(40) + 0.5, torch.arange(40) + 0.5
        middles.append((float((lit.sum(1) * rows).sum() / lit.sum()), float((lit.sum(0) * columns).sum() / lit.sum())))
    ys, xs = np.array(middles).T
    assert len(set(middles)) == 40
    # Jitter is at most 2.4; 7 and 7 away from the middle of the picture 5 % and 5 degrees are at most 0.35 + 0.61.
    assert np.abs(ys - 13).max() < 3.4
    assert np.abs(xs - 27).max() < 3.4
    assert min(np.ptp(ys), np.ptp(xs)) > 3


def test_amplitudes_of_another_size_are_those_of_the_same_frequencies():
    large = frequencies((64, 64)).clamp_min(1 / 64).reciprocal().expand(3, -1, -1)
    small = resampled(large, (30, 21))
    expected = frequencies((30, 21)).reciprocal()
    assert small.shape == (3, 30, 11)
    assert torch.allclose(small[:, 4:12, 4:], expected[4:12, 4:].expand(3, -1, -1), rtol=0.02)
    assert torch.equal(resampled(large, (64, 64)), large)


def test_the_canvas_of_a_field_is_small_and_changes_nothing():
    """The picture on its small canvas drives the unit exactly as in the middle of the whole input."""
    module = network()
    field = receptive_fields(module, (64, 64), ["4"])["4"]
    canvas = of_field(field, 0, at=lambda size: receptive_fields(module, size, ["4"])["4"])
    middle = of_field(field, 0)
    assert canvas.size[0] < 20
    assert middle.size == (64, 64)
    assert (canvas.picture.width, canvas.picture.height) == (8, 8) == (middle.picture.width, middle.picture.height)
    (found,) = synthesize(module, "4", [0], canvas, PREPROCESSING, Recipe(steps=5))
    picture = torch.from_numpy(found.picture.copy()).permute(2, 0, 1)[None]
    maps = Ascent(module, "4", middle, PREPROCESSING).activations(picture)
    assert float(maps[0, 0, middle.position.y, middle.position.x]) == pytest.approx(found.value, rel=1e-5)


def test_the_picture_is_centered_on_the_field():
    field = receptive_fields(network(), (64, 64), ["4"])["4"]
    canvas = of_field(field, 0, side=20)
    y, x = field.center(0, canvas.position)
    box = canvas.picture
    assert (box.width, box.height) == (20, 20)
    assert abs((box.left + box.right - 1) / 2 - x) <= 0.5
    assert abs((box.top + box.bottom - 1) / 2 - y) <= 0.5


@pytest.mark.parametrize(
    ("canvas", "channels", "layer", "error", "words"),
    [
        (whole((32, 32)), [7], "4", RequestError, "4 has 5 channels, so channel 7 does not exist"),
        (whole((32, 32)), [0], "9", ModelError, "unknown layer '9'"),
        (whole((1, 1)), [0], "4", RequestError, "1x1 pixels"),
        (Canvas((32, 32), Box(0, 0, 32, 32), Position(16, 0)), [0], "4", RequestError, "16x16 cells"),
    ],
)
def test_what_cannot_be_is_one_line(canvas, channels, layer, error, words):
    with pytest.raises(error, match=words) as raised:
        synthesize(network(), layer, channels, canvas, PREPROCESSING, Recipe(steps=1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"objective": "chanel"}, "did you mean channel"),
        ({"method": "mako"}, "did you mean maco"),
        ({"steps": 0}, "--steps must be from .*, not 0"),
        ({"seed": -1}, "--seed must be from .*, not -1"),
        ({"size": 0}, "--size must be from .*, not 0"),
        ({"rate": float("nan")}, "rate must be from .*, not nan"),
    ],
)
def test_a_recipe_that_cannot_be(values, words):
    with pytest.raises(RequestError, match=words):
        Recipe(**values)


def test_maco_needs_amplitudes():
    with pytest.raises(RequestError, match="amplitudes of photographs"):
        synthesize(network(), "4", [0], whole((32, 32)), PREPROCESSING, Recipe(method="maco"))
