"""Kinds of networks. A module in this folder is a kind: it has

- `HELP`: one line, what to type and what one gets;
- `CODE`, where it is true: that loading runs code which the spec names, so that it has to be the user's own word;
- `claim(spec) -> bool`: whether `--model spec` means this kind;
- `load(spec, weights, pretrained) -> Network`: the network in eval mode. `weights` is a file given by the user or
  None; without `pretrained` the geometry alone is wanted, and nothing may be fetched.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from patchmine.defaults import MODEL
from patchmine.errors import ModelError, StoreError, nearest
from patchmine.networks.network import Network
from patchmine.store.job import Job


def kinds() -> dict[str, ModuleType]:
    """Every kind in this folder, by the name of its file."""
    names = [found.name for found in iter_modules(__path__) if found.name[0] != "_"]
    return {name: import_module(f"{__name__}.{name}") for name in names}


def load(spec: str = MODEL, weights: Path | None = None, pretrained: bool = True) -> Network:
    """The network that `--model spec --weights weights` means, in eval mode on the CPU.

    Raises ModelError for an unknown model and for weights that cannot be had or do not fit.
    """
    kind = _kind_of(spec)
    if kind is not None:
        network: Network = kind.load(spec, weights, pretrained)
        return network
    examples = [MODEL, "shapes", "torchvision:resnet50", "timm:resnet18", "my_net.py:build"]
    close = nearest(spec, [spec_for for kind in kinds().values() for spec_for in getattr(kind, "NAMES", ())])
    hint = close if "did you mean" in close else f"; try {', '.join(examples)}"
    raise ModelError(f"there is no model {spec!r}{hint}")


def load_for_index(job: Job, model: str | None = None, weights: Path | None = None) -> Network:
    """The network that an index was built with, prepared as it was then: the way for everything that asks an index.

    `model` is what the user typed, if anything. An index may come from anybody, and so may the word that it names its
    network by: where that is a file of code, it is run only when the user has typed it too. Raises ModelError for this
    and for what `load` refuses, StoreError when the network or its weights are not those of the index.
    """
    if model is not None and model != job.model:
        raise StoreError(f"the index was built with --model {job.model}, and not with {model}")
    kind = _kind_of(job.model)
    if model is None and getattr(kind, "CODE", False):
        raise ModelError(
            f"the index names a file of code as its network, which is run only if you say so: read it, "
            f"and if you trust it add --model {job.model}"
        )
    network = load(job.model, weights)
    if network.weights != job.weights:
        origin = f"those in {str(weights)!r}" if weights is not None else "what that means here"
        raise StoreError(
            f"the index was built with other weights of {job.model}: theirs have the digest {job.weights}, and "
            f"{origin} {network.weights}; give the file it was built with by --weights"
        )
    return replace(network, preprocessing=job.preprocessing)


def _kind_of(spec: str) -> ModuleType | None:
    return next((kind for kind in kinds().values() if kind.claim(spec)), None)
