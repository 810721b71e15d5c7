"""Context: each unit's patches as whole inputs of the network, faded but for the tight crop."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from patchmine.drawing.lettering import fitted, text_width
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.reading.patch import Patch
from patchmine.sheets import tiles
from patchmine.sheets.layouts.grid import caption, caption_height
from patchmine.sheets.layouts.strips import HEADING, page_of_units
from patchmine.sheets.origin import Origin
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text
from patchmine.sheets.style import GAP, MARGIN, SMALL, WIDTH

COLUMNS = 5
"""The most tiles in a row."""


def context_page(rows: Sequence[tuple[OpenUnit, Patches]]) -> Page:
    """A page with the patches of each unit, which must show their tight crops, in the order given.

    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a sheet of contexts needs at least one unit")
    units = [unit for unit, _ in rows]
    origin = Origin.of(units[0].index)
    page, y = page_of_units(
        units,
        f"The photographs, of {origin.photographs} in {origin.source}, that drive each unit hardest, as the network "
        f"saw them. {tiles.TIGHT_LEGEND}",
    )
    for unit, patches in rows:
        y = _row(page, unit, patches, y)
    page.height = y + MARGIN - 8
    return page


def _row(page: Page, unit: OpenUnit, patches: Patches, y: float) -> float:
    """Add the unit's name and tiles below `y`; returns where they end."""
    columns = min(COLUMNS, max(len(patches), 3))
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns
    height = width * max((_ratio(patch) for patch in patches), default=1.0)
    y += HEADING + 4
    name = fitted(unit.name, WIDTH / 2, HEADING, bold=True)
    page.texts.append(Text(name, MARGIN, y, HEADING, bold=True))
    x = MARGIN + text_width(f"{name} ", HEADING, bold=True)
    beside = f"· {unit.unit}" + (f" · {unit.evidence}" if unit.evidence else "")
    page.texts.append(Text(fitted(beside, WIDTH - MARGIN - x, SMALL), x, y, SMALL, color=QUIET))
    y += 5
    step = height + caption_height(patches, width) + GAP
    size = (round(width * DPI / 72), round(height * DPI / 72))
    shown = tiles.images(patches, patches.cropping, size, page.missing, context=True)
    for number, (patch, image) in enumerate(zip(patches, shown, strict=True)):
        left, top = MARGIN + number % columns * (width + GAP), y + number // columns * step
        page.pictures.append(Picture(image, left, top, width, height))
        caption(page, patch, left, top + height, width)
    return y + ceil(len(patches) / columns) * step


def _ratio(patch: Patch) -> float:
    window = patch.context().window
    return window.height / window.width
