"""`torchvision:NAME[@WEIGHTS]`: any classification network of torchvision."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import torch

from patchmine.errors import ModelError, nearest
from patchmine.models._downloads import unreachable
from patchmine.models._weights import fill, first_line, never_unpickling
from patchmine.networks.network import Network, weights_digest
from patchmine.photographs.placement import Preprocessing

PREFIX = "torchvision:"
CLAIM = "torchvision:.*"
HELP = "torchvision:NAME[@WEIGHTS]: as in torchvision:resnet50@IMAGENET1K_V2; @random for an untrained network"


def claim(spec: str) -> bool:
    return spec.startswith(PREFIX)


def load(spec: str, weights: Path | None, pretrained: bool = True) -> Network:
    from torchvision import models

    name, _, variant = spec.removeprefix(PREFIX).partition("@")
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classification network {name!r}{nearest(name, known)}")
    variants = models.get_model_weights(name)
    offered: dict[str, Any] = {entry.name: entry for entry in variants}
    offered["DEFAULT"] = variants.DEFAULT
    if variant and variant != "random" and variant not in offered:
        raise ModelError(f"torchvision has no weights {variant!r} for {name}{nearest(variant, [*offered, 'random'])}")
    entry = offered["DEFAULT" if variant in ("", "random") else variant]
    wanted = pretrained and weights is None and variant != "random"
    module = _build(models, name, entry if wanted else None, spec)
    lacking: tuple[str, ...] = ()
    if weights is not None:
        lacking = fill(module, weights, spec)
    module.eval().requires_grad_(False)
    names = tuple(entry.meta["categories"]) if wanted or (weights is not None and not lacking) else None
    return Network(spec, module, _preprocessing(entry.transforms()), weights_digest(module), names, lacking=lacking)


def _build(models: Any, name: str, entry: Any, spec: str) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # so that an untrained network is the same every time
        try:
            # Inception and GoogLeNet would otherwise grow training-time heads; no other network takes the argument.
            extra = {"init_weights": True} if entry is None and name in ("googlenet", "inception_v3") else {}
            if entry is not None:
                _check_reachable(entry.url)
            with never_unpickling():
                module: torch.nn.Module = models.get_model(name, weights=entry, **extra)
        except (URLError, OSError, UnpicklingError) as error:
            raise ModelError(
                f"could not download the weights of {spec} ({first_line(error)}): give a state dict with "
                f"--weights FILE, or use {PREFIX}{name}@random for an untrained network"
            ) from None
    return module


def _check_reachable(url: str) -> None:
    """Raises OSError if the weights are neither in torch's cache nor within reach."""
    cached = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlsplit(url).path).name)
    why = None if cached.is_file() else unreachable(url)
    if why is not None:
        raise OSError(why)


def _preprocessing(transforms: Any) -> Preprocessing:
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    return Preprocessing(
        resize=resize,
        crop=(crop, crop),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
