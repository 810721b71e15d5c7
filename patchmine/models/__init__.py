"""Kinds of networks. Each module of this package without a leading `_` is one kind. It has

- `HELP`: one line that says what to type and what it gives;
- `CODE = True` if loading runs code that the spec names, so that the user must type the spec;
- `claim(spec) -> bool`: whether `--model spec` means this kind;
- `load(spec, weights, pretrained) -> Network`: the network in eval mode. `weights` is a file given by the user, or
  None. With `pretrained=False` only the architecture matters, and `load` must not download anything.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from patchmine.defaults import MODEL
from patchmine.errors import ModelError, StoreError, nearest
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.plugins import Kinds
from patchmine.store.job import Job


class Kind(Protocol):
    """The contract of a module of this package."""

    HELP: str

    def claim(self, spec: str) -> bool: ...
    def load(self, spec: str, weights: Path | None, pretrained: bool = True) -> Network: ...


kinds: Kinds[Kind] = Kinds("patchmine.models", needs=("claim", "load"))


@with_own_settings
def load(spec: str = MODEL, weights: Path | None = None, pretrained: bool = True) -> Network:
    """The network that `--model spec --weights weights` means, in eval mode on the CPU.

    Raises ModelError for an unknown model and for weights that are unavailable or do not fit.
    """
    kind = _kind_of(spec)
    if kind is not None:
        return kind.load(spec, weights, pretrained)
    examples = [MODEL, "shapes", "torchvision:resnet50", "timm:resnet18", "my_net.py:build"]
    close = nearest(spec, [spec_for for kind in kinds for spec_for in getattr(kind, "NAMES", ())])
    hint = close if "did you mean" in close else f"; try {', '.join(examples)}"
    raise ModelError(f"unknown model {spec!r}{hint}")


@with_own_settings
def load_for_index(job: Job, model: str | None = None, weights: Path | None = None) -> Network:
    """The network that an index was built with, with the same preprocessing. All questions to an index load it here.

    `model` is the user's `--model`, or None. An index may come from a stranger, and so may its model spec: if the spec
    names a Python file, the file runs only if the user typed the same spec.

    Raises ModelError if the user did not, and for anything that `load` refuses. Raises StoreError if the network or
    its weights differ from those of the index.
    """
    if model is not None and model != job.model:
        raise StoreError(f"the index was built with --model {job.model}, not {model}")
    kind = _kind_of(job.model)
    if model is None and getattr(kind, "CODE", False):
        raise ModelError(
            f"the network of this index is a Python file, which runs only if you ask for it: read the file and, "
            f"if you trust it, add --model {job.model}"
        )
    network = load(job.model, weights)
    if network.weights != job.weights:
        origin = f"those in {str(weights)!r}" if weights is not None else "those found here"
        raise StoreError(
            f"the index was built with other weights of {job.model} (digest {job.weights}) than {origin} "
            f"(digest {network.weights}): give the original file with --weights"
        )
    return replace(network, preprocessing=job.preprocessing)


def _kind_of(spec: str) -> Kind | None:
    return next((kind for kind in kinds if kind.claim(spec)), None)
