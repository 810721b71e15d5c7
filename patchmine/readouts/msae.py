"""MSAE: `{"model": {encoder [width, units], decoder, pre_bias, latent_bias, activation.log_threshold}, "mean_center",
"scaling_factor", "target_norm"}`.

The input is centered and scaled first: act(((x - mean_center) * scaling_factor - pre_bias) @ encoder + latent_bias).
"""

from __future__ import annotations

from typing import Any

from patchmine.readouts._check import Decoder, Directions
from patchmine.readouts._contents import Contents
from patchmine.readouts._readout import Readout

HELP = "msae: encoder, decoder, pre_bias and latent_bias, beside mean_center and scaling_factor"


def claim(contents: Contents) -> bool:
    return contents.has("encoder", "decoder", "pre_bias", "latent_bias")


def read(contents: Contents) -> Directions:
    weight, rows = contents.matrix("encoder"), contents.matrix("decoder")
    width, units = weight.shape
    scale = contents.number("scaling_factor")
    scale = 1.0 if scale is None else scale
    if scale <= 0:
        raise ValueError(f"its scaling_factor is {scale:g}")
    mean, bias = contents.vector("mean_center", width), contents.vector("pre_bias", width)
    readout = Readout(
        weight=weight,
        bias=contents.vector("latent_bias", units),
        center=mean + bias / scale,
        scale=scale,
        **_activation(contents, units),
    )
    return Directions(readout, Decoder(rows, bias, centered=True, scale=scale, shift=mean))


def _activation(contents: Contents, units: int) -> dict[str, Any]:
    if contents.has("activation.log_threshold"):
        return {"activation": "threshold", "threshold": contents.vector("activation.log_threshold", units).exp()}
    count = contents.number("k", "activation.k")
    return {"activation": "relu"} if count is None else {"activation": "topk_relu", "k": int(count)}
