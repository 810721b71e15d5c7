"""`path/to/file.py:function`: a network of the user's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

from patchmine.errors import ModelError, nearest
from patchmine.models._plain import initialize, plain
from patchmine.models._weights import fill
from patchmine.networks.network import Network, weights_digest
from patchmine.photographs.placement import Preprocessing

CODE = True
HELP = "path/to/file.py:function: your own network; the function returns a torch module or (module, Preprocessing)"

PREPROCESSING = Preprocessing(
    resize=256,
    crop=(224, 224),
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""Used if the function returns no Preprocessing: the one that most ImageNet networks were trained with."""


def claim(spec: str) -> bool:
    return ".py:" in spec or spec.endswith(".py")


def load(spec: str, weights: Path | None, pretrained: bool = True) -> Network:  # noqa: ARG001
    path, colon, function = spec.rpartition(":")
    if not colon:
        raise ModelError(f"{spec!r} names a file but no function in it: write {spec}:build")
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"model file {path!r} not found")
    loader = importlib.util.spec_from_file_location(f"patchmine_model_{file.stem}", file)
    assert loader is not None and loader.loader is not None
    code = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(code)
    made = getattr(code, function, None)
    if not callable(made):
        functions = [name for name, value in vars(code).items() if callable(value) and not name.startswith("_")]
        raise ModelError(f"{path!r} has no function {function!r}{nearest(function, functions)}")
    built = made if isinstance(made, nn.Module) else made()
    returned, preprocessing = built if isinstance(built, tuple) and len(built) == 2 else (built, PREPROCESSING)
    module = plain(returned, spec)
    if not isinstance(preprocessing, Preprocessing):
        raise ModelError(
            f"{spec} must return a torch module or a tuple (module, Preprocessing) with patchmine's Preprocessing, "
            f"not a {type(preprocessing).__name__}"
        )
    initialize(module, torch.zeros(1, 3, *preprocessing.crop))
    lacking: tuple[str, ...] = ()
    if weights is not None:
        lacking = fill(module, weights, spec)
    return Network(spec, module, preprocessing, weights_digest(module), own_code=True, lacking=lacking)
