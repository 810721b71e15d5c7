"""The origin of a sheet's patches and of its names: class labels, the network's own predictions, or a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from patchmine.labels.of_index import said
from patchmine.reading.opened import OpenIndex, OpenUnit


@dataclass(frozen=True)
class Origin:
    """The model's name, the last part of the source's path, and the number of photographs."""

    model: str
    source: str
    photographs: int

    @classmethod
    def of(cls, index: OpenIndex[Any]) -> Origin:
        job = index.manifest["job"]
        return cls(job["model"], PurePath(job["source"]).name, len(index))


def name_text(unit: OpenUnit) -> str | None:
    """The origin of the name of one unit; None if it has neither a label nor a given name."""
    texts = []
    if unit.unit in unit.index.names.given:
        texts.append("Named by a person.")
    if unit.label is not None:
        area = "" if unit.auroc is None else f" (AUROC {unit.auroc:.2f})"
        texts.append(f"Label “{unit.label}”{area}: {said(unit.index.labels.about)}.")
    return " ".join(texts) or None


def names_text(index: OpenIndex[Any], units: Iterable[OpenUnit]) -> str | None:
    """The origin of the names of several units; None if none has a label or a given name."""
    units = list(units)
    texts = []
    if any(unit.label is not None for unit in units):
        texts.append(f"Labels: {said(index.labels.about)}.")
    given = [unit.name for unit in units if unit.unit in index.names.given]
    if given:
        texts.append(f"Named by a person: {', '.join(given)}.")
    return " ".join(texts) or None
