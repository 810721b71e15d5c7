"""SAELens: `sae_weights.safetensors` with `W_enc`, `b_enc`, `W_dec`, `b_dec` (and `threshold`, or `b_gate`, `r_mag`,
`b_mag`), and `cfg.json`.

The encoder normalizes its input by `normalize_activations`, and subtracts b_dec if `apply_b_dec_to_input`. A top-k one
with `rescale_acts_by_decoder_norm` multiplies each latent by the norm of its decoder row before it ranks them.
"""

from __future__ import annotations

from dataclasses import replace

from patchmine.readouts import _sae
from patchmine.readouts._check import Directions
from patchmine.readouts._contents import Contents

HELP = "saelens: W_enc, b_enc, W_dec, b_dec with settings that name architecture or apply_b_dec_to_input (cfg.json)"

_MARKS = ("architecture", "apply_b_dec_to_input", "activation_fn_str")
_OTHERS = ("hook_point_layer", "layer_subtype", "hook_point")  # Prisma's settings descend from those of SAELens


def claim(contents: Contents) -> bool:
    ours = any(mark in contents.settings for mark in _MARKS)
    return _sae.named(contents) and ours and not any(mark in contents.settings for mark in _OTHERS)


def read(contents: Contents) -> Directions:
    centered = contents.settings.get("apply_b_dec_to_input", True) is True
    norm = _sae.norm_of(contents)
    kind = contents.word("architecture") or "standard"
    if kind == "gated":
        found = _sae.of_named(contents, centered=centered, norm=norm, activation="gated")
        return replace(found, readout=replace(found.readout, **_sae.gates(contents, found.readout.units)))
    if kind == "jumprelu":
        units = contents.matrix("W_enc").shape[1]
        # relu(z) where z is above the threshold: a negative one keeps nothing more than relu does.
        threshold = contents.vector("threshold", units).clamp(min=0)
        return _sae.of_named(contents, centered=centered, norm=norm, activation="threshold", threshold=threshold)
    if kind == "batchtopk":
        units = contents.matrix("W_enc").shape[1]
        threshold = _sae.zeros(units) + contents.above("threshold", "topk_threshold")
        return _rescaled(
            contents,
            _sae.of_named(contents, centered=centered, norm=norm, activation="threshold", threshold=threshold),
        )
    if kind == "topk" or contents.word("activation_fn_str", "activation_fn") == "topk":
        arguments = contents.settings.get("activation_fn_kwargs")
        count = contents.number("k") or (arguments.get("k") if isinstance(arguments, dict) else None)
        if count is None:
            raise ValueError("it is a top-k autoencoder, but its settings name no k")
        found = _sae.of_named(contents, centered=centered, norm=norm, activation="topk_relu", k=int(count))
        return _rescaled(contents, found)
    if kind != "standard":
        raise ValueError(f"its architecture {contents.settings['architecture']!r} is unknown")
    return _sae.of_named(contents, centered=centered, norm=norm)


def _rescaled(contents: Contents, found: Directions) -> Directions:
    """With each latent times the norm of its decoder row, where the settings say so."""
    if contents.settings.get("rescale_acts_by_decoder_norm") is not True or found.decoder is None:
        return found
    norms = found.decoder.rows.norm(dim=1)
    readout = found.readout
    return replace(found, readout=replace(readout, weight=readout.weight * norms, bias=readout.bias * norms))
