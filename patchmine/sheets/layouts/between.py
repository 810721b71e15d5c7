"""Rows: the patches of one unit in each of several indexes of the same photographs, such as checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patchmine.between.comparison import Between, Fate
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenIndex
from patchmine.sheets import tiles
from patchmine.sheets.captions import COLORS, FRAME, add_legend
from patchmine.sheets.origin import Origin
from patchmine.sheets.page import Page, Rectangle, add_heading, add_title
from patchmine.sheets.style import PAGE, Style
from patchmine.units import Unit

COLUMNS = 9
"""Tiles in a row: the best patches of the unit in one index."""

_STILL = "among the best in the first index too"


def between_page(found: Sequence[Between], crop: str = "auto", share: float | None = None, style: Style = PAGE) -> Page:
    """A row for the unit in the first index, then one for each other index, and one for its partner where that is
    another unit. Each comparison is of one and the same unit.

    A frame marks the photographs that are among the unit's best in the first index, down to the rank compared.
    """
    (fate,) = found[0].fates
    first = found[0].first
    before = first.unit(fate.unit).top(found[0].k)
    best = {first.digest(patch.image_id) for patch in before}
    page = Page(style.width, 0, style=style)
    add_title(page, f"{fate.name} ({fate.unit}) in {len(found) + 1} indexes")
    facts = (
        f"The patches that drive the unit hardest, among the photographs of {Origin.of(first).source}. Overlap: "
        f"rank-biased, of the best {found[0].k} photographs. r: correlation over {found[0].shared} photographs. "
        f"{tiles.hatched([first.unit(fate.unit)])}"
    )
    y = page.write(facts, style.margin, style.margin + style.title + style.leading, style.inner)
    y = _row(page, (first, fate.unit), "", y, (crop, share), set())
    for each in found:
        (fate,) = each.fates
        if fate.unit.channel in range(each.second.layers.get(fate.unit.layer, 0)):
            y = _row(page, (each.second, fate.unit), _beside(fate), y, (crop, share), best)
        partner = fate.partner
        if partner is not None and partner.unit != fate.unit:
            beside = f"{_numbers(partner.overlap, partner.correlation)}: the unit there that correlates with it most"
            y = _row(page, (each.second, partner.unit), beside, y, (crop, share), best)
    page.height = add_legend(page, y) + style.margin
    return page


def _row(
    page: Page,
    which: tuple[OpenIndex[Any], Unit],
    beside: str,
    y: float,
    cropping: tuple[str, float | None],
    best: set[str],
) -> float:
    """Add one row under a heading; frame the photographs whose digests are in `best`. Returns where it ends."""
    index, unit = which
    style = page.style
    y += style.heading + 6
    patches: Patches = index.unit(unit).top(COLUMNS, crop=cropping[0], share=cropping[1])
    name = f"{index.directory.name} · {index.names.name(unit)}"
    add_heading(page, (style.margin, y, style.inner), name, f"{unit}{' · ' if beside else ''}{beside}")
    drawn = len(page.pictures)
    y = tiles.lay(page, patches, (style.margin, y + 5, style.inner), style.columns or COLUMNS)
    for patch, picture in zip(patches, page.pictures[drawn:], strict=True):
        if index.digest(patch.image_id) in best:
            page.frames[_STILL] = COLORS[0]
            box = (picture.x, picture.y, picture.width, picture.height)
            page.rectangles.append(Rectangle(*box, COLORS[0], FRAME))
    return y


def _beside(fate: Fate) -> str:
    return f"{_numbers(fate.overlap, fate.correlation)}: {fate.fate}"


def _numbers(overlap: float | None, correlation: float | None) -> str:
    known = {"overlap": overlap, "r": correlation}
    return ", ".join(f"{word} {round(number, 2) + 0.0:.2f}" for word, number in known.items() if number is not None)
