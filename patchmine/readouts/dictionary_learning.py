"""dictionary_learning (sae-for-vlm, FaCT): `ae.pt`, a state dict, with `config.json`.

- vanilla: `encoder.weight` [units, width], `encoder.bias`, `decoder.weight` [width, units], and `bias`, the center;
- top-k, batch-top-k: the same with `b_dec`, `k` and `threshold`; or `W_enc` [width, units], `b_enc`, `W_dec`, `b_dec`
  (Matryoshka, with `group_sizes`).

relu((x - center) W + b), then the k highest of a top-k one, or what is above the threshold. FaCT has no biases.
"""

from __future__ import annotations

from typing import Any

from patchmine.readouts import _sae
from patchmine.readouts._check import Decoder, Directions
from patchmine.readouts._contents import Contents
from patchmine.readouts._readout import Readout

HELP = "dictionary-learning: encoder.weight and decoder.weight, or W_enc and W_dec with k and threshold (ae.pt)"


def claim(contents: Contents) -> bool:
    if contents.has("encoder.weight", "decoder.weight"):
        return True
    return (
        _sae.named(contents) and contents.has("k") and ("threshold" in contents.tensors or contents.has("group_sizes"))
    )


def read(contents: Contents) -> Directions:
    if not contents.has("encoder.weight"):
        units = contents.matrix("W_enc").shape[1]
        return _sae.of_named(contents, centered=True, **_activation(contents, units))
    weight, decoder = contents.matrix("encoder.weight"), contents.matrix("decoder.weight")
    units, width = weight.shape
    center = contents.vector("bias" if contents.has("bias") else "b_dec", width)
    readout = Readout(
        weight=weight.T.contiguous(),
        bias=contents.vector("encoder.bias", units),
        center=center,
        **_activation(contents, units),
    )
    return Directions(readout, Decoder(decoder.T.contiguous(), center, centered=True))


def _activation(contents: Contents, units: int) -> dict[str, Any]:
    trainer = contents.settings.get("trainer")
    named = trainer.get("dict_class", "") if isinstance(trainer, dict) else ""
    if "batch" in str(named).lower() or contents.has("group_sizes") or (contents.has("k", "threshold") and not named):
        return {"activation": "threshold", "threshold": _sae.zeros(units) + contents.above("threshold")}
    count = contents.number("k") or (trainer.get("k") if isinstance(trainer, dict) else None)
    return {"activation": "relu"} if count is None else {"activation": "topk_relu", "k": int(count)}
