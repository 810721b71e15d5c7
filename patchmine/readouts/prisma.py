"""Prisma (ViT-Prisma): `W_enc` [width, units], `b_enc`, `W_dec`, `b_dec`; b_dec is subtracted, after a normalization.

A gated one has `b_gate`, `r_mag` and `b_mag`.
"""

from __future__ import annotations

from dataclasses import replace

from patchmine.readouts import _sae
from patchmine.readouts._check import Directions
from patchmine.readouts._contents import Contents

HELP = "prisma: W_enc, b_enc, W_dec, b_dec with settings that name hook_point_layer or layer_subtype (config.json)"

_MARKS = ("hook_point_layer", "layer_subtype", "hook_point")


def claim(contents: Contents) -> bool:
    return _sae.named(contents) and any(mark in contents.settings for mark in _MARKS)


def read(contents: Contents) -> Directions:
    norm = _sae.norm_of(contents)
    word = contents.word("activation_fn_str", "activation_fn", "activation")
    if contents.has("b_gate"):
        found = _sae.of_named(contents, centered=True, norm=norm, activation="gated")
        return replace(found, readout=replace(found.readout, **_sae.gates(contents, found.readout.units)))
    if word == "topk":
        count = contents.number("k", "top_k") or _of_arguments(contents)
        if count is None:
            raise ValueError("its activation is top-k, but its settings name no k")
        return _sae.of_named(contents, centered=True, norm=norm, activation="topk_relu", k=int(count))
    if word not in ("", "relu"):
        raise ValueError(f"its activation {word!r} is unknown: relu and topk are known")
    return _sae.of_named(contents, centered=True, norm=norm)


def _of_arguments(contents: Contents) -> float | None:
    arguments = contents.settings.get("activation_fn_kwargs")
    return arguments.get("k") if isinstance(arguments, dict) else None
