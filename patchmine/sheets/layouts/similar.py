"""Similar patches in order, below the photograph of the query, and the units that correlate with a unit."""

from __future__ import annotations

from math import ceil
from pathlib import PurePath
from typing import Any

from patchmine.drawing.lettering import fitted
from patchmine.questions.similar import Similar
from patchmine.reading.patch import Patch
from patchmine.sheets import tiles
from patchmine.sheets.boxed import photograph_picture
from patchmine.sheets.captions import BELOW, add_proof, caption_height, named
from patchmine.sheets.origin import Origin, name_text
from patchmine.sheets.page import Page, Text, add_rank, add_title
from patchmine.sheets.style import PAGE
from patchmine.units import Box

COLUMNS = 6
PHOTOGRAPH, TALLEST = 210.0, 200.0
UNITS = 8


def similar_page(found: Similar[Any]) -> Page:
    """A page with the patches in order, below the query. Reads the photographs, in parallel."""
    page, style = Page(PAGE.width, 0), PAGE
    columns = max(1, min(COLUMNS, len(found.patches)))
    width = style.tile(COLUMNS)
    cropping = found.index.settled(found.asked.unit, found.patches.cropping)
    height = width * tiles.ratio(found.patches, cropping)
    top = _head(page, found)
    shown = tiles.pictures(found.patches, cropping, (width, height), page.missing)
    step = height + caption_height(found.patches, style, width) + style.gap
    for number, (patch, similarity, picture) in enumerate(zip(found.patches, found.similarities, shown, strict=True)):
        x, y = style.margin + number % columns * (width + style.gap), top + number // columns * step
        page.pictures.append(picture.at(x, y))
        add_alike(page, patch, f"{patch.rank}", f"{similarity:.3f}", (x, y + height, width))
    page.height = top + ceil(len(found.patches) / columns) * step - style.gap + style.margin
    return page


def add_alike(page: Page, patch: Patch, rank: str, similarity: str, place: tuple[float, float, float]) -> None:
    """Add what stands below a tile that is alike another. `place` is x, the lower edge and the width of the tile."""
    x, y, width = place
    style, baseline = page.style, y + BELOW + page.style.small
    add_rank(page, (x, baseline, width), rank, similarity)
    page.texts.append(Text(fitted(named(patch), width, style.small), x, baseline + style.leading, style.small))
    add_proof(page, patch, x, baseline + 2 * style.leading, width)


def _head(page: Page, found: Similar[Any]) -> float:
    """Add the query in words and, if it is a photograph, as a picture; returns where it ends."""
    style = page.style
    left, bottom = style.margin, style.margin
    if found.sight is not None:
        box = found.query["box"]
        boxes = [Box(**box) if box else found.asked.box]
        picture = photograph_picture(found.sight.data, found.sight.placement, boxes, (PHOTOGRAPH, TALLEST))
        page.pictures.append(picture.at(style.margin, style.margin))
        left, bottom = style.margin + picture.width + 2 * style.gap, style.margin + picture.height
    asked = found.query["unit"]["name"] if found.sight is None else PurePath(found.sight.path).name
    add_title(page, f"similar to {asked}", left)
    y = style.margin + style.title + style.leading
    for text in _facts(found):
        y = page.write(text, left, y, style.width - style.margin - left)
    return max(y, bottom) + 4


def _facts(found: Similar[Any]) -> list[str]:
    index, origin = found.index, Origin.of(found.index)
    if found.sight is None:
        asked = f"the best patch of unit {found.asked.unit}, which comes first"
    elif found.query["box"]:
        asked = "the box in the photograph"
    else:
        asked = "the place of the photograph where the layer responds most"
    name = name_text(index.unit(found.asked.unit)) if found.sight is None else None
    texts = [
        *([name] if name else ()),
        f"The indexed patches of {origin.data} that are nearest to {asked}, by "
        f"the cosine similarity of all {index.layers[found.layer]} channels of {found.layer} of {origin.model}.",
    ]
    if found.units:
        units = ", ".join(f"{unit.unit} ({similarity:.2f})" for unit, similarity in found.units[:UNITS])
        texts.append(f"Units that correlate with it over all photographs: {units}.")
    return texts
