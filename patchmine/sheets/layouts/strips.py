"""Strips: one row of patches for each of several units, with a synthetic image at the left where there is one."""

from __future__ import annotations

from collections.abc import Sequence

from PIL.Image import Image

from patchmine.drawing.lettering import fitted
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.captions import BELOW, add_legend
from patchmine.sheets.origin import Origin, names_text
from patchmine.sheets.page import Page, Picture, Text, add_heading, add_title
from patchmine.sheets.style import PAGE, Style

MOST = 12
"""Tiles in a row, unless the style says otherwise; more would be too narrow for their captions."""


def legend(rows: Sequence[tuple[OpenUnit, Patches]]) -> str:
    """What is faded and what is hatched on the tiles of these units."""
    tight = [patch.tightened for _, patches in rows for patch in patches]
    hatched = [] if tight and all(tight) else [tiles.hatched(unit for unit, _ in rows)]
    return " ".join(([tiles.TIGHT_LEGEND] if any(tight) else []) + hatched)


def page_of_units(units: Sequence[OpenUnit], facts: str, style: Style = PAGE) -> tuple[Page, float]:
    """A page headed by the number of units and, in lines, the facts and where names come from; and where that ends.

    A page for a paper has no such head.
    """
    index = units[0].index
    page = Page(style.width, 0, style=style)
    if style.exact:
        return page, style.margin
    add_title(page, f"{len(units)} unit{'s' if len(units) > 1 else ''} of {Origin.of(index).model}")
    names = names_text(index, units)
    y = style.margin + style.title + style.leading
    return page, page.write(f"{facts} {names}" if names else facts, style.margin, y, style.inner)


def add_unit(page: Page, unit: OpenUnit, patches: Patches, y: float) -> float:
    """Add the name of a unit and what stands beside and below it; returns where the tiles begin."""
    style = page.style
    place = (style.margin, style.margin, style.inner)
    if style.exact:
        y += style.heading
        add_heading(page, (place[0], y, place[2]), unit.name, f"{unit.unit}")
        return y + 0.45 * style.heading
    y += style.heading + 4
    add_heading(page, (place[0], y, place[2]), unit.name, f"· {unit.evidence}" if unit.evidence else "")
    detail = " · ".join(filter(None, [f"{unit.unit}", tiles.field_text(unit, patches.cropping), tiles.doubts(unit)]))
    return page.write(detail, style.margin, y + style.leading, style.inner) - style.leading + 5


def strips_columns(k: int, style: Style) -> int:
    return style.columns or min(k, MOST)


def strips_page(rows: Sequence[tuple[OpenUnit, Patches]], k: int, style: Style = PAGE) -> Page:
    """A page with a row of up to MOST patches for each unit, in the order given, or several; k is the most of a unit.

    Where the index keeps a synthetic image of a unit, it stands at the left of the row. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a sheet of strips needs at least one unit")
    units = [unit for unit, _ in rows]
    origin = Origin.of(units[0].index)
    images = [_synthetic(unit) for unit in units]
    beside = any(image is not None for image in images)
    columns = strips_columns(k, style)
    facts = f"The patches of {origin.data} that drive each unit hardest. {legend(rows)}"
    page, y = page_of_units(units, f"{facts} At the left: a synthetic image." if beside else facts, style)
    width = style.tile(columns + beside)
    left = style.margin + beside * (width + style.gap)
    across = columns * (width + style.gap) - style.gap
    for number, ((unit, patches), image) in enumerate(zip(rows, images, strict=True)):
        top = add_unit(page, unit, patches, y + style.gap * (number > 0))
        y = tiles.lay(page, patches, (left, top, across), columns)
        if image is not None:
            height = width * image.height / image.width
            page.pictures.append(Picture(image, style.margin, top, width, height))
            baseline = top + height + BELOW + style.small
            page.texts.append(Text(fitted("synthetic", width, style.small), style.margin, baseline, style.small))
            y = max(y, baseline + 0.3 * style.small)
    page.height = add_legend(page, y) + style.margin
    return page


def _synthetic(unit: OpenUnit) -> Image | None:
    """The unit's image as `patchmine synth --unit U` makes it, if the index keeps it."""
    if not (unit.index.directory / "synthetic").is_dir():
        return None
    from patchmine.synthesis.library import kept
    from patchmine.synthesis.recipe import Recipe

    found = kept(unit.index, unit.unit, Recipe())
    return None if found is None else found.image()
