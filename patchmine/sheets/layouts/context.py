"""Context: whole inputs with the boxes of the receptive field, the effective field and the tight crop, faded around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchmine.drawing.lettering import fitted, text_width
from patchmine.photographs.crops import OUTLINES
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.captions import add_legend
from patchmine.sheets.layouts._overlays import enlarged, overlay_text, overlays
from patchmine.sheets.layouts.strips import add_unit, page_of_units
from patchmine.sheets.origin import Origin
from patchmine.sheets.page import Page, Rectangle, Text
from patchmine.sheets.style import PAGE, Style

if TYPE_CHECKING:
    from patchmine.questions.project import Projector

MOST = 5
"""Tiles in a row, unless the style says otherwise."""

KEYS = ("tight crop", "{place}", "effective field")
"""The outlines, in the order of their colors; a place is a receptive field or a token."""


def context_columns(k: int, style: Style) -> int:
    return style.columns or min(MOST, max(k, 3))


def context_page(
    rows: Sequence[tuple[OpenUnit, Patches]], style: Style = PAGE, projector: Projector | None = None
) -> Page:
    """A page with the patches of each unit as whole inputs, in the order given.

    Clear is the tight crop where the patches show one, else the effective field, else the receptive field. With a
    projector its attribution is drawn over what is clear. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a sheet of contexts needs at least one unit")
    units = [unit for unit, _ in rows]
    origin = Origin.of(units[0].index)
    tight = any(patches.cropping.crop == "tight" for _, patches in rows)
    clear = "effective field" if any(unit.index.field(unit.unit.layer).token for unit in units) else "field"
    facts = (
        f"The photographs, of {origin.photographs} in {origin.source}, that drive each unit hardest, as the network "
        f"saw them. {tiles.TIGHT_LEGEND if tight else f'Clear: the {clear}. Faded: its surroundings.'}"
    )
    over = None
    if projector is not None:
        insets = any(enlarged(patch.context()) for _, patches in rows for patch in patches)
        facts = f"{facts} {overlay_text(projector.method, insets)}"
        over = overlays(projector)
        projector.progress.begin(sum(len(patches) for _, patches in rows), 0, "attributions")
    page, y = page_of_units(units, facts, style)
    for number, (unit, patches) in enumerate(rows):
        columns = context_columns(len(patches), style)
        y = add_unit(page, unit, patches, y + style.gap * (number > 0))
        y = tiles.lay(page, patches, (style.margin, y, style.inner), columns, context=True, over=over)
    page.height = add_legend(page, _add_keys(page, rows, y)) + style.margin
    return page


def _add_keys(page: Page, rows: Sequence[tuple[OpenUnit, Patches]], y: float) -> float:
    """Add what the outlines mean, as far as there are any; returns where that ends."""
    style = page.style
    drawn = {
        number
        for _, patches in rows
        for patch in patches
        for number, outline in enumerate(patch.context().outlines)
        if outline is not None
    }
    places = [unit.index.field(unit.unit.layer).place_name for unit, _ in rows]
    place = " or ".join(dict.fromkeys(places))
    x, side = style.margin, 0.9 * style.small
    baseline = y + 1.4 * style.leading
    for number in sorted(drawn):
        key = fitted(KEYS[number].format(place=place), style.inner - 1.5 * side, style.small)
        wide = 1.5 * side + text_width(key, style.small)
        if x > style.margin and x + wide > style.width - style.margin:
            x, baseline = style.margin, baseline + style.leading
        color, dashed = OUTLINES[number]
        page.rectangles.append(Rectangle(x, baseline - side, side, side, color, 1.0, dashed))
        page.texts.append(Text(key, x + 1.5 * side, baseline, style.small))
        x += wide + 2 * side
    return baseline + 0.3 * style.small if drawn else y
