"""Where a sheet's patches come from, and its names: evidence of classes, the network's own predictions, a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from patchmine.labels.of_index import said
from patchmine.reading.opened import OpenIndex, OpenUnit


@dataclass(frozen=True)
class Origin:
    """The network and the photographs behind a page: the model's word, the source's last name, how many there are."""

    model: str
    source: str
    photographs: int

    @classmethod
    def of(cls, index: OpenIndex[Any]) -> Origin:
        job = index.manifest["job"]
        return cls(job["model"], PurePath(job["source"]).name, len(index))


def name_text(unit: OpenUnit) -> str | None:
    """Where the name of one unit comes from; None where there is nothing to say."""
    texts = []
    if unit.unit in unit.index.names.given:
        texts.append("Named by a person.")
    if unit.label is not None:
        area = "" if unit.auroc is None else f" (AUROC {unit.auroc:.2f})"
        texts.append(f"Label “{unit.label}”{area}: {said(unit.index.labels.about)}.")
    return " ".join(texts) or None


def names_text(index: OpenIndex[Any], units: Iterable[OpenUnit]) -> str | None:
    """Where the names of several units come from; None where there is nothing to say."""
    units = list(units)
    texts = []
    if any(unit.label is not None for unit in units):
        texts.append(f"Labels: {said(index.labels.about)}.")
    given = [unit.name for unit in units if unit.unit in index.names.given]
    if given:
        texts.append(f"Named by a person: {', '.join(given)}.")
    return " ".join(texts) or None
