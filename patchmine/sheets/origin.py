"""The origin of a sheet's patches and of its names: class labels, the network's own predictions, or a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from patchmine.drawing.lettering import fitted
from patchmine.labels.of_index import said
from patchmine.reading.answers import counted
from patchmine.reading.opened import OpenIndex, OpenUnit
from patchmine.sheets.page import QUIET, Page, Text


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

    @property
    def data(self) -> str:
        """`800 photographs in imagenet-sample`."""
        return f"{counted(self.photographs, 'photograph', 'photographs')} in {self.source}"


def name_text(unit: OpenUnit) -> str | None:
    """How far the name of one unit holds and where it comes from: `canine 19 of top 25 (5.8x chance), by the classes of
    the photographs.` None if there is no name and no class."""
    texts = ["Named by a person."] if unit.unit in unit.index.names.given else []
    if unit.evidence:
        origin = f", {said(unit.index.labels.about)}" if unit.label is not None else ""
        texts.append(f"{unit.evidence}{origin}.")
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


def beside_name(page: Page, unit: OpenUnit, place: tuple[float, float, float]) -> float:
    """Add how far the name of a unit holds, in a line below it; returns the last baseline.

    `place` is x and the baseline of the name, and the width for the line.
    """
    x, y, width = place
    if not unit.evidence:
        return y
    small, leading = page.style.small, page.style.leading
    page.texts.append(Text(fitted(unit.evidence, width, small), x, y + leading, small, color=QUIET))
    return y + leading
