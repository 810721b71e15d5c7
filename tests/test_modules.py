"""Networks as people write them: modules called twice, wrapped, compiled, quantized, of another type or shape."""

import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import patchmine
from patchmine import executors, models
from patchmine.errors import ModelError
from patchmine.executors import Setting
from patchmine.fields.exact import receptive_fields
from patchmine.models import _plain
from patchmine.networks.folding import folded
from patchmine.networks.layers import choose, indexable, trace
from patchmine.networks.network import Network, weights_digest
from patchmine.networks.taps import maps, survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.photographs.placement import Preprocessing
from patchmine.questions.rectifiers import Until
from patchmine.synthesis.movements import centered

HALF = (0.5, 0.5, 0.5)
SMALL = Preprocessing(32, (32, 32), "bilinear", HALF, HALF)

TWICE = """
import torch
from torch import nn
from patchmine import Preprocessing

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.relu = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.two(self.relu(self.one(x))))

def build():
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    return Twice(), Preprocessing(32, (32, 32), "bilinear", half, half)
"""


def network(module: nn.Module) -> Network:
    return Network("net", module.eval(), SMALL, "")


def small() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3))
    nn.init.uniform_(net[1].running_mean)
    return net.eval()


@pytest.fixture(scope="module")
def twice(tmp_path_factory, photographs):
    """An index of both calls of one ReLU, and of the layer between them."""
    folder = tmp_path_factory.mktemp("twice")
    (folder / "net.py").write_text(TWICE)
    spec = f"{folder / 'net.py'}:build"
    layers = ("relu@*", "relu", "one", "two")
    patchmine.build_index(photographs, folder / "i.patchmine", model=spec, layers=layers, limit=8)
    return folder / "i.patchmine", spec


def test_both_calls_of_one_module_are_layers_of_their_own(twice):
    index = patchmine.open_index(twice[0])
    assert list(index.layers) == ["one", "relu@1", "two", "relu"]
    values = {layer: index.store.table(layer)[0] for layer in index.layers}
    assert np.array_equal(values["relu@1"], np.maximum(values["one"], 0))
    assert np.array_equal(values["relu"], np.maximum(values["two"], 0))
    assert [index.field(layer).grid for layer in ("relu@1", "relu")] == [(16, 16), (8, 8)]
    assert [index.field(layer).groups[0].size for layer in ("relu@1", "relu")] == [(3, 3), (7, 7)]
    calls = {layer["layer"]: (layer.get("call"), layer.get("calls")) for layer in index.manifest["layers"]}
    assert calls == {"one": (None, None), "relu@1": (1, 2), "two": (None, None), "relu": (2, 2)}


@pytest.mark.parametrize("layer", ["relu@1", "relu"])
def test_all_that_asks_the_network_again_means_the_same_call(twice, layer):
    index = patchmine.open_index(twice[0])
    index.use(twice[1])
    unit = index.unit(f"{layer}:1")
    (patch,) = unit.top(1, crop="tight")
    assert patch.tight is not None
    assert patch.tight.retained == pytest.approx(1, abs=0.2)
    of_unit = [found for found in index.fires(patch.image, layer=layer, k=4).units if found.unit.unit.channel == 1]
    assert of_unit[0].patch.value == pytest.approx(patch.value, abs=1e-5)
    module = index.network().module
    (tap,) = survey(module, torch.zeros(1, 3, 32, 32), [layer])
    (image,) = unit.synthesize(steps=2, images=1)
    picture = centered(torch.from_numpy(image.picture).permute(2, 0, 1)[None] / 127.5 - 1, image.canvas)
    (alone,) = survey(module, picture, [layer])
    seen = maps(module, picture, [alone])[layer][0, 1]
    assert image.value == pytest.approx(float(seen[image.canvas.position.y, image.canvas.position.x]), abs=1e-4)
    projection = index.projector("gradxinput")(patch, patch.input_box)
    picture = normalized(prepare(patch.photograph(), SMALL).tensor[None], SMALL).requires_grad_()
    until = Until(module, tap)(picture)[0, 1, patch.position.y, patch.position.x]
    assert float(until) == pytest.approx(patch.value, abs=1e-5)
    (gradient,) = torch.autograd.grad(until, picture)
    np.testing.assert_allclose(projection, (gradient * picture)[0].detach().numpy(), atol=1e-6)


def test_the_commands_say_which_call_a_layer_is(twice, cli):
    listed = json.loads(cli("layers", "--model", twice[1], "--json").stdout)["layers"]
    assert [(one["layer"], one.get("call"), one.get("calls")) for one in listed] == [
        ("one", None, None),
        ("relu@1", 1, 2),
        ("two", None, None),
        ("relu", 2, 2),
    ]
    assert "call 1 of 2" in cli("layers", "--model", twice[1]).stdout
    assert "last of 2 calls" in cli("rf", "--model", twice[1], "--layers", "relu").stdout
    assert "call 1 of 2" in cli("rf", "-i", str(twice[0])).stdout
    assert "last of 2 calls" in cli("info", "-i", str(twice[0])).stdout


def test_patterns_mean_the_last_calls_unless_they_have_an_at():
    class Thrice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

        def forward(self, x):
            for _ in range(3):
                x = self.act(self.conv(x))
            return x

    net = network(Thrice())
    assert choose(net, ["*"]) == ("conv", "act")
    assert choose(net, ["act@*", "conv@2"]) == ("act@1", "conv@2", "act@2")
    assert choose(net, ["act@3"]) == ("act",)
    with pytest.raises(ModelError, match=r"act is called 3 times, so choose from act@1, act@2, act$"):
        choose(net, ["act@4"])
    with pytest.raises(ModelError, match=r"conv is called 3 times"):
        survey(net.module, net.blank(), ["conv@9"])
    sizes = receptive_fields(net.module, (32, 32), ["conv@1", "act@2", "conv"])
    assert [field.groups[0].size for field in sizes.values()] == [(3, 3), (5, 5), (7, 7)]


def test_calls_of_a_module_inside_itself_count_as_they_end():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x, depth=2):
            return self.conv(x if depth == 0 else self(x, depth - 1))

    net = network(nn.Sequential(Again()))
    fields = receptive_fields(net.module, (32, 32), ["0@1", "0@2", "0"])
    assert [field.groups[0].size for field in fields.values()] == [(3, 3), (5, 5), (7, 7)]


def test_a_module_under_two_names_is_said_to_be_one():
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())
    net.again = net[0]
    net.forward = lambda x: net[1](net.again(net[1](net[0](x))))
    with pytest.raises(ModelError, match=r"'again' of net is the same module as 0: write 0@1 or 0$"):
        choose(network(net), ["again"])


def test_a_name_may_hold_any_character_that_an_index_can():
    names = ("x[0]", "a b", "c:1", "conv@1", "u/v", "é*")
    parts = nn.ModuleDict({name: nn.Conv2d(3, 3, 1) for name in (*names, "conv")})

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = parts

        def forward(self, x):
            for part in (*self.parts.values(), self.parts["conv"]):
                x = part(x)
            return x

    net = network(Odd())
    for name in names:
        assert choose(net, [f"parts.{name}"]) == (f"parts.{name}",)
    taps = survey(net.module, net.blank(), ["parts.conv@1"])
    assert taps[0].calls == 1  # the module of that name, not the first call of `conv`
    for bad in (["a\nb"], ["a//b"], ["a", "a/top"]):
        with pytest.raises(ModelError, match="cannot hold"):
            indexable(bad)


@pytest.mark.parametrize(
    "name", [name for name in executors.kinds.names if executors.kinds.find(name).missing() is None]
)
def test_each_executor_taps_the_right_call(name, tmp_path):
    (tmp_path / "net.py").write_text(TWICE)
    net = models.load(f"{tmp_path / 'net.py'}:build")
    layers = ["relu@1", "relu"]
    taps = survey(net.module, net.blank(), layers)
    executor = executors.build(name, net, taps, Setting(device="cpu", precision="fp32", batch_size=2, threads=1), 1)
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    bounds = {layer: (np.full(4, np.inf, np.float32), np.zeros(4, np.int64)) for layer in layers}
    found = executor.run(pictures, np.arange(2), bounds)
    expected = maps(net.module, pictures / 127.5 - 1, taps)
    for layer in layers:
        np.testing.assert_allclose(found[layer].value, expected[layer].amax((2, 3)).numpy(), atol=1e-5)


def wrapped(kind: str) -> nn.Module:
    net = small()
    if kind == "compiled":
        return torch.compile(net)
    if kind == "compiled in place":
        net.compile()
        return net
    if kind == "data parallel, compiled":
        return nn.DataParallel(torch.compile(net))
    if kind == "its parts":
        net[0], net[3] = torch.compile(net[0]), nn.DataParallel(net[3])
        return net
    if kind == "stays in train mode":
        net.train()
        net.eval = lambda: None
        return net
    if kind == "hooks on gradients":
        net[0].register_full_backward_hook(lambda *_: None)
        return net
    assert kind == "made in inference mode"
    with torch.inference_mode():
        return small()


@pytest.mark.parametrize(
    "kind",
    [
        "compiled",
        "compiled in place",
        "data parallel, compiled",
        "its parts",
        "stays in train mode",
        "hooks on gradients",
        "made in inference mode",
    ],
)
def test_what_is_around_a_network_is_taken_off(kind):
    module = _plain.plain(wrapped(kind), "net")
    assert [name for name, _ in module.named_modules()] == ["", "0", "1", "2", "3"]
    assert not any(part.training for part in module.modules())
    assert weights_digest(module) == weights_digest(small())
    picture = torch.randn(1, 3, 32, 32, requires_grad=True)
    module(picture).sum().backward()
    assert picture.grad is not None
    assert torch.equal(module(picture), small()(picture))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_computed_in_float32(dtype):
    module = _plain.plain(small().to(dtype), "net")
    expected = small().to(dtype).to(torch.float32)(torch.ones(1, 3, 32, 32))
    assert torch.equal(module(torch.ones(1, 3, 32, 32)), expected)


def test_a_weight_that_two_modules_share_stays_one():
    net = small().half()
    net.tied = nn.Conv2d(3, 4, 3).half()
    net.tied.weight = net[0].weight
    module = _plain.plain(net, "net")
    assert module.tied.weight is module[0].weight


def test_lazy_modules_are_initialized_the_same_each_time():
    def built():
        module = _plain.plain(nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()), "net")
        _plain.initialize(module, torch.zeros(1, 3, 32, 32))
        return module

    torch.manual_seed(1)
    first = built()
    torch.manual_seed(2)
    assert weights_digest(first) == weights_digest(built())


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm", "old weight_norm", "pruned"])
def test_computed_weights_are_not_folded_but_kept(norm):
    net = small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if norm == "pruned":
            from torch.nn.utils import prune

            prune.l1_unstructured(net[0], "weight", amount=0.5)
        else:
            by = nn.utils if norm.startswith("old") else nn.utils.parametrizations
            getattr(by, norm.split()[-1])(net[0])
    expected = net(torch.ones(1, 3, 32, 32))
    module = _plain.plain(net, "net")
    taps = survey(module, torch.zeros(1, 3, 32, 32), ["3"])
    found = folded(module, taps, torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(found(torch.ones(1, 3, 32, 32)), expected.detach(), atol=1e-4, rtol=1e-4)


class Two(nn.Module):
    def forward(self, x, y):
        return x + y


class Meta(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, device="meta")

    def forward(self, x):
        return self.conv(x)


class Inside(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3))
        self.net.parent = self

    def forward(self, x):
        return self.net(x)


def scripted_inside() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 3), torch.jit.script(nn.Conv2d(3, 4, 3)))


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), {nn.Linear})


@pytest.mark.parametrize(
    ("build", "answer"),
    [
        (
            lambda: torch.jit.script(small()),
            "net is a TorchScript module, .* return the module that torch.jit compiled",
        ),
        (lambda: torch.jit.trace(small(), torch.zeros(1, 3, 32, 32)), "TorchScript"),
        (scripted_inside, "1 of the module from net is a TorchScript module"),
        (lambda: torch.export.export(small(), (torch.zeros(1, 3, 32, 32),)), "ExportedProgram.* that was exported"),
        (lambda: torch.export.export(small(), (torch.zeros(1, 3, 32, 32),)).module(), "exported program"),
        (quantized, "1 of the module from net is quantized"),
        (Two, "forward takes x and y, .* return a module whose forward takes that alone"),
        (Meta, "conv of the module from net is on the meta device"),
        (Inside, r"is net\.parent of itself"),
        (lambda: nn.ModuleList([small()]), "ModuleList, which has no forward"),
        (lambda: small().state_dict(), "not a state dict: .*--weights FILE"),
        (lambda: Two, r"not the class Two: return Two\(\)"),
        (lambda: None, "not None"),
    ],
)
def test_what_has_no_layers_to_see_is_refused_with_what_to_return(build, answer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit announces its end
        built = build()
        with pytest.raises(ModelError, match=answer):
            _plain.plain(built, "net")


@pytest.mark.parametrize(
    ("module", "answer"),
    [
        (nn.Conv2d(1, 4, 3), r"takes 1 channel, but photographs have 3 .*Grayscale\(\)"),
        (nn.Conv2d(4, 4, 3), "takes 4 channels, but photographs have 3"),
        (nn.Linear(5, 5), r"in layer '0': .* \(its forward gets one tensor, float32 \(1, 3, 32, 32\)\)"),
    ],
)
def test_a_network_that_cannot_take_photographs_says_where(module, answer):
    with pytest.raises(ModelError, match=answer):
        trace(network(nn.Sequential(module)))


def test_a_network_without_submodules_has_no_layers():
    class Bare(nn.Module):
        def forward(self, x):
            return x.relu()

    with pytest.raises(ModelError, match="return a module that has its layers as submodules"):
        trace(network(Bare()))


def test_a_forward_in_inference_mode_has_the_same_fields():
    class Sealed(nn.Sequential):
        @torch.inference_mode()
        def forward(self, x):
            return super().forward(x)

    sealed = Sealed(*small()).eval()
    found = [receptive_fields(net, (32, 32), ["3"])["3"].as_dict() for net in (sealed, small())]
    assert found[0] == found[1]
