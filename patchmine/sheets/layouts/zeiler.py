"""Blocks of 3x3 projections beside their patches, unit by unit: figure 2 of Zeiler & Fergus 2013."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from patchmine.drawing.lettering import fitted
from patchmine.fields.cropping import Cropping
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.captions import value_text
from patchmine.sheets.layouts.pairs import BETWEEN, SEAM, normalized_text, projected_tiles
from patchmine.sheets.origin import Origin, beside_name, names_text
from patchmine.sheets.page import QUIET, Page, Text, add_heading, add_line, add_title
from patchmine.sheets.style import PAGE, Style

if TYPE_CHECKING:
    from patchmine.questions.project import Projector

SIDE = 3
"""Rows and columns of a block."""


def zeiler_page(rows: Sequence[tuple[OpenUnit, Patches]], projector: Projector, style: Style = PAGE) -> Page:
    """A page with a block of SIDE x SIDE projections beside the block of their patches for each unit, best first.

    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a sheet needs at least one unit")
    columns = zeiler_columns(len(rows), style)
    page = Page(style.width if columns > 1 or style.exact else style.width * 0.75, 0, style=style)
    across = (page.width - 2 * style.margin - (columns - 1) * BETWEEN) / columns
    y = style.margin if style.exact else _head(page, [unit for unit, _ in rows], projector)
    projector.progress.begin(SIDE * SIDE * len(rows), 0, "projections")
    for start in range(0, len(rows), columns):
        ends = [
            _blocks(
                page, unit, patches[: SIDE * SIDE], projector, (style.margin + place * (across + BETWEEN), y, across)
            )
            for place, (unit, patches) in enumerate(rows[start : start + columns])
        ]
        y = max(ends) + BETWEEN
    page.height = y - BETWEEN + style.margin
    return page


def zeiler_columns(units: int, style: Style) -> int:
    """How many units stand side by side."""
    return min(style.columns or 2, units)


def _head(page: Page, units: Sequence[OpenUnit], projector: Projector) -> float:
    index = units[0].index
    origin = Origin.of(index)
    add_title(page, f"{len(units)} unit{'s' if len(units) > 1 else ''} of {origin.model}")
    facts = (
        f"The {SIDE * SIDE} patches that drive each unit hardest, among {origin.photographs} photographs in "
        f"{origin.source}, are on the right, row by row. Their projections are on the left. "
    )
    style = page.style
    y = style.margin + style.title + style.leading
    remarks = (projector.remark(unit.unit.layer for unit in units), names_text(index, units), tiles.hatched(units))
    for text in filter(None, (facts + normalized_text(projector.method), *remarks)):
        y = page.write(text, style.margin, y, page.width - 2 * style.margin)
    return y + 4


def _blocks(
    page: Page, unit: OpenUnit, patches: Patches, projector: Projector, place: tuple[float, float, float]
) -> float:
    """Add one unit's two blocks at `place`: x, y and the width of both; returns where they end."""
    style, (x, y, across) = page.style, place
    block = (across - 3 * SEAM) / 2
    width = (block - (SIDE - 1) * SEAM) / SIDE
    height = width * tiles.ratio(patches, patches.cropping)
    y += style.heading
    if style.exact:
        add_heading(page, (x, y, across), unit.name, f"{unit.unit}")
    else:
        value = f"{unit.unit} · {value_text(patches[0])} to {value_text(patches[-1])}" if patches else ""
        name = Text(unit.name, 0, 0, style.heading, bold=True)
        add_line(page, (x, y, across), name, Text(value, 0, 0, style.small, color=QUIET))
        y = beside_name(page, unit, (x, y, across)) + style.leading
        size = fitted(_size_text(unit, patches.cropping), across, style.small)
        page.texts.append(Text(size, x, y, style.small, color=QUIET))
    y += 4
    for number, (seen, drawn) in enumerate(projected_tiles(page, patches, projector, (width, height))):
        left, top = x + number % SIDE * (width + SEAM), y + number // SIDE * (height + SEAM)
        page.pictures += [drawn.at(left, top), seen.at(left + block + 3 * SEAM, top)]
    return y + ceil(len(patches) / SIDE) * (height + SEAM)


def _size_text(unit: OpenUnit, cropping: Cropping) -> str:
    """The extent of a tile in a few words: `tiles.field_text` is too long for a column."""
    field = unit.index.field(unit.unit.layer)
    if cropping.crop == "image":
        return f"the whole input of {field.input[1]}×{field.input[0]} px"
    if cropping.crop == "tight":
        return f"tight crops: {cropping.retained:.0%} of the activation"
    size = field.effective_size(cropping.energy) if cropping.crop == "erf" else None
    if size is not None:
        whose = f" of a {field.token}" if field.token else ""
        return f"effective field{whose} {size} px, {cropping.energy:.0%} of the gradient's energy"
    height, width = field.group(unit.unit.channel).largest
    if field.token:
        token = f"{field.token} {width}×{height} px, with its surroundings" if field.squares else field.token
        return " · ".join(filter(None, [token, tiles.doubts(unit)]))
    whole = field.group(unit.unit.channel).size
    return f"receptive field {whole[1]}×{whole[0]} px" if whole else f"receptive field up to {width}×{height} px"
