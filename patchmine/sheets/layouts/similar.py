"""Similar patches in order, below the photograph of the query, and the units that correlate with a unit."""

from __future__ import annotations

from math import ceil
from pathlib import PurePath
from typing import Any

from patchmine.drawing.lettering import fitted, wrapped
from patchmine.questions.similar import Similar
from patchmine.sheets import tiles
from patchmine.sheets.boxed import photograph_picture
from patchmine.sheets.layouts.grid import caption_height, proof_text
from patchmine.sheets.origin import Origin, name_text
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text, add_rank, add_title
from patchmine.sheets.style import GAP, LEADING, MARGIN, SMALL, TITLE, WIDTH
from patchmine.units import Box

COLUMNS = 6
PHOTOGRAPH, TALLEST = 210.0, 200.0
UNITS = 8


def similar_page(found: Similar[Any]) -> Page:
    """A page with the patches in order, below the query. Reads the photographs, in parallel."""
    page = Page(WIDTH, 0)
    columns = max(1, min(COLUMNS, len(found.patches)))
    width = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
    cropping = found.index.settled(found.asked.unit, found.patches.cropping)
    height = width * tiles.ratio(found.patches, cropping)
    size = (round(width * DPI / 72), round(height * DPI / 72))
    top = _head(page, found)
    shown = tiles.images(found.patches, cropping, size, page.missing)
    step = height + caption_height(found.patches, width) + GAP + 2
    for number, (patch, similarity, image) in enumerate(zip(found.patches, found.similarities, shown, strict=True)):
        x, y = MARGIN + number % columns * (width + GAP), top + number // columns * step
        page.pictures.append(Picture(image, x, y, width, height))
        below = y + height + 8.5
        add_rank(page, (x, below, width), f"{patch.rank}", f"{similarity:.3f}")
        named = patch.class_name or PurePath(patch.image).name
        page.texts.append(Text(fitted(named, width, SMALL), x, below + LEADING, SMALL))
        proof_text(page, patch, x, below + 2 * LEADING, width)
    page.height = top + ceil(len(found.patches) / columns) * step - GAP + MARGIN - 8
    return page


def _head(page: Page, found: Similar[Any]) -> float:
    """Add the query in words and, if it is a photograph, as a picture; returns where it ends."""
    left, bottom = MARGIN, MARGIN
    if found.sight is not None:
        box = found.query["box"]
        boxes = [Box(**box) if box else found.asked.box]
        picture = photograph_picture(found.sight.data, found.sight.placement, boxes, (PHOTOGRAPH, TALLEST))
        page.pictures.append(Picture(picture.image, MARGIN, MARGIN, picture.width, picture.height))
        left, bottom = MARGIN + picture.width + 2 * GAP, MARGIN + picture.height
    asked = found.query["unit"]["name"] if found.sight is None else PurePath(found.sight.path).name
    add_title(page, f"similar to {asked}", left)
    y = MARGIN + TITLE + LEADING
    for text in _facts(found):
        for line in wrapped(text, WIDTH - MARGIN - left, SMALL):
            page.texts.append(Text(line, left, y, SMALL, color=QUIET))
            y += LEADING
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
        f"The indexed patches of {origin.photographs} photographs in {origin.source} that are nearest to {asked}, by "
        f"the cosine similarity of all {index.layers[found.layer]} channels of {found.layer} of {origin.model}.",
    ]
    if found.units:
        units = ", ".join(f"{unit.unit} ({similarity:.2f})" for unit, similarity in found.units[:UNITS])
        texts.append(f"Units that correlate with it over all photographs: {units}.")
    return texts
