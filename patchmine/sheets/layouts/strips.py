"""Strips: one row of patches for each of several units."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from patchmine.drawing.lettering import fitted, text_width, wrapped
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.layouts.grid import caption, caption_height
from patchmine.sheets.origin import Origin, names_text
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text, add_title
from patchmine.sheets.style import GAP, LEADING, MARGIN, SMALL, TITLE, WIDTH

HEADING = 9.5

MOST = 12
"""Tiles in a row; more would be too narrow for their captions."""


def _legend(rows: Sequence[Patches]) -> str:
    tight = [patches.cropping.crop == "tight" for patches in rows]
    hatched = "Hatched: outside the receptive field or outside the picture that the network saw."
    return " ".join(([tiles.TIGHT_LEGEND] if any(tight) else []) + ([] if all(tight) else [hatched]))


def page_of_units(units: Sequence[OpenUnit], facts: str) -> tuple[Page, float]:
    """A page headed by the number of units and, in lines, the facts and where names come from; and where that ends."""
    index = units[0].index
    page = Page(WIDTH, 0)
    title = f"{len(units)} unit{'s' if len(units) > 1 else ''} of {Origin.of(index).model}"
    add_title(page, title)
    y = MARGIN + TITLE + LEADING
    names = names_text(index, units)
    for line in wrapped(f"{facts} {names}" if names else facts, WIDTH - 2 * MARGIN, SMALL):
        page.texts.append(Text(line, MARGIN, y, SMALL, color=QUIET))
        y += LEADING
    return page, y


def strips_page(rows: Sequence[tuple[OpenUnit, Patches]], k: int) -> Page:
    """A page with a row of up to MOST patches for each unit, in the order given, or several; k is the most of a unit.

    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a sheet of strips needs at least one unit")
    units = [unit for unit, _ in rows]
    origin = Origin.of(units[0].index)
    columns = min(k, MOST)
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns
    page, y = page_of_units(
        units,
        f"The patches of {origin.photographs} photographs in {origin.source} that drive each unit hardest. "
        f"{_legend([patches for _, patches in rows])}",
    )
    for unit, patches in rows:
        y += HEADING + 4
        name = fitted(unit.name, WIDTH / 2, HEADING, bold=True)
        page.texts.append(Text(name, MARGIN, y, HEADING, bold=True))
        if unit.evidence:
            x = MARGIN + text_width(f"{name} ", HEADING, bold=True)
            page.texts.append(Text(fitted(f"· {unit.evidence}", WIDTH - MARGIN - x, SMALL), x, y, SMALL))
        y += LEADING
        detail = fitted(f"{unit.unit} · {tiles.field_text(unit, patches.cropping)}", WIDTH - 2 * MARGIN, SMALL)
        page.texts.append(Text(detail, MARGIN, y, SMALL, color=QUIET))
        y += 5
        height = width * tiles.ratio(patches, patches.cropping)
        step = height + caption_height(patches, width) + GAP
        size = (round(width * DPI / 72), round(height * DPI / 72))
        for number, (patch, image) in enumerate(
            zip(patches, tiles.images(patches, patches.cropping, size, page.missing), strict=True)
        ):
            x, top = MARGIN + number % columns * (width + GAP), y + number // columns * step
            page.pictures.append(Picture(image, x, top, width, height))
            caption(page, patch, x, top + height, width)
        y += ceil(len(patches) / columns) * step - GAP + 6
    page.height = y + MARGIN - 8
    return page
