"""`--weights` as trainers write them: containers, prefixes, several state dicts, another head, objects beside them."""

import argparse
import pathlib
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import patchmine
from patchmine import models
from patchmine.errors import ModelError
from patchmine.models._weights import fill
from patchmine.networks.layers import choose
from patchmine.networks.network import weights_digest


class Net(nn.Module):
    def __init__(self, classes: int = 5):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3))
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.body(self.norm(self.stem(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return Net().state_dict()


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def trunk(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc")}


def head(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith("fc")}


def doubled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor * 2 for name, tensor in state.items()}


def filled(
    document: object, folder: pathlib.Path, module: nn.Module | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    torch.save(document, folder / "w.pt")
    module = (module or Net()).eval()
    return module, fill(module, folder / "w.pt", "net")


ARGUMENTS = argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs"))


@pytest.mark.parametrize(
    "trainer",
    [
        lambda s: s,
        lambda s: under("module.", s),
        lambda s: under("module._orig_mod.", s),
        lambda s: under("_orig_mod.module.", s),
        lambda s: {re.sub("^body", "body.module", name): tensor for name, tensor in s.items()},
        lambda s: {"state_dict": under("model.", s), "optimizer_states": [{"state": {0: {"m": s["fc.bias"]}}}]},
        lambda s: {"state_dict": under("net._orig_mod.", s), "hyper_parameters": {"lr": 0.1}},
        lambda s: {"state_dict": s, "state_dict_ema": doubled(s), "args": ARGUMENTS, "best": np.float64(0.5)},
        lambda s: {"model_ema": doubled(s), "model": s, "epoch": 3},
        lambda s: {"ema_state_dict": under("module.", s)},
        lambda s: {"state_dict": {**under("backbone.", trunk(s)), **under("head.", head(s))}},
        lambda s: {name: tensor for name, tensor in s.items() if "num_batches" not in name},
        lambda s: {**s, "total_ops": torch.zeros(1), "body.0.total_params": torch.zeros(1)},
    ],
    ids=[
        "bare", "distributed", "distributed, compiled", "compiled, distributed", "parallel inside", "lightning",
        "lightning, compiled", "timm", "two averages", "average alone", "mmclassification", "old", "profiled",
    ],
)  # fmt: skip
def test_the_weights_are_found_wherever_the_trainer_puts_them(trainer, trained, tmp_path):
    module, lacking = filled(trainer(trained), tmp_path)
    assert lacking == ()
    expected = Net().eval()
    expected.load_state_dict(trained)
    assert weights_digest(module) == weights_digest(expected)


def test_half_precision_old_formats_and_misnamed_safetensors_are_read(trained, tmp_path):
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in trained.items()}
    module, lacking = filled(halves, tmp_path)
    assert not lacking
    assert module.stem.weight.dtype == torch.float32
    torch.save(trained, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(under("model.", trained), tmp_path / "pytorch_model.bin")
    digests = set()
    for name in ("old.pth", "pytorch_model.bin"):
        module = Net().eval()
        assert fill(module, tmp_path / name, "net") == ()
        digests.add(weights_digest(module))
    assert len(digests) == 1


def test_a_teacher_comes_before_its_student_and_the_choice_is_said(trained, tmp_path, caplog):
    document = {
        "student": under("module.backbone.", doubled(trunk(trained))),
        "teacher": {**under("backbone.", trunk(trained)), "head.mlp.0.weight": torch.zeros(2, 2)},
    }
    module, lacking = filled(document, tmp_path)
    assert torch.equal(module.stem.weight, trained["stem.weight"])
    assert lacking == ("fc.weight", "fc.bias")
    (said,) = caplog.messages
    assert "loaded what is under teacher.backbone; what is under student.backbone fits too, and is left out" in said
    assert "it lacks fc.weight, fc.bias" in said


def test_weights_of_a_network_inside_another_leave_its_own_buffers(trained, tmp_path):
    around = nn.Sequential(nn.Identity(), Net())
    around[0].register_buffer("mean", torch.ones(3))
    module, lacking = filled(under("module.", trained), tmp_path, around)
    assert lacking == ()
    assert torch.equal(module[1].stem.weight, trained["stem.weight"])
    assert torch.equal(module[0].mean, torch.ones(3))


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"fc.weight": torch.zeros(10, 6), "fc.bias": torch.zeros(10)},
        {"fc.0.weight": torch.zeros(9, 6), "fc.2.weight": torch.zeros(3, 9), "queue": torch.zeros(2, 2)},
    ],
    ids=["none", "ten classes", "projection"],
)
def test_another_head_matters_only_to_what_comes_after_it(other, trained, tmp_path, photographs, caplog):
    torch.save({**trunk(trained), **other}, tmp_path / "w.pt")
    (tmp_path / "net.py").write_text(
        "from patchmine import Preprocessing\nfrom tests.test_checkpoints import Net\n"
        "def build():\n    return Net(), Preprocessing(16, (16, 16), 'bilinear', (.5, .5, .5), (.5, .5, .5))\n"
    )
    spec, file = f"{tmp_path / 'net.py'}:build", tmp_path / "w.pt"
    network = models.load(spec, file)
    assert network.lacking == ("fc.weight", "fc.bias")
    assert any("it lacks fc.weight, fc.bias" in message for message in caplog.messages)
    assert torch.equal(network.module.body[2].weight, trained["body.2.weight"])
    assert choose(network, ["body*"]) == ("body.0", "body.1", "body.2", "body")
    with pytest.raises(ModelError, match=r"'fc' .* needs fc\.weight, which the weights file lacks .*FILE\.py:FUNCTION"):
        choose(network, ["fc"])
    report = patchmine.build_index(photographs, tmp_path / "i.patchmine", model=spec, weights=file, limit=4)
    assert all(layer["non_finite"] == 0 for layer in report.manifest["layers"])


def test_the_default_network_without_its_head_names_no_classes(tmp_path, network, caplog):
    state = {name: tensor for name, tensor in network.module.state_dict().items() if "classifier" not in name}
    torch.save(state, tmp_path / "w.pt")
    found = models.load("efficientnet_lite0", tmp_path / "w.pt")
    assert found.class_names is None
    assert choose(found, ()) == choose(network, ())


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        (lambda s: {**s, "body.4.weight": torch.zeros(2)}, r"body\.4\.weight is unexpected \(1 in all\)"),
        (lambda s: {n: t for n, t in s.items() if n != "stem.weight"}, r"stem\.weight is missing"),
        (lambda s: {"features.0.weight": torch.zeros(2)}, r"the file holds features\.0\.weight: build .*\.py:"),
        (lambda s: {n: torch.zeros(3, 3) for n in s}, r"stem\.weight has shape \(3, 3\), not \(4, 3, 3, 3\)"),
        (lambda s: {"optimizer": {"state": {0: s}}}, "is not a state dict"),
        (lambda s: [s], "is not a state dict"),
        (lambda s: Net(), "contains more than tensors"),
        (lambda s: {"model": Net(), "epoch": 3}, "contains more than tensors"),
    ],
)  # fmt: skip
def test_what_is_not_of_this_network_is_refused_with_what_the_file_holds(document, answer, trained, tmp_path):
    with pytest.raises(ModelError, match=answer):
        filled(document(trained), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("model.safetensors.index.json", b'{"weight_map": {}}', "cannot be read as weights"),
        ("weights.npz", b"PK\x03\x04junk", "not a ZIP archive; give one file"),
        ("empty.pt", b"", "cannot be read as weights"),
        ("short.safetensors", b"\x08", "is not a safetensors file"),
    ],
)
def test_other_files_are_refused_in_one_line(name, content, answer, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=answer):
        fill(Net(), tmp_path / name, "net")
    with pytest.raises(ModelError, match=r"is a folder: name the file in it"):
        fill(Net(), tmp_path, "net")


RAN = []


def evil() -> dict[str, object]:
    RAN.append(1)
    return {}


class Evil:
    def __reduce__(self):
        return evil, ()


def test_an_object_beside_the_weights_runs_nothing(trained, tmp_path):
    module, _ = filled({"model": trained, "args": Evil()}, tmp_path)
    assert torch.equal(module.stem.weight, trained["stem.weight"])
    assert not RAN
