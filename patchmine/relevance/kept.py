"""The relevance that an index keeps: what `top --by relevance` ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.errors import StoreError
from patchmine.ranking import Float32
from patchmine.relevance import table
from patchmine.relevance.table import Relevances
from patchmine.store.reading import Store
from patchmine.units import Unit


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


def relevance(index: Keeping) -> list[dict[str, Any]]:
    """The layers as `info --json` lists them; none without relevance."""
    found = _read(index)
    return [] if found is None else [figures.as_dict() for figures in found.layers]


def described(index: Keeping) -> list[str]:
    """What relevance the index keeps, in lines; none without."""
    found = _read(index)
    return [] if found is None else table.lines(found.origin, found.layers)


def _read(index: Keeping) -> Relevances | None:
    return table.read(index.directory, index.store.manifest["job_digest"], index.store.images)


def _command(index: Keeping) -> str:
    """The command that adds relevance."""
    job = index.store.manifest["job"]
    model = "" if job["model"] == defaults.MODEL else f" --model {job['model']}"
    return f"patchmine index {job['source']} -o {index.name}{model} --relevance"


def kept(index: Keeping) -> Relevances:
    """Raises StoreError, with the command that adds it, where the index keeps no relevance."""
    found = _read(index)
    if found is None:
        raise StoreError(
            f"{index.name} has no relevance; add it, without computing the activations again, with the command that "
            f"built the index and --relevance: {_command(index)}"
        )
    return found


def column(index: Keeping, unit: Unit, by: str, score: str) -> tuple[Float32, NDArray[np.integer]] | None:
    """The score of a unit's relevance in every photograph, with the place of its maximum; None `by` activation.

    Raises RequestError for an unknown word, StoreError where the index keeps no relevance of this layer.
    """
    defaults.check({"by": by, "score": score})
    if by == "activation":
        return None
    found = kept(index)
    figures = next((figures for figures in found.layers if figures.layer == unit.layer), None)
    if figures is None or figures.refused is not None:
        why = f": {figures.text}; {figures.refused}" if figures is not None else ", through which none passes"
        raise StoreError(f"{index.name} has no relevance of {unit.layer}{why}; choose a unit of another layer")
    return found.column(unit.layer, unit.channel, index.layers[unit.layer], score)
