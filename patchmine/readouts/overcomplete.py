"""overcomplete and UniversalSAE: `encoder.final_block.0` (Linear), `encoder.final_block.1` (BatchNorm), then a ReLU;
`dictionary._weights` [units, width] and `dictionary.multiplier`.

The batch norm is folded with its running statistics. The state dict does not say how the code is made sparse: a JSON
file beside it does (`k`, `threshold` or `"activation": "relu"`), or `--threshold`. There may also be the scalar `mean`
and `std` of UniversalSAE: x becomes (x - mean) / (std + 1e-5).
"""

from __future__ import annotations

from typing import Any

import torch

from patchmine.readouts import _sae
from patchmine.readouts._check import Decoder, Directions
from patchmine.readouts._contents import Contents
from patchmine.readouts._readout import Readout

HELP = "overcomplete: encoder.final_block.0.weight and dictionary._weights, with k, threshold, mean, std in config.json"

_LINEAR, _NORM = "encoder.final_block.0.", "encoder.final_block.1."
_EPSILON = 1e-5  # of a batch norm, and of UniversalSAE's scaling


def claim(contents: Contents) -> bool:
    return contents.has(f"{_LINEAR}weight", "dictionary._weights")


def read(contents: Contents) -> Directions:
    weight = contents.matrix(f"{_LINEAR}weight").double()
    units, width = weight.shape
    bias = contents.vector(f"{_LINEAR}bias", units).double()
    if contents.has(f"{_NORM}running_var"):
        factor = (contents.vector(f"{_NORM}running_var", units).double() + _EPSILON).rsqrt()
        if contents.has(f"{_NORM}weight"):
            factor = factor * contents.vector(f"{_NORM}weight", units)
        bias = (bias - contents.vector(f"{_NORM}running_mean", units)) * factor
        bias = bias + contents.vector(f"{_NORM}bias", units)
        weight = weight * factor[:, None]
    mean, std = contents.number("mean"), contents.number("std")
    scale = 1.0 if std is None else 1 / (std + _EPSILON)
    center = None if mean is None else torch.full((width,), mean)
    readout = Readout(
        weight=weight.T.float().contiguous(),
        bias=bias.float(),
        center=center,
        scale=scale,
        **_activation(contents, units),
    )
    multiplier = contents.tensor("dictionary.multiplier") if contents.has("dictionary.multiplier") else torch.zeros(())
    rows = contents.matrix("dictionary._weights") * multiplier.exp()
    shift = 0.0 if mean is None else mean
    return Directions(readout, Decoder(rows, _sae.zeros(width), centered=False, scale=scale, shift=shift))


def _activation(contents: Contents, units: int) -> dict[str, Any]:
    count = contents.number("k", "top_k", "nb_active")
    above = contents.number("threshold", "running_threshold")
    if above is None and count is None and contents.word("activation") == "relu":
        return {"activation": "relu"}
    if above is None and count is not None and contents.threshold is None:
        return {"activation": "topk_relu", "k": int(count)}
    above = contents.threshold if above is None else above
    if above is None:
        raise ValueError(
            "it does not say how its code is made sparse: give --threshold T, or write config.json beside it with "
            '"k": K or "activation": "relu"'
        )
    return {"activation": "threshold", "threshold": torch.full((units,), max(above, 0.0))}
