"""saev: one line of JSON, then a torch state dict: `W_enc` [width, units], `b_enc`, `W_dec`, `b_dec`.

The encoder does not subtract b_dec. A top-k one keeps negative latents; a batch-top-k one keeps what is above
`activation.threshold`. Files without a `schema` are older, and have a ReLU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from patchmine.readouts import _sae
from patchmine.readouts._check import Directions
from patchmine.readouts._contents import Contents

HELP = "saev: a first line of JSON, such as {schema, cfg}, then a torch state dict with W_enc, b_enc, W_dec, b_dec"


def claim(contents: Contents) -> bool:
    return bool(contents.header)


def read(contents: Contents) -> Directions:
    plain = replace(contents, header={})
    if "schema" not in contents.header:
        return _sae.of_named(plain, centered=False)
    cfg = contents.header.get("cfg")
    word, arguments = _activation(cfg.get("activation") if isinstance(cfg, dict) else None)
    units = plain.matrix("W_enc").shape[1]
    if word == "topk":
        count = arguments.get("top_k", arguments.get("k"))
        if not isinstance(count, int):
            raise ValueError("its activation is top-k, but its first line names no top_k")
        return _sae.of_named(plain, centered=False, activation="topk", k=count)
    if word == "batchtopk":
        threshold = _sae.zeros(units) + plain.above("activation.threshold", "threshold")
        return _sae.of_named(plain, centered=False, activation="threshold", threshold=threshold)
    if word not in ("", "relu"):
        raise ValueError(f"its activation {word!r} is unknown: relu, topk and batchtopk are known")
    return _sae.of_named(plain, centered=False)


def _activation(described: Any) -> tuple[str, dict[str, Any]]:
    """The name of the activation and its arguments: a word, or an object that names its class or its key."""
    if isinstance(described, str):
        return "".join(filter(str.isalnum, described.lower())), {}
    if not isinstance(described, dict):
        return "", {}
    name = next((described[key] for key in ("key", "cls", "kind", "name") if isinstance(described.get(key), str)), "")
    inner = described.get("params")
    arguments = described | inner if isinstance(inner, dict) else described
    word = "".join(filter(str.isalnum, name.lower()))
    return word or ("topk" if "top_k" in arguments else ""), arguments
