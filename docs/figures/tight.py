"""Draw the figure of docs/concepts/tight-crops.md: receptive field, effective field and tight crop of six deep units.

python -m docs.figures.tight
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from docs.figures.samples import free_photographs, index_of, save
from patchmine.index import Index, Patch
from patchmine.sheets import tiles, write
from patchmine.sheets.page import QUIET, Page, Text
from patchmine.sheets.style import PAGE

LAYERS = ("blocks.5", "blocks.6", "bn2.drop")
EACH = 2
TILE, AIR, HEADING = 84.0, 18.0, 9.0
GAP, MARGIN = PAGE.gap, PAGE.margin
CROPS = {"rf": "receptive field", "erf": "effective field", "tight": "tight crop"}
WIDTH_PX = 1200


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        index = index_of(free_photographs(Path(temporary)), LAYERS)
        sheet = Path(temporary) / "sheet.png"
        write(_page(index), sheet)
        save(sheet, "tight-crops.jpg", width=WIDTH_PX, quality=88)


def _page(index: Index) -> Page:
    block = 3 * TILE + 2 * GAP
    page = Page(2 * MARGIN + 2 * block + AIR, 0)
    y = MARGIN
    for layer in LAYERS:
        for number, patch in enumerate(_shown(index, layer)):
            _block(page, index, patch, MARGIN + number * (block + AIR), y)
        y += HEADING + TILE + 24
    page.height = y + MARGIN - 16
    return page


def _shown(index: Index, layer: str) -> list[Patch]:
    """The best patches of the units with the smallest crops, each of another photograph: what a reader sees at once."""
    units = list(index.units(layer))[:48]
    index.tight(units, 1)
    best = [patch for unit in units for patch in unit.top(1, crop="tight") if patch.tight is not None]
    best.sort(key=lambda patch: (patch.area or 1.0) + max(patch.tight.without if patch.tight else 1.0, 0.2))
    chosen: list[Patch] = []
    for patch in best:
        if patch.image not in {other.image for other in chosen} and (patch.area or 0) > 0.02:
            chosen.append(patch)
    return chosen[:EACH]


def _block(page: Page, index: Index, best: Patch, x: float, y: float) -> None:
    unit = index.unit(best.unit)
    page.texts.append(Text(str(unit.unit), x, y + HEADING, HEADING, bold=True))
    top = y + HEADING + 12
    for number, (crop, name) in enumerate(CROPS.items()):
        patches = unit.top(1, crop=crop)
        (picture,) = tiles.pictures(patches, patches.cropping, (TILE, TILE), page.missing)
        left = x + number * (TILE + GAP)
        page.pictures.append(picture.at(left, top))
        page.texts.append(Text(name, left, top - 3, PAGE.small, color=QUIET))
    end = x + 3 * TILE + 2 * GAP
    page.texts.append(Text(best.proof_text or "", end, top + TILE + 7, PAGE.tiny, color=QUIET, right=True))


if __name__ == "__main__":
    main()
