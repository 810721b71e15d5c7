"""A photograph with the places that drive units unusually hard, each beside the unit's best patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from patchmine.drawing.lettering import fitted, text_width
from patchmine.questions.fires import Fired, Fires
from patchmine.reading.answers import Patches
from patchmine.sheets import tiles
from patchmine.sheets.boxed import COLORS, photograph_picture
from patchmine.sheets.captions import named, value_text
from patchmine.sheets.origin import Origin, beside_name, names_text
from patchmine.sheets.page import QUIET, Page, Picture, Text, add_line, add_title
from patchmine.sheets.style import PAGE

BEST = 6
PHOTOGRAPH, TALLEST = 210.0, 260.0
NAME, ASIDE = 8.5, 10.0


def fires_page(found: Fires[Any], best: Sequence[Patches]) -> Page:
    """A page with a row for each unit: its place in the photograph, then its best patches, up to BEST.

    The places of the first units are drawn into the photograph, as many as there are COLORS.
    """
    page, style = Page(PAGE.width, 0), PAGE
    boxes = [fired.patch.box for fired in found.units[: len(COLORS)]]
    picture = photograph_picture(found.sight.data, found.sight.placement, boxes, (PHOTOGRAPH, TALLEST))
    page.pictures.append(picture.at(style.margin, style.margin))
    left = style.margin + picture.width + 2 * style.gap
    y = style.margin + style.title * 0.8
    add_title(page, PurePath(found.sight.path).name, left)
    y += style.leading + 4
    for text in _facts(found):
        y = page.write(text, left, y, style.width - style.margin - left) + 3
    y = max(y, style.margin + picture.height) + 6
    for fired, patches in zip(found.units, best, strict=True):
        y = _row(page, fired, patches[:BEST], y)
    page.height = y + style.margin - 8
    return page


def _facts(found: Fires[Any]) -> list[str]:
    origin = Origin.of(found.index)
    names = names_text(found.index, [fired.unit for fired in found.units])
    return [
        f"The {len(found.units)} of {found.of} units of {origin.model} that this photograph drives hardest, compared "
        f"with {origin.data}.",
        "Each row begins with the unit's place in this photograph. Then come the patches of those photographs that "
        "drive the unit hardest, at the same scale.",
        "Percentile: share of those photographs that drive the unit less. σ: distance from their mean in standard "
        "deviations.",
        f"Boxes: the first {min(len(COLORS), len(found.units))} units. Pale: outside the network's input.",
        *([names] if names else ()),
    ]


def _row(page: Page, fired: Fired[Any], patches: Patches, y: float) -> float:
    """Add name and numbers, then the tiles; returns where the row ends."""
    cropping, style = patches.cropping, page.style
    room = style.width - style.margin
    width = (style.inner - ASIDE - BEST * style.gap) / (BEST + 1)
    height = width * tiles.ratio(patches, cropping)
    rank = fired.patch.rank
    color = COLORS[rank - 1] if rank <= len(COLORS) else QUIET
    y += NAME + 6
    page.texts.append(Text(f"{rank}", style.margin, y, NAME, bold=True, color=color))
    numbers = (
        f"{fired.unit.unit} · {value_text(fired.patch)} · percentile {fired.percentile:.2%} · {fired.deviation:+.1f} σ"
    )
    left = style.margin + max(16.0, text_width(f"{rank} ", NAME, bold=True))
    name = Text(fired.unit.name, 0, 0, NAME, bold=True)
    add_line(page, (left, y, room - left), name, Text(numbers, 0, 0, style.small, color=QUIET))
    y = beside_name(page, fired.unit, (left, y, room - left)) + 4
    own = fired.patch.piece(fired.patch.view(cropping))
    page.pictures.append(Picture(own, style.margin, y, width, height))
    shown = tiles.pictures(patches, cropping, (width, height), page.missing)
    for number, (patch, picture) in enumerate(zip(patches, shown, strict=True)):
        x = style.margin + width + style.gap + ASIDE + number * (width + style.gap)
        page.pictures.append(picture.at(x, y))
        text = Text(named(patch), 0, 0, style.small)
        add_line(page, (x, y + height + 8, width), text, Text(value_text(patch), 0, 0, style.small, color=QUIET))
    this = fitted("this photograph", width, style.small)
    page.texts.append(Text(this, style.margin, y + height + 8, style.small, color=color))
    return y + height + style.leading
