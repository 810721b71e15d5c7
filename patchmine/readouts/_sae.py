"""What the formats of sparse autoencoders have in common: the tensors W_enc, b_enc, W_dec and b_dec."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchmine.readouts._check import Decoder, Directions
from patchmine.readouts._contents import Contents
from patchmine.readouts._readout import Norm, Readout

_NORMS: dict[str, Norm] = {
    "": "none",
    "none": "none",
    "layernorm": "layer_norm",
    "constantnormrescale": "constant_norm",
}


def named(contents: Contents) -> bool:
    """Whether a file has the tensors by these names."""
    return contents.has("W_enc", "W_dec") and not contents.header


def of_named(contents: Contents, *, centered: bool, norm: Norm = "none", **activation: Any) -> Directions:
    """W_enc (width, units), b_enc, W_dec (units, width) and b_dec, which is subtracted first where `centered`.

    `activation` are the further fields of the readout; without any it is a ReLU.
    """
    weight, rows = contents.matrix("W_enc"), contents.matrix("W_dec")
    bias = contents.vector("b_dec", len(weight))
    encoder_bias = contents.vector("b_enc", weight.shape[1])
    readout = Readout(
        weight=weight,
        bias=encoder_bias,
        center=bias if centered else None,
        norm=norm,
        **({"activation": "relu"} | activation),
    )
    return Directions(readout, Decoder(rows, bias, centered, norm=norm))


def norm_of(contents: Contents) -> Norm:
    """The `normalize_activations` of Prisma and SAELens. Raises ValueError for one that is not in the file."""
    word = contents.word("normalize_activations")
    if word == "expectedaverageonlyin":
        raise ValueError(
            "its normalize_activations is expected_average_only_in, whose factor is not in the file: fold it into the "
            "weights first (fold_activation_norm_scaling_factor of SAELens)"
        )
    if word not in _NORMS:
        raise ValueError(f"its normalize_activations {contents.settings['normalize_activations']!r} is unknown")
    return _NORMS[word]


def gates(contents: Contents, units: int) -> dict[str, Any]:
    """The fields of a gated readout, whose bias is b_gate: relu(x W e^r_mag + b_mag) where x W + b_gate is above 0."""
    gain = contents.vector("r_mag", units).exp()
    gate, magnitude = contents.vector("b_gate", units), contents.vector("b_mag", units)
    return {"bias": gate, "gain": gain, "offset": magnitude - gate * gain}


def zeros(width: int) -> Tensor:
    return torch.zeros(width)
