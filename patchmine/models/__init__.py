"""Kinds of networks. Each module of this package without a leading `_` is one kind. It has

- `HELP`: one line that says what to type and what it gives;
- `CLAIM`, optional: a regular expression in one plain line that matches every word of this kind. It is read without
  importing the module, so that a wrong word is refused before torch is loaded;
- `check(spec)`, optional: raises ModelError for a word of this kind that names no network;
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
from patchmine.networks.session import own_settings
from patchmine.plugins import Kinds
from patchmine.store.job import Job, function_of


class Kind(Protocol):
    """The contract of a module of this package."""

    HELP: str

    def claim(self, spec: str) -> bool: ...
    def load(self, spec: str, weights: Path | None, pretrained: bool = True) -> Network: ...


kinds: Kinds[Kind] = Kinds("patchmine.models", needs=("claim", "load"))


def load(spec: str = MODEL, weights: Path | None = None, pretrained: bool = True) -> Network:
    """The network that `--model spec --weights weights` means, in eval mode on the CPU.

    Raises ModelError for an unknown model and for weights that are unavailable or do not fit.
    """
    check(spec)  # loads no torch
    with own_settings():
        return _kind_of(spec).load(spec, weights, pretrained)


def check(spec: str) -> None:
    """Refuse, before torch is loaded, a model that no kind claims, and a file that is not there. Raises ModelError."""
    getattr(_kind_of(spec), "check", lambda _: None)(spec)


def _kind_of(spec: str) -> Kind:
    """The kind that claims the spec. Raises ModelError if there is none."""
    for kind in kinds.candidates(spec):
        if kind.claim(spec):
            return kind
    examples = [MODEL, "shapes", "torchvision:resnet50", "timm:resnet18", "my_net.py:build"]
    words = [word for claim in kinds.literals("CLAIM") for word in claim.split("|") if word.isidentifier()]
    close = nearest(spec, words)
    hint = close if "did you mean" in close else f"; try {', '.join(examples)}"
    raise ModelError(f"unknown model {spec!r}{hint}")


def load_for_index(job: Job, model: str | None = None, weights: Path | None = None) -> Network:
    """The network that an index was built with, with the same preprocessing. All questions to an index load it here.

    `model` is the user's `--model`, or None. An index may come from a stranger, and so may its model spec: if the spec
    names a Python file, a file runs only if the user typed it. It may lie elsewhere than the file of the index did.

    Raises ModelError if the user did not, and for anything that `load` refuses. Raises StoreError if the network, its
    code or its weights differ from those of the index.
    """
    return load_for_job(job, word_for_index(job, model), weights)


def word_for_index(job: Job, model: str | None) -> str:
    """The word by which `load_for_index` loads the network, or the error that it raises. Loads nothing."""
    code = getattr(_kind_of(job.model), "CODE", False)
    if model is None:
        if code:
            raise ModelError(
                f"the network of this index is a Python file, which runs only if you ask for it: read the file and, "
                f"if you trust it, add --model {job.model}"
            )
        model = job.model
    if code and getattr(_kind_of(model), "CODE", False):
        if function_of(model) != function_of(job.model):
            raise StoreError(
                f"the index was built with the function {function_of(job.model)!r} of {job.model.rpartition(':')[0]}, "
                f"not with {function_of(model)!r}: add --model {model.rpartition(':')[0]}:{function_of(job.model)}"
            )
    elif model != job.model:
        raise StoreError(f"the index was built with --model {job.model}, not {model}")
    check(model)
    return model


def load_for_job(job: Job, model: str, weights: Path | None = None) -> Network:
    """The network of a job, which the user's words name, with the job's preprocessing.

    Raises ModelError for anything that `load` refuses, StoreError if its code or weights differ from those of the job.
    """
    network = load(model, weights)
    if job.code is not None and network.code != job.code:
        raise StoreError(
            f"the code of {model} or of a file that it imports is not that of the index (digest {network.code}, not "
            f"{job.code}): give the original file with --model"
        )
    if network.weights != job.weights:
        origin = f"those in {str(weights)!r}" if weights is not None else "those found here"
        raise StoreError(
            f"the index was built with other weights of {job.model} (digest {job.weights}) than {origin} "
            f"(digest {network.weights}): give the original file with --weights"
        )
    return replace(network, preprocessing=job.preprocessing)


def absolute(spec: str) -> str:
    """The word that means the same network in a process with another working directory."""
    is_path = getattr(_kind_of(spec), "CODE", False) and Path(spec.rpartition(":")[0]).is_file()
    return str(Path(spec).absolute()) if is_path else spec
