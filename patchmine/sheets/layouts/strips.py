"""Strips: one row of patches for each of several units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from patchmine.reading.opened import Cropping, IndexedUnit
from patchmine.sheets import tiles
from patchmine.sheets.layouts.grid import GAP, LEADING, MARGIN, SMALL, TITLE, WIDTH, caption
from patchmine.sheets.origin import names_text
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text, wrapped

HEADING = 9.5


def strips_page(units: Sequence[IndexedUnit], k: int, *, crop: str, share: float) -> Page:
    """A page with the top k patches of each unit, a row a unit, in the order given; `crop` as in `IndexedUnit.top`.

    Raises ValueError without units.
    """
    if not units:
        raise ValueError("a sheet of strips needs at least one unit")
    index = units[0].index
    width = (WIDTH - 2 * MARGIN - (k - 1) * GAP) / k
    page = Page(WIDTH, 0)
    job = index.manifest["job"]
    title = f"{len(units)} units of {job['model']}"
    page.texts.append(Text(title, MARGIN, MARGIN + TITLE * 0.8, TITLE, bold=True))
    y = MARGIN + TITLE + LEADING
    facts = (
        f"The patches of {len(index)} photographs in {PurePath(job['source']).name} that drive each unit hardest. "
        "Hatched: outside the receptive field or outside the picture that the network saw."
    )
    origin = names_text(index, units)
    for line in wrapped(f"{facts} {origin}" if origin else facts, WIDTH - 2 * MARGIN, SMALL):
        page.texts.append(Text(line, MARGIN, y, SMALL, colour=QUIET))
        y += LEADING
    for unit in units:
        y += HEADING + 4
        page.texts.append(Text(unit.name, MARGIN, y, HEADING, bold=True))
        cropping = Cropping(index.crop(unit.unit, crop), share)
        detail = f"{unit.unit} · {tiles.field_text(unit, cropping)}"
        page.texts.append(Text(detail, WIDTH - MARGIN, y, SMALL, colour=QUIET, right=True))
        y += 5
        patches = unit.top(k)
        height = width * tiles.ratio(unit, patches, cropping)
        size = (round(width * DPI / 72), round(height * DPI / 72))
        for number, (patch, image) in enumerate(
            zip(patches, tiles.images(unit, patches, cropping, size, page.missing), strict=True)
        ):
            x = MARGIN + number * (width + GAP)
            page.pictures.append(Picture(image, x, y, width, height))
            caption(page, patch, x, y + height, width)
        y += height + 2 * LEADING + 2
    page.height = y + MARGIN - 8
    return page
