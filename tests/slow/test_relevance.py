"""Relevance against zennit-crp's own run, and how well real networks conserve it.

    python -m pytest tests/slow/test_relevance.py -m slow -s --photographs DIR [--limit N]

The first needs zennit and zennit-crp (Achtibat et al. 2023, "From attribution maps to human-understandable
explanations"), which are no dependencies: pip install zennit zennit-crp. It runs their FeatureVisualization with the
composite EpsilonPlus on a small VGG and compares the top 25 photographs of every unit. The second prints a table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import patchmine
from patchmine import models
from patchmine.index import Index
from patchmine.networks.layers import choose
from patchmine.networks.taps import survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.relevance import positive
from patchmine.relevance.propagation import Propagator
from patchmine.relevance.table import Conservation

pytestmark = pytest.mark.slow

TOP = 25
LAYERS = ("features.0", "features.5", "features.7", "features.12")
VGG = """
import torch
from torch import nn
from patchmine.photographs.placement import Preprocessing

def vgg(bias):
    torch.manual_seed(0)
    layers, channels = [], 3
    for width in (32, 32, "pool", 64, 64, "pool", 96, 96, "pool"):
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*layers))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Sequential(nn.Linear(96 * 64, 128), nn.ReLU(), nn.Linear(128, 20)))
    for part in net.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight)
            nn.init.uniform_(part.bias, -bias, bias)
    return net, Preprocessing(64, (64, 64), "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

def unbiased():
    return vgg(0.0)

def biased():
    return vgg(0.2)
"""


def inputs_of(index: Index) -> Tensor:
    pixels = [prepare(index.photograph(image), index.preprocessing).tensor for image in range(len(index))]
    return normalized(torch.stack(pixels), index.preprocessing)


def crp_top(net: nn.Module, inputs: Tensor, folder: Path) -> dict[str, np.ndarray]:
    """The photographs that zennit-crp ranks highest for each unit, (TOP, units), by layer; asked for the prediction."""
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.visualization import FeatureVisualization
    from zennit.composites import EpsilonPlus

    with torch.no_grad():
        targets = net(inputs).argmax(1).tolist()
    data = [(picture, target) for picture, target in zip(inputs, targets, strict=True)]
    concepts = {layer: ChannelConcept() for layer in LAYERS}
    found = FeatureVisualization(CondAttribution(net), data, concepts, path=str(folder))
    found.run(EpsilonPlus(), 0, len(data), 16)
    return {layer: np.load(folder / f"RelMax_sum_normed/{layer}_data.npy")[:TOP] for layer in LAYERS}


@pytest.mark.parametrize(("function", "least"), [("unbiased", 0.95), ("biased", 0.9)])
def test_the_same_photographs_as_zennit_crp(photographs: Path, tmp_path: Path, function: str, least: float) -> None:
    """Biases are the difference: zennit's ZPlus gives a positive one a share of the relevance, ours gives it none."""
    pytest.importorskip("crp")
    (tmp_path / "nets.py").write_text(VGG)
    model = f"{tmp_path}/nets.py:{function}"
    patchmine.build_index(photographs, tmp_path / "i", model=model, layers=LAYERS)
    index = patchmine.open_index(tmp_path / "i")
    index.relevance(rule="plus", model=model)
    expected = crp_top(index.network().module, inputs_of(index), tmp_path / "crp")
    same, shared = [], []
    for layer, images in expected.items():
        for unit in range(images.shape[1]):
            top = index.unit(f"{layer}:{unit}").top(TOP, by="relevance", score="sum-normed")
            ours = {patch.image_id for patch in top if patch.value != 0}
            theirs = set(images[:, unit].tolist())
            if len(ours) == TOP:  # no ties of zeros
                same.append(ours == theirs)
                shared.append(len(ours & theirs) / TOP)
    print(
        f"\n{function}: {np.mean(same):.1%} of {len(same)} units have the same top {TOP}, "
        f"{np.mean(shared):.1%} of their photographs are shared"
    )
    assert np.mean(same) >= least


MODELS = (
    "efficientnet_lite0",
    "torchvision:resnet18@random",
    "torchvision:vgg11_bn@random",
    "torchvision:densenet121@random",
    "timm:vit_tiny_patch16_224@random",
    "timm:convnext_atto@random",
)


@pytest.mark.parametrize("model", MODELS)
def test_layers_conserve(photographs: Path, tmp_path: Path, model: str) -> None:
    torch.manual_seed(0)
    patchmine.build_index(photographs, tmp_path / "i", model=model)
    found = patchmine.open_index(tmp_path / "i").relevance(model=model)
    print(f"\n{model}")
    for figures in found.layers:
        print(f"  {figures.layer:20} {figures.text}")
    assert all(sound(figures) for figures in found.layers)


def test_what_depthwise_convolutions_would_lose(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without the stabilizer that spreads the relevance of windows in which no input contributes."""
    network = models.load()
    taps = survey(network.module, network.blank(), choose(network, ()))
    files = sorted(path for path in photographs.rglob("*") if path.is_file())[:16]
    pixels = torch.stack([prepare(file.read_bytes(), network.preprocessing).tensor for file in files])
    monkeypatch.setattr(positive, "SPREAD", 0.0)
    monkeypatch.setattr(positive, "_DARK", 0.0)
    found = Propagator(network, taps, "plus", torch.device("cpu")).run(pixels)
    print("\nefficientnet_lite0, nothing spread")
    for layer, relevance in found.layers.items():
        print(f"  {layer:20} median {np.median(relevance.conserved):.4f}")
    assert np.median(found.layers["blocks.0"].conserved) < 0.2
    assert abs(np.median(found.layers["blocks.6"].conserved) - 1) < 0.05


def sound(figures: Conservation) -> bool:
    return figures.bypassed or (figures.median is not None and abs(figures.median - 1) <= 0.05)
