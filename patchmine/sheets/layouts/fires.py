"""A photograph with the places that drive units unusually hard, each beside the unit's best patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from patchmine.drawing.lettering import fitted, text_width, wrapped
from patchmine.fields.cropping import Cropping
from patchmine.questions.fires import Fired, Fires
from patchmine.reading.answers import Patches
from patchmine.sheets import tiles
from patchmine.sheets.boxed import COLORS, photograph_picture
from patchmine.sheets.origin import Origin, beside_name, names_text
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text, add_line, add_title
from patchmine.sheets.style import GAP, LEADING, MARGIN, SMALL, TITLE, WIDTH

BEST = 6
PHOTOGRAPH, TALLEST = 210.0, 260.0
NAME, ASIDE = 8.5, 10.0


def fires_page(found: Fires[Any], best: Sequence[Patches]) -> Page:
    """A page with a row for each unit: its place in the photograph, then its best patches, up to BEST.

    The places of the first units are drawn into the photograph, as many as there are COLORS.
    """
    page = Page(WIDTH, 0)
    boxes = [fired.patch.box for fired in found.units[: len(COLORS)]]
    picture = photograph_picture(found.sight.data, found.sight.placement, boxes, (PHOTOGRAPH, TALLEST))
    page.pictures.append(Picture(picture.image, MARGIN, MARGIN, picture.width, picture.height))
    left = MARGIN + picture.width + 2 * GAP
    y = MARGIN + TITLE * 0.8
    add_title(page, PurePath(found.sight.path).name, left)
    y += LEADING + 4
    for text in _facts(found):
        for line in wrapped(text, WIDTH - MARGIN - left, SMALL):
            page.texts.append(Text(line, left, y, SMALL, color=QUIET))
            y += LEADING
        y += 3
    y = max(y, MARGIN + picture.height) + 6
    for fired, patches in zip(found.units, best, strict=True):
        y = _row(page, fired, patches[:BEST], y)
    page.height = y + MARGIN - 8
    return page


def _facts(found: Fires[Any]) -> list[str]:
    origin = Origin.of(found.index)
    names = names_text(found.index, [fired.unit for fired in found.units])
    return [
        f"The {len(found.units)} of {found.of} units of {origin.model} that this photograph drives hardest, compared "
        f"with {origin.photographs} photographs in {origin.source}.",
        "Each row begins with the unit's place in this photograph. Then come the patches of those photographs that "
        "drive the unit hardest, at the same scale.",
        "Percentile: share of those photographs that drive the unit less. σ: distance from their mean in standard "
        "deviations.",
        f"Boxes: the first {min(len(COLORS), len(found.units))} units. Pale: outside the network's input.",
        *([names] if names else ()),
    ]


def _row(page: Page, fired: Fired[Any], patches: Patches, y: float) -> float:
    """Add name and numbers, then the tiles; returns where the row ends."""
    cropping: Cropping = patches.cropping
    width = (WIDTH - 2 * MARGIN - ASIDE - BEST * GAP) / (BEST + 1)
    height = width * tiles.ratio(patches, cropping)
    size = (round(width * DPI / 72), round(height * DPI / 72))
    rank = fired.patch.rank
    color = COLORS[rank - 1] if rank <= len(COLORS) else QUIET
    y += NAME + 6
    page.texts.append(Text(f"{rank}", MARGIN, y, NAME, bold=True, color=color))
    numbers = (
        f"{fired.unit.unit} · {tiles.value_text(fired.patch)} · percentile {fired.percentile:.2%} · "
        f"{fired.deviation:+.1f} σ"
    )
    left = MARGIN + max(16.0, text_width(f"{rank} ", NAME, bold=True))
    name = Text(fired.unit.name, 0, 0, NAME, bold=True)
    add_line(page, (left, y, WIDTH - MARGIN - left), name, Text(numbers, 0, 0, SMALL, color=QUIET))
    y = beside_name(page, fired.unit, (left, y, WIDTH - MARGIN - left)) + 4
    shown_here = fired.patch.tile(fired.patch.view(cropping), size)
    page.pictures.append(Picture(shown_here, MARGIN, y, width, height))
    shown = tiles.images(patches, cropping, size, page.missing)
    for number, (patch, image) in enumerate(zip(patches, shown, strict=True)):
        x = MARGIN + width + GAP + ASIDE + number * (width + GAP)
        page.pictures.append(Picture(image, x, y, width, height))
        named = Text(patch.class_name or PurePath(patch.image).name, 0, 0, SMALL)
        add_line(page, (x, y + height + 8, width), named, Text(tiles.value_text(patch), 0, 0, SMALL, color=QUIET))
    own = fitted("this photograph", width, SMALL)
    page.texts.append(Text(own, MARGIN, y + height + 8, SMALL, color=color))
    return y + height + LEADING
