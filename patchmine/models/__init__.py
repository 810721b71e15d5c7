"""Kinds of networks. A module in this folder is a kind: it has

- `HELP`: one line, what to type and what one gets;
- `claim(spec) -> bool`: whether `--model spec` means this kind;
- `load(spec, weights, pretrained) -> Network`: the network in eval mode. `weights` is a file given by the user or
  None; without `pretrained` the geometry alone is wanted, and nothing may be fetched.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from patchmine.errors import ModelError, nearest
from patchmine.network import Network
from patchmine.request import MODEL


def kinds() -> dict[str, ModuleType]:
    """Every kind in this folder, by the name of its file."""
    return {found.name: import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)}


def load(spec: str = MODEL, weights: Path | None = None, pretrained: bool = True) -> Network:
    """The network that `--model spec --weights weights` means, in eval mode on the CPU.

    Raises ModelError for an unknown model and for weights that cannot be had or do not fit.
    """
    found = kinds()
    for kind in found.values():
        if kind.claim(spec):
            network: Network = kind.load(spec, weights, pretrained)
            return network
    examples = [MODEL, "shapes", "torchvision:resnet50", "timm:resnet18", "my_net.py:build"]
    close = nearest(spec, [spec_for for kind in found.values() for spec_for in getattr(kind, "NAMES", ())])
    hint = close if "did you mean" in close else f"; try {', '.join(examples)}"
    raise ModelError(f"there is no model {spec!r}{hint}")
