"""Linear directions: probes, class heads, CAVs. Each row is one direction; a unit is its product with the channels."""

from __future__ import annotations

from patchmine.readouts._check import Directions
from patchmine.readouts._contents import Contents
from patchmine.readouts._readout import Readout

HELP = "linear: a .npy array [units, width], or a tensor 'weight' of that shape with or without 'bias' [units]"

_BESIDE = {"weight", "bias"}


def claim(contents: Contents) -> bool:
    return contents.array or (contents.has("weight") and contents.tensors.keys() <= _BESIDE and not contents.header)


def read(contents: Contents) -> Directions:
    weight = contents.tensor("weight")
    weight = weight[None] if weight.ndim == 1 else weight
    if weight.ndim != 2:
        raise ValueError(f"its array has shape {list(weight.shape)}, not [units, width]")
    bias = contents.vector("bias", len(weight))
    return Directions(Readout(weight=weight.T.contiguous(), bias=bias))
