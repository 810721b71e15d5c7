"""Where the names on a sheet come from, in words: evidence of classes, the network's own predictions, or a person."""

from __future__ import annotations

from collections.abc import Iterable

from patchmine.labels.of_index import said
from patchmine.reading.opened import Index, IndexedUnit


def name_text(unit: IndexedUnit) -> str | None:
    """Of the name of one unit; None where it says nothing."""
    texts = []
    if unit.unit in unit.index.names.given:
        texts.append("Named by a person.")
    if unit.label is not None:
        area = "" if unit.auroc is None else f" (AUROC {unit.auroc:.2f})"
        texts.append(f"Label “{unit.label}”{area}: {said(unit.index.labels.about)}.")
    return " ".join(texts) or None


def names_text(index: Index, units: Iterable[IndexedUnit]) -> str | None:
    """Of the names of several units; None where none of them says anything."""
    units = list(units)
    texts = []
    if any(unit.label is not None for unit in units):
        texts.append(f"Labels: {said(index.labels.about)}.")
    given = [unit.name for unit in units if unit.unit in index.names.given]
    if given:
        texts.append(f"Named by a person: {', '.join(given)}.")
    return " ".join(texts) or None
