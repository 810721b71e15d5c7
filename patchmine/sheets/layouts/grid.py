"""The grid: one unit's patches in rank order, at one common scale."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.relevance.kept import kept
from patchmine.sheets import tiles
from patchmine.sheets.captions import add_legend
from patchmine.sheets.origin import Origin, name_text
from patchmine.sheets.page import Page, add_heading, add_title
from patchmine.sheets.style import PAGE, Style

LARGEST_TILE, NARROWEST = 200.0, 330.0
MOST = 10
"""Tiles in a row, unless the style says otherwise."""


def columns_of(patches: Sequence[object], style: Style) -> int:
    return style.columns or max(1, min(MOST, ceil(sqrt(len(patches)))))


def grid_page(unit: OpenUnit, patches: Patches, style: Style = PAGE) -> Page:
    """A page with the patches of one unit. Reads the photographs, in parallel."""
    columns = columns_of(patches, style)
    across = columns * (min(LARGEST_TILE, style.tile(columns)) + style.gap) - style.gap
    width = style.width if style.exact else max(NARROWEST, across + 2 * style.margin)
    page = Page(width, 0, style=style)
    top = head(page, unit, patches)
    y = tiles.lay(page, patches, (style.margin, top, across), columns)
    page.height = add_legend(page, y) + style.margin
    return page


def head(page: Page, unit: OpenUnit, patches: Patches, *, also: Sequence[str] = ()) -> float:
    """Add the title, what the name rests on, the facts, the texts in `also`, and warnings; returns where they end.

    A page for a paper has the name alone.
    """
    style = page.style
    if style.exact:
        add_heading(page, (style.margin, style.margin + 0.8 * style.heading, style.inner), unit.name, f"{unit.unit}")
        return style.margin + 1.25 * style.heading
    add_title(page, unit.name)
    y = style.margin + style.title + style.leading
    texts = (name_text(unit), _facts(unit, patches), *also, *_warnings(unit, patches))
    for text in filter(None, texts):
        y = page.write(text, style.margin, y, page.width - 2 * style.margin)
    return y + 4


def _facts(unit: OpenUnit, patches: Patches) -> str:
    origin = Origin.of(unit.index)
    return (
        f"unit {unit.unit} of {origin.model} · {tiles.field_text(unit, patches.cropping)} · "
        f"{patches.pick} {len(patches)} of {origin.data}"
        + (
            f", by relevance ({patches.score}) to {kept(unit.index).origin.decision}"
            if patches.by == "relevance"
            else ""
        )
    )


def _warnings(unit: OpenUnit, patches: Patches) -> list[str]:
    texts = []
    numbers = unit.statistics
    if numbers.saturated:
        texts.append(
            f"Saturated: {numbers.tied} photographs reach the maximum {numbers.maximum:.3g}, so the choice among them "
            "is arbitrary."
        )
    doubts = tiles.doubts(unit)
    if doubts is not None:
        texts.append(f"{doubts[0].upper()}{doubts[1:]}.")
    whole = [patch for patch in patches if not patch.tightened]
    if len(whole) < len(patches):
        texts.append(tiles.TIGHT_LEGEND)
    if patches.cropping.crop != "image" and any(patch.visible < 1 for patch in whole):
        texts.append(tiles.hatched([unit]))
    return texts
