"""The relevance that an index keeps: what `top --by relevance` ranks."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.errors import ModelError, PatchmineError, RequestError, StoreError, UnreadableError
from patchmine.ranking import Float32
from patchmine.relevance import table
from patchmine.relevance.table import Relevances
from patchmine.store.reading import Store
from patchmine.units import Unit

if TYPE_CHECKING:
    from patchmine.networks.network import Network


_UNKNOWN = "--layers, --directions, --weights, --labels and --limit"
"""Options that an index does not remember as they were given."""


class Keeping(Protocol):
    """An opened index, as far as its relevance needs it."""

    @property
    def name(self) -> str: ...
    @property
    def directory(self) -> Path: ...
    @property
    def store(self) -> Store: ...
    @property
    def layers(self) -> dict[str, int]: ...

    def network(self) -> Network: ...


def relevance(index: Keeping) -> list[dict[str, Any]]:
    """The layers as `info --json` lists them; none without relevance that can be used."""
    try:
        found = _read(index)
    except UnreadableError:
        raise
    except StoreError:
        return []
    return [] if found is None else [figures.as_dict() for figures in found.layers]


def described(index: Keeping) -> list[str]:
    """What relevance the index keeps, in lines; none without."""
    try:
        found = _read(index)
    except UnreadableError:
        raise
    except StoreError as error:
        return [f"relevance: {error}"]
    return [] if found is None else table.lines(found.origin, found.layers)


def _read(index: Keeping) -> Relevances | None:
    with _mended(index):
        return table.read(index.directory, index.store.manifest["job_digest"], index.store.images)


@contextmanager
def _mended(index: Keeping) -> Iterator[None]:
    """Tell, of a damaged file, what computes it again."""
    try:
        yield
    except UnreadableError:
        raise
    except StoreError as error:
        reason = str(error).partition("; build the index again")[0]
        raise StoreError(f"{reason}; compute it again: {mending(index)}") from None


def mending(index: Keeping) -> str:
    """The command that adds relevance."""
    job, usual = index.store.manifest["job"], defaults.Wanted()
    words = ["patchmine", "index", job["source"], "-o", str(index.directory)]
    for name in ("model", "keep", "shard_size", "precision", "field"):
        if job[name] != getattr(usual, name):
            words += [f"--{name.replace('_', '-')}", str(job[name])]
    if job["preprocessing"].get("view", usual.view) != usual.view:
        words += ["--view", job["preprocessing"]["view"]]
    if not job["table"]:
        words.append("--no-table")
    return f"{shlex.join(words)} --relevance, with the {_UNKNOWN} that built it"


def kept(index: Keeping) -> Relevances:
    """Raises StoreError, with the command that adds it or why none can be, where the index keeps no relevance."""
    found = _read(index)
    if found is None:
        raise StoreError(f"{index.name} has no relevance{_what_then(index)}")
    return found


def _what_then(index: Keeping) -> str:
    """How to add relevance, or why the network has none, as the end of a sentence."""
    add = f"add it, without computing the activations again: {mending(index)}"
    if index.store.manifest["job"].get("code") is None:
        return f"; {add}"
    try:
        network = index.network()
    except PatchmineError:  # the user has not named the file here, so that it must not run
        return f". It needs a network that returns one number for each class; if yours does, {add}"
    import torch

    from patchmine.relevance.propagation import classes_of

    try:
        with torch.inference_mode():
            classes_of(network, network.module(network.blank()))
    except ModelError as error:
        return f", and none can be computed: {error}"
    return f"; {add}"


def column(index: Keeping, unit: Unit, by: str, score: str) -> tuple[Float32, NDArray[np.integer]] | None:
    """The score of a unit's relevance in every photograph, with the place of its maximum; None `by` activation.

    Raises RequestError for an unknown word, or a score of relevance `by` activation, StoreError where the index keeps
    no relevance of this layer.
    """
    defaults.check({"by": by, "score": score})
    if by == "activation":
        if score != defaults.SCORES[0]:
            raise RequestError(f"--score {score} ranks by relevance: add --by relevance")
        return None
    found = kept(index)
    figures = next((figures for figures in found.layers if figures.layer == unit.layer), None)
    if figures is None or figures.refused is not None:
        why = f": {figures.text}; {figures.refused}" if figures is not None else ", through which none passes"
        raise StoreError(f"{index.name} has no relevance of {unit.layer}{why}; choose a unit of another layer")
    with _mended(index):
        return found.column(unit.layer, unit.channel, index.layers[unit.layer], score)
