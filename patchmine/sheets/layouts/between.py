"""Rows: the patches of one unit in each of several indexes of the same photographs, such as checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from patchmine.between.comparison import Between, Fate
from patchmine.between.shared import best
from patchmine.fields.cropping import Cropping
from patchmine.reading.answers import counted
from patchmine.reading.opened import OpenIndex
from patchmine.sheets import tiles
from patchmine.sheets.captions import COLORS, FRAME, add_legend
from patchmine.sheets.origin import Origin
from patchmine.sheets.page import Page, Rectangle, add_heading, add_title
from patchmine.sheets.style import PAGE, Style
from patchmine.units import Unit

COLUMNS = 9
"""Tiles in a row: the best patches of the unit in one index."""


def between_page(found: Sequence[Between], crop: str = "auto", share: float | None = None, style: Style = PAGE) -> Page:
    """A row for the unit in the first index, then one for each other index, and one for its partner where that is
    another unit. Each comparison is of one and the same unit.

    A frame marks the photographs that are among the unit's best in the first index, down to the rank compared.
    """
    (fate,) = found[0].fates
    first = found[0].first
    shared = set.intersection(*({record.digest for record in index.store.records()} for index in _indexes(found)))
    framed = {first.digest(patch.image_id) for patch in best(first, fate.unit, found[0].k, shared)}
    deepest = min(found[0].k, len(shared))
    meaning = f"among the best {deepest} in the first index too"
    shown = Shown(Cropping(crop, share), shared, framed, meaning)
    page = Page(style.width, 0, style=style)
    add_title(page, f"{fate.name} ({fate.unit}) in {len(found) + 1} indexes")
    facts = (
        f"The patches that drive the unit hardest, among the {counted(len(shared), 'photograph', 'photographs')} that "
        f"{'both' if len(found) == 1 else 'all'} indexes have, of {Origin.of(first).source}. Overlap: "
        f"rank-biased, of the best {counted(deepest, 'photograph', 'photographs')}. r: correlation over all "
        "photographs that the index of the row shares with the first. "
        f"{tiles.hatched([first.unit(fate.unit)])}"
    )
    y = page.write(facts, style.margin, style.margin + style.title + style.leading, style.inner)
    y = _row(page, (first, fate.unit), "", y, replace(shown, framed=set()))
    for each in found:
        (fate,) = each.fates
        if fate.unit.channel in range(each.second.layers.get(fate.unit.layer, 0)):
            y = _row(page, (each.second, fate.unit), _beside(fate), y, shown)
        partner = fate.partner
        if partner is not None and partner.unit != fate.unit:
            beside = f"{_numbers(partner.overlap, partner.correlation)}: the unit there that correlates with it most"
            y = _row(page, (each.second, partner.unit), beside, y, shown)
    page.height = add_legend(page, y) + style.margin
    return page


@dataclass(frozen=True)
class Shown:
    """How the rows show patches: their cropping, and the digests of the photographs to show and of those to frame,
    and what a frame means."""

    cropping: Cropping
    photographs: set[str]
    framed: set[str]
    meaning: str


def _indexes(found: Sequence[Between]) -> list[OpenIndex[Any]]:
    return [found[0].first, *(each.second for each in found)]


def _row(page: Page, which: tuple[OpenIndex[Any], Unit], beside: str, y: float, shown: Shown) -> float:
    """Add one row under a heading. Returns where it ends."""
    index, unit = which
    style = page.style
    y += style.heading + 6
    patches = best(index, unit, COLUMNS, shown.photographs, shown.cropping)
    name = f"{index.directory.name} · {index.names.name(unit)}"
    add_heading(page, (style.margin, y, style.inner), name, f"{unit}{' · ' if beside else ''}{beside}")
    drawn = len(page.pictures)
    y = tiles.lay(page, patches, (style.margin, y + 5, style.inner), style.columns or COLUMNS)
    for patch, picture in zip(patches, page.pictures[drawn:], strict=True):
        if index.digest(patch.image_id) in shown.framed:
            page.frames[shown.meaning] = COLORS[0]
            box = (picture.x, picture.y, picture.width, picture.height)
            page.rectangles.append(Rectangle(*box, COLORS[0], FRAME))
    return y


def _beside(fate: Fate) -> str:
    return f"{_numbers(fate.overlap, fate.correlation)}: {fate.fate}"


def _numbers(overlap: float | None, correlation: float | None) -> str:
    known = {"overlap": overlap, "r": correlation}
    return ", ".join(f"{word} {round(number, 2) + 0.0:.2f}" for word, number in known.items() if number is not None)
