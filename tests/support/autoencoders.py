"""Sparse autoencoders in the files of every format, each with its encoder written down apart from patchmine's.

The weights are as of a trained one: decoder rows of length 1, encoder columns near them, a center that matters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

WIDTH, UNITS, K = 24, 96, 5
Encoder = Callable[[Tensor], Tensor]
_made = torch.Generator().manual_seed(5)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_made)


W_DEC = nn.functional.normalize(_random(UNITS, WIDTH), dim=1)
W_ENC = W_DEC.T.contiguous() + 0.02 * _random(WIDTH, UNITS)
B_DEC = _random(WIDTH)
B_DEC = 0.8 * WIDTH**0.5 * nn.functional.normalize(B_DEC - B_DEC.mean(), dim=0)
B_ENC = -0.1 * torch.rand(UNITS, generator=_made)
THRESHOLD = 0.4
NAMED = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
ABSORBED = NAMED | {"b_enc": B_ENC - B_DEC @ W_ENC}
"""As `NAMED`, for encoders that do not subtract b_dec."""


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros(()))


def highest(z: Tensor, k: int = K) -> Tensor:
    """Only the k highest of each row."""
    found = torch.zeros_like(z)
    for row, values in enumerate(z):
        for place in values.argsort(descending=True)[:k].tolist():
            found[row, place] = values[place]
    return found


def above(z: Tensor, threshold: float = THRESHOLD) -> Tensor:
    return torch.where(z > threshold, z, torch.zeros(()))


def layer_norm(x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.std(-1, keepdim=True) + 1e-5)


def constant_norm(x: Tensor) -> Tensor:
    return x * WIDTH**0.5 / x.norm(dim=-1, keepdim=True)


def centered(x: Tensor) -> Tensor:
    return (x - B_DEC) @ W_ENC + B_ENC


@dataclass(frozen=True)
class Made:
    """A file of one format, and its encoder."""

    file: Path
    encode: Encoder
    threshold: float | None = None


def _state(
    folder: Path, tensors: dict[str, Tensor], config: Mapping[str, object] | None = None, name: str = "ae.pt"
) -> Path:
    torch.save(tensors, folder / name)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / name


def _lens(folder: Path, cfg: Mapping[str, object], **more: Tensor) -> Path:
    save_file(NAMED | more, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": WIDTH, "d_sae": UNITS, **cfg}))
    return folder


def _prisma(folder: Path, cfg: Mapping[str, object], tensors: dict[str, Tensor] = NAMED) -> Path:
    described = {"d_in": WIDTH, "hook_point_layer": 9, "layer_subtype": "hook_resid_post", **cfg}
    torch.save({"cfg": described, "state_dict": tensors}, folder / "weights.pt")
    return folder / "weights.pt"


def _saev(folder: Path, header: Mapping[str, object], tensors: dict[str, Tensor] = ABSORBED) -> Path:
    with (folder / "sae.pt").open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(tensors, file)
    return folder / "sae.pt"


def _schema(activation: dict[str, object]) -> dict[str, object]:
    return {"schema": 5, "cfg": {"d_model": WIDTH, "d_sae": UNITS, "activation": activation}, "commit": "abc"}


def prisma(folder: Path) -> Made:
    return Made(_prisma(folder, {"activation_fn_str": "relu"}), lambda x: relu(centered(x)))


def prisma_layer_norm_topk(folder: Path) -> Made:
    cfg = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "normalize_activations": "layer_norm"}
    return Made(_prisma(folder, cfg), lambda x: relu(highest(centered(layer_norm(x)))))


def prisma_gated(folder: Path) -> Made:
    gate, r, magnitude = B_ENC, 0.1 * torch.linspace(-1, 1, UNITS), 0.1 + B_ENC
    tensors = {name: NAMED[name] for name in ("W_enc", "W_dec", "b_dec")}

    def encode(x: Tensor) -> Tensor:
        pre = (x - B_DEC) @ W_ENC
        return torch.where(pre + gate > 0, relu(pre * r.exp() + magnitude), torch.zeros(()))

    return Made(_prisma(folder, {}, {**tensors, "b_gate": gate, "r_mag": r, "b_mag": magnitude}), encode)


def saev_relu(folder: Path) -> Made:
    header = _schema({"cls": "Relu", "params": {}})
    return Made(_saev(folder, header), lambda x: relu(x @ W_ENC + ABSORBED["b_enc"]))


def saev_old(folder: Path) -> Made:
    return Made(_saev(folder, {"d_vit": WIDTH, "exp_factor": 4}), lambda x: relu(x @ W_ENC + ABSORBED["b_enc"]))


def saev_topk(folder: Path) -> Made:
    header = _schema({"key": "top-k", "top_k": K})
    return Made(_saev(folder, header), lambda x: highest(x @ W_ENC + ABSORBED["b_enc"]))


def saev_batch_topk(folder: Path) -> Made:
    header = _schema({"cls": "BatchTopK", "params": {"top_k": K}})
    tensors = ABSORBED | {"activation.threshold": torch.tensor(THRESHOLD)}
    return Made(_saev(folder, header, tensors), lambda x: above(x @ W_ENC + ABSORBED["b_enc"]))


def saelens(folder: Path) -> Made:
    cfg = {"architecture": "standard", "apply_b_dec_to_input": True, "normalize_activations": "none"}
    return Made(_lens(folder, cfg), lambda x: relu(centered(x)))


def saelens_not_centered(folder: Path) -> Made:
    save_file(ABSORBED, folder / "sae_weights.safetensors")
    cfg = {"architecture": "standard", "apply_b_dec_to_input": False, "d_in": WIDTH}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return Made(folder / "sae_weights.safetensors", lambda x: relu(x @ W_ENC + ABSORBED["b_enc"]))


def saelens_jumprelu(folder: Path) -> Made:
    thresholds = torch.linspace(-0.2, 1, UNITS)
    cfg = {"architecture": "jumprelu", "apply_b_dec_to_input": True, "normalize_activations": "constant_norm_rescale"}

    def encode(x: Tensor) -> Tensor:
        pre = centered(constant_norm(x))
        return relu(pre) * (pre > thresholds)

    return Made(_lens(folder, cfg, threshold=thresholds), encode)


def saelens_topk_rescaled(folder: Path) -> Made:
    lengths = torch.linspace(0.8, 1.2, UNITS)
    rows = W_DEC * lengths[:, None]
    cfg = {"architecture": "topk", "k": K, "apply_b_dec_to_input": True, "rescale_acts_by_decoder_norm": True}
    return Made(_lens(folder, cfg, W_dec=rows), lambda x: relu(highest(centered(x) * rows.norm(dim=1))))


def dictionary_learning(folder: Path) -> Made:
    tensors = {"bias": B_DEC, "encoder.weight": W_ENC.T.contiguous(), "encoder.bias": B_ENC}
    file = _state(
        folder, {**tensors, "decoder.weight": W_DEC.T.contiguous()}, {"trainer": {"dict_class": "AutoEncoder"}}
    )
    return Made(file, lambda x: relu(centered(x)))


def dictionary_learning_matryoshka(folder: Path) -> Made:
    more = {"k": torch.tensor(K), "threshold": torch.tensor(THRESHOLD), "group_sizes": torch.tensor([24, 72])}
    return Made(_state(folder, NAMED | more, {"trainer": {"k": K}}), lambda x: above(relu(centered(x))))


def fact(folder: Path) -> Made:
    tensors = {"encoder.weight": W_ENC.T.contiguous(), "decoder.weight": W_DEC.T.contiguous(), "log": torch.zeros(3)}
    return Made(_state(folder, tensors), lambda x: relu(x @ W_ENC))


MEAN, SCALE = 40 + 8 * _random(WIDTH), 0.05


def msae(folder: Path) -> Made:
    model = {"encoder": W_ENC, "decoder": W_DEC, "pre_bias": B_DEC, "latent_bias": B_ENC}
    beside = {"mean_center": MEAN, "scaling_factor": torch.tensor(SCALE), "target_norm": 4.9}
    torch.save({"model": model, **beside}, folder / "msae.pth")
    return Made(folder / "msae.pth", lambda x: relu(centered((x - MEAN) * SCALE)))


def msae_jumprelu(folder: Path) -> Made:
    model = {"encoder": W_ENC, "decoder": W_DEC, "pre_bias": B_DEC, "latent_bias": B_ENC}
    model["activation.log_threshold"] = torch.full((UNITS,), THRESHOLD).log()
    torch.save({"model": model, "mean_center": MEAN, "scaling_factor": SCALE}, folder / "msae.pth")
    return Made(folder / "msae.pth", lambda x: above(centered((x - MEAN) * SCALE)))


def _overcomplete() -> tuple[dict[str, Tensor], Encoder]:
    linear, norm = nn.Linear(WIDTH, UNITS), nn.BatchNorm1d(UNITS)
    with torch.no_grad():
        linear.weight.copy_(W_ENC.T)
        linear.bias.copy_(B_ENC)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(0.1 * torch.linspace(-1, 1, UNITS))
        norm.running_var.copy_(torch.linspace(0.5, 2, UNITS))
        norm.weight.copy_(torch.linspace(1.2, 0.8, UNITS))
        norm.bias.copy_(0.05 * torch.linspace(1, -1, UNITS))
    block = nn.Sequential(linear, norm, nn.ReLU()).eval()
    state = {f"encoder.final_block.{name}": value for name, value in block.state_dict().items()}
    state |= {"dictionary._weights": W_DEC, "dictionary.multiplier": torch.tensor(0.3)}
    return state, lambda x: block(x).detach()


def overcomplete(folder: Path) -> Made:
    state, encode = _overcomplete()
    return Made(_state(folder, state, {"k": K}, "model.pt"), lambda x: highest(encode(x)))


def universal_sae(folder: Path) -> Made:
    state, encode = _overcomplete()
    torch.save({"model_state_dict": state}, folder / "usae.pt")
    (folder / "config.json").write_text(json.dumps({"k": K, "mean": 0.0329, "std": 2.474}))
    return Made(folder / "usae.pt", lambda x: highest(encode((x - 0.0329) / (2.474 + 1e-5))))


def overcomplete_batch_topk(folder: Path) -> Made:
    state, encode = _overcomplete()
    return Made(_state(folder, state, name="model.pt"), lambda x: above(encode(x)), THRESHOLD)


def patchsae(folder: Path) -> Made:
    torch.save({"cfg": {"block_layer": -2}, "state_dict": NAMED}, folder / "sae.pt")
    return Made(folder / "sae.pt", lambda x: relu(centered(x)))


def discover_then_name(folder: Path) -> Made:
    tensors = {"tied_bias": B_DEC, "encoder._weight": W_ENC.T[None].contiguous(), "encoder._bias": B_ENC[None]}
    file = _state(folder, {**tensors, "decoder._weight": W_DEC.T[None].contiguous()}, name="sae.pth")
    return Made(file, lambda x: relu(centered(x)))


FORMATS: dict[str, list[Callable[[Path], Made]]] = {
    "prisma": [prisma, prisma_layer_norm_topk, prisma_gated],
    "saev": [saev_relu, saev_old, saev_topk, saev_batch_topk],
    "saelens": [saelens, saelens_not_centered, saelens_jumprelu, saelens_topk_rescaled],
    "dictionary-learning": [dictionary_learning, dictionary_learning_matryoshka, fact],
    "msae": [msae, msae_jumprelu],
    "overcomplete": [overcomplete, universal_sae, overcomplete_batch_topk],
    "patchsae": [patchsae],
    "discover-then-name": [discover_then_name],
}
"""Files by the kind that reads them; `linear` is tested by itself."""
