"""Orders: a unit's patches by activation and by relevance, side by side, and how many photographs they share.

As in Achtibat et al. 2023, "From attribution maps to human-understandable explanations through concept relevance
propagation": what excites a unit is not always what the network uses it for.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from math import ceil, sqrt

from patchmine.drawing.lettering import fitted
from patchmine.reading.answers import Patches, counted
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.captions import COLORS, FRAME, add_legend
from patchmine.sheets.layouts.strips import add_unit, legend, page_of_units
from patchmine.sheets.origin import Origin
from patchmine.sheets.page import Page, Picture, Rectangle, Text
from patchmine.sheets.style import PAGE, Style

AIR = 16.0
"""Points between the two blocks."""

_SHARED = "in both orders"

Row = tuple[OpenUnit, Patches, Patches]
"""A unit with its patches by activation and by relevance."""


def orders_columns(k: int, style: Style) -> int:
    """How many patches stand side by side in each block."""
    return style.columns or max(1, ceil(sqrt(k)))


def in_common(one: Patches, other: Patches) -> set[int]:
    """The photographs that both have."""
    return {patch.image_id for patch in one} & {patch.image_id for patch in other}


def orders_page(rows: Sequence[Row], decision: str, style: Style = PAGE) -> Page:
    """A page with both orders of each unit; `decision` says what relevance is to. Raises ValueError without rows."""
    if not rows:
        raise ValueError("a sheet of orders needs at least one unit")
    units = [unit for unit, _, _ in rows]
    origin = Origin.of(units[0].index)
    facts = (
        f"Of {origin.data}: left, those that drive each unit hardest; right, "
        f"those where its relevance to the output for {decision} is highest, as far as it is positive. "
        f"{legend([(unit, patches) for unit, *both in rows for patches in both])}"
    )
    page, y = page_of_units(units, facts, style)
    for number, (unit, activation, relevance) in enumerate(rows):
        y = add_unit(page, unit, activation, y + style.gap * (number > 0))
        positive = relevance.chosen(place for place, patch in enumerate(relevance) if patch.value > 0)
        y = _both(page, activation, positive, y)
    page.height = add_legend(page, y) + style.margin
    return page


def _both(page: Page, activation: Patches, relevance: Patches, y: float) -> float:
    style = page.style
    columns = orders_columns(max(len(activation), len(relevance)), style)
    block = (style.inner - AIR) / 2
    y += style.small
    shared = in_common(activation, relevance)
    of = f"{len(shared)} of {counted(len(relevance), 'photograph', 'photographs')} in common"
    ends = []
    for text, patches, other, x in (
        ("by activation", activation, relevance, style.margin),
        (f"by relevance · {of}", relevance, activation, style.margin + block + AIR),
    ):
        page.texts.append(Text(fitted(text, block, style.small, bold=True), x, y, style.small, bold=True))
        drawn = len(page.pictures)
        ends.append(tiles.lay(page, patches, (x, y + 0.5 * style.small, block), columns, level=other))
        if style.frame is None:
            _frame(page, shared, patches, page.pictures[drawn:])
    return max(ends)


def _frame(page: Page, shared: Container[int], patches: Patches, pictures: Sequence[Picture]) -> None:
    """Frame the tiles of photographs that both orders have."""
    for patch, picture in zip(patches, pictures, strict=True):
        if patch.image_id in shared:
            page.frames[_SHARED] = COLORS[0]
            page.rectangles.append(Rectangle(picture.x, picture.y, picture.width, picture.height, COLORS[0], FRAME))
