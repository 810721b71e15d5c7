"""The grid: one unit's patches in rank order, at one common scale."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import PurePath

from patchmine.drawing.lettering import fitted, wrapped
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.reading.patch import Patch
from patchmine.sheets import tiles
from patchmine.sheets.origin import Origin, name_text
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text, add_rank, add_title
from patchmine.sheets.style import GAP, LEADING, MARGIN, SMALL, TINY, TINY_LEADING, TITLE, WIDTH

LARGEST_TILE, NARROWEST = 200.0, 330.0


def grid_page(unit: OpenUnit, patches: Patches) -> Page:
    """A page with the patches of one unit. Reads the photographs, in parallel."""
    columns = max(1, min(10, ceil(sqrt(len(patches)))))
    width = min(LARGEST_TILE, (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns)
    inner = max(NARROWEST - 2 * MARGIN, columns * (width + GAP) - GAP)
    height = width * tiles.ratio(patches, patches.cropping)
    page = Page(inner + 2 * MARGIN, 0)
    top = head(page, unit, patches)
    step = height + caption_height(patches, width) + GAP + 2
    size = (round(width * DPI / 72), round(height * DPI / 72))
    for number, (patch, image) in enumerate(
        zip(patches, tiles.images(patches, patches.cropping, size, page.missing), strict=True)
    ):
        x, y = MARGIN + number % columns * (width + GAP), top + number // columns * step
        page.pictures.append(Picture(image, x, y, width, height))
        caption(page, patch, x, y + height, width)
    page.height = top + ceil(len(patches) / columns) * step - GAP + MARGIN - 8
    return page


def head(page: Page, unit: OpenUnit, patches: Patches, *, also: Sequence[str] = ()) -> float:
    """Add the title, what the name rests on, the facts, the texts in `also`, and warnings; returns where they end."""
    inner = page.width - 2 * MARGIN
    origin = name_text(unit)
    texts = [*([origin] if origin else ()), _facts(unit, patches), *also]
    lines = [line for text in (*texts, *_warnings(unit, patches)) for line in wrapped(text, inner, SMALL)]
    add_title(page, unit.name)
    first = MARGIN + TITLE + LEADING
    for number, line in enumerate(lines):
        page.texts.append(Text(line, MARGIN, first + number * LEADING, SMALL, color=QUIET))
    return first + len(lines) * LEADING + 4


def caption(page: Page, patch: Patch, x: float, y: float, width: float) -> None:
    """Add rank and value in one line and the class (or the file's name) in the next, below a tile that ends at `y`.

    Then comes what a tight crop proves, where the patch shows one.
    """
    add_rank(page, (x, y + 8.5, width), f"{patch.rank}", tiles.value_text(patch))
    page.texts.append(Text(fitted(named(patch), width, SMALL), x, y + 8.5 + LEADING, SMALL))
    proof_text(page, patch, x, y + 8.5 + 2 * LEADING, width)


def proof_text(page: Page, patch: Patch, x: float, y: float, width: float) -> None:
    """Add what the patch's tight crop proves, from the baseline `y` on; nothing for a patch that shows none."""
    for number, line in enumerate(_proof(patch, width)):
        page.texts.append(Text(line, x, y + number * TINY_LEADING, TINY, color=QUIET))


def caption_height(patches: Sequence[Patch], width: float) -> float:
    """The height of the tallest caption of these patches, below tiles of that width."""
    return 2 * LEADING + TINY_LEADING * max((len(_proof(patch, width)) for patch in patches), default=0)


def _proof(patch: Patch, width: float) -> list[str]:
    text = patch.proof_text
    return wrapped(text, width, TINY) if text else []


def named(patch: Patch) -> str:
    """The class, or else the file's name."""
    return patch.class_name or PurePath(patch.image).name


def _facts(unit: OpenUnit, patches: Patches) -> str:
    origin = Origin.of(unit.index)
    return (
        f"unit {unit.unit} of {origin.model} · {tiles.field_text(unit, patches.cropping)} · "
        f"{patches.pick} {len(patches)} of {origin.photographs} photographs in {origin.source}"
    )


def _warnings(unit: OpenUnit, patches: Patches) -> list[str]:
    texts = []
    numbers = unit.statistics
    if numbers.saturated:
        texts.append(
            f"Saturated: {numbers.tied} photographs reach the maximum {numbers.maximum:.3g}, so the choice among them "
            "is arbitrary."
        )
    if patches.cropping.crop == "tight":
        texts.append(tiles.TIGHT_LEGEND)
    elif patches.cropping.crop != "image" and any(patch.visible < 1 for patch in patches):
        texts.append("Hatched: outside the receptive field or outside the picture that the network saw.")
    return texts
