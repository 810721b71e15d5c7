"""Blocks of 3x3 projections beside their patches, unit by unit: figure 2 of Zeiler & Fergus 2013."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from patchmine.drawing.lettering import fitted, wrapped
from patchmine.fields.cropping import Cropping
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.layouts.pairs import BETWEEN, SEAM, normalized_text, projected_tiles
from patchmine.sheets.origin import Origin, beside_name, names_text
from patchmine.sheets.page import QUIET, Page, Picture, Text, add_line, add_title
from patchmine.sheets.style import LEADING, MARGIN, SMALL, TITLE, WIDTH

if TYPE_CHECKING:
    from patchmine.questions.project import Projector

SIDE = 3
"""Rows and columns of a block."""

HEADING = 9.0


def zeiler_page(rows: Sequence[tuple[OpenUnit, Patches]], projector: Projector) -> Page:
    """A page with a block of SIDE x SIDE projections beside the block of their patches for each unit, best first.

    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a sheet needs at least one unit")
    columns = min(2, len(rows))
    page = Page(WIDTH if columns == 2 else WIDTH * 0.75, 0)
    across = (page.width - 2 * MARGIN - (columns - 1) * BETWEEN) / columns
    y = _head(page, [unit for unit, _ in rows], projector)
    projector.progress.begin(SIDE * SIDE * len(rows), 0, "projections")
    for start in range(0, len(rows), columns):
        ends = [
            _blocks(page, unit, patches[: SIDE * SIDE], projector, (x, y, across))
            for (unit, patches), x in zip(
                rows[start : start + columns], (MARGIN, MARGIN + across + BETWEEN), strict=False
            )
        ]
        y = max(ends) + BETWEEN
    page.height = y - BETWEEN + MARGIN
    return page


def _head(page: Page, units: Sequence[OpenUnit], projector: Projector) -> float:
    index = units[0].index
    origin = Origin.of(index)
    title = f"{len(units)} unit{'s' if len(units) > 1 else ''} of {origin.model}"
    add_title(page, title)
    facts = (
        f"The {SIDE * SIDE} patches that drive each unit hardest, among {origin.photographs} photographs in "
        f"{origin.source}, are on the right, row by row. Their projections are on the left. "
    )
    y = _write(page, facts + normalized_text(projector.method), MARGIN + TITLE + LEADING)
    for text in (projector.remark(unit.unit.layer for unit in units), names_text(index, units)):
        if text:
            y = _write(page, text, y)
    return _write(page, "Hatched: outside the receptive field or outside the picture that the network saw.", y) + 4


def _write(page: Page, text: str, y: float) -> float:
    """Add the text in lines from the baseline `y` on; returns the next baseline."""
    for line in wrapped(text, page.width - 2 * MARGIN, SMALL):
        page.texts.append(Text(line, MARGIN, y, SMALL, color=QUIET))
        y += LEADING
    return y


def _blocks(
    page: Page, unit: OpenUnit, patches: Patches, projector: Projector, place: tuple[float, float, float]
) -> float:
    """Add one unit's two blocks at `place`: x, y and the width of both; returns where they end."""
    x, y, across = place
    block = (across - 3 * SEAM) / 2
    width = (block - (SIDE - 1) * SEAM) / SIDE
    height = width * tiles.ratio(patches, patches.cropping)
    y += HEADING
    value = f"{unit.unit} · {tiles.value_text(patches[0])} to {tiles.value_text(patches[-1])}" if patches else ""
    name = Text(unit.name, 0, 0, HEADING, bold=True)
    add_line(page, (x, y, across), name, Text(value, 0, 0, SMALL, color=QUIET))
    y = beside_name(page, unit, (x, y, across)) + LEADING
    page.texts.append(Text(fitted(_size_text(unit, patches.cropping), across, SMALL), x, y, SMALL, color=QUIET))
    y += 4
    for number, (seen, drawn) in enumerate(projected_tiles(page, patches, projector, (width, height))):
        left, top = x + number % SIDE * (width + SEAM), y + number // SIDE * (height + SEAM)
        page.pictures += [
            Picture(drawn, left, top, width, height),
            Picture(seen, left + block + 3 * SEAM, top, width, height),
        ]
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
        return f"effective field {size} px, {cropping.energy:.0%} of the gradient's energy"
    height, width = field.group(unit.unit.channel).largest
    whole = field.group(unit.unit.channel).size
    return f"receptive field {whole[1]}×{whole[0]} px" if whole else f"receptive field up to {width}×{height} px"
