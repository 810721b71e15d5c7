"""`timm:NAME[.TAG]`: any network of timm, by its timm name."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from patchmine.errors import ModelError, nearest
from patchmine.models._downloads import hub
from patchmine.models._weights import fill, first_line, never_unpickling
from patchmine.networks.network import Network, weights_digest
from patchmine.photographs.placement import Preprocessing

PREFIX = "timm:"
CLAIM = "timm:.*"
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
HELP = "timm:NAME[@random]: as in timm:convnext_tiny; @random for an untrained network"


def claim(spec: str) -> bool:
    return spec.startswith(PREFIX)


def load(spec: str, weights: Path | None, pretrained: bool = True) -> Network:
    import timm

    name, _, variant = spec.removeprefix(PREFIX).partition("@")
    if variant not in ("", "random"):
        raise ModelError(f"timm weights are part of the name: write {PREFIX}{name}.TAG, not @{variant}")
    # timm also accepts hf-hub:, local-dir: and paths, and would download or read whatever they point to.
    if not _NAME.fullmatch(name) or not timm.is_model(name):
        raise ModelError(f"timm has no network {name!r}{nearest(name, timm.list_models())}")
    fetch = pretrained and weights is None and variant != "random"
    module = _build(timm, name, fetch, spec)
    lacking: tuple[str, ...] = ()
    if weights is not None:
        lacking = fill(module, weights, spec)
    module.eval().requires_grad_(False)
    config = timm.data.resolve_model_data_config(module)
    preprocessing = _preprocessing(config, spec)
    return Network(spec, module, preprocessing, weights_digest(module), None, _stages(module), lacking=lacking)


def _build(timm: Any, name: str, fetch: bool, spec: str) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]), hub() if fetch else nullcontext() as unreachable:
        torch.manual_seed(0)
        try:
            with never_unpickling():
                module: torch.nn.Module = timm.create_model(name, pretrained=fetch)
        except (OSError, RuntimeError, UnpicklingError) as error:
            if not fetch:
                raise
            raise ModelError(
                f"could not download the weights of {spec} ({unreachable or first_line(error)}): give a state dict "
                f"with --weights FILE, or use {PREFIX}{name}@random for an untrained network"
            ) from None
    return module


def _preprocessing(config: dict[str, Any], spec: str) -> Preprocessing:
    _, height, width = config["input_size"]
    share = float(config["crop_pct"])
    mode = config["crop_mode"]
    if mode not in ("center", "squash"):
        raise ModelError(f"{spec} requires the crop mode {mode!r}, which patchmine does not support")
    if mode == "squash" or height != width:
        resize: int | tuple[int, int] = (int(height / share), int(width / share))
    else:
        resize = int(height / share)  # timm truncates as well
    interpolation = config["interpolation"]
    return Preprocessing(
        resize=resize,
        crop=(height, width),
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _stages(module: torch.nn.Module) -> tuple[str, ...] | None:
    """The modules that timm's feature_info names; None if it is missing or names anything that is not a module."""
    info = getattr(module, "feature_info", None)
    entries = getattr(info, "info", info)
    if not isinstance(entries, list) or not entries:
        return None
    named = dict(module.named_modules())
    stages = tuple(entry["module"] for entry in entries if "module" in entry)
    return stages if stages and all(stage in named for stage in stages) else None
