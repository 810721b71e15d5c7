"""Synthetic images beside the real patches, at the same scale: a pixel of the input has the same size in both."""

from __future__ import annotations

from math import ceil, sqrt
from pathlib import PurePath

from PIL import Image

from patchmine.drawing.lettering import fitted, wrapped
from patchmine.questions.compare import Comparison
from patchmine.reading.patch import Patch
from patchmine.sheets import tiles
from patchmine.sheets.layouts.grid import caption, caption_height
from patchmine.sheets.origin import Origin, name_text
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text, add_rank, add_title
from patchmine.sheets.style import GAP, LEADING, MARGIN, SMALL, TITLE, WIDTH
from patchmine.synthesis.keeping import SyntheticImage

ASIDE = 14.0
HEADING = 8.5
NARROWEST = 48.0  # room for the heading and the numbers of the synthetic images
LARGEST = 7.0  # points for a pixel of the input: a field of seven pixels must not fill the page
WARNING = "#b3261e"
METHODS = {
    "fourier": "Fourier coefficients",
    "maco": "phases, with the amplitudes of photographs (MACO)",
    "pixels": "plain pixels",
}
OBJECTIVES = {
    "neuron": "the unit at one place",
    "channel": "the mean of the unit over all places",
    "negative": "the unit at one place, minimized",
    "diverse": "the unit at one place, in images that differ",
}


def compare_page(found: Comparison) -> Page:
    """A page: synthetic images on the left, patches on the right, then the nearest patches and the facts."""
    page = Page(WIDTH, 0)
    scale, columns = _scale(found)
    y = _head(page, found)
    left_width = max(found.images[0].picture.shape[1] * scale, NARROWEST)
    right = MARGIN + left_width + ASIDE
    page.texts.append(Text("synthetic", MARGIN, y, HEADING, bold=True))
    page.texts.append(Text(f"real, top {len(found.patches)}", right, y, HEADING, bold=True))
    y += 5
    ends = [y]
    beneath = y
    for image, value in zip(found.images, found.values, strict=True):
        beneath = _synthetic(page, image, value, found.best, MARGIN, beneath, scale)
    ends.append(beneath)
    ends.append(_patches(page, found, list(found.patches), right, y, scale, columns))
    y = max(ends)
    if found.nearest:
        y += HEADING
        page.texts.append(Text("real, nearest to the first synthetic image", MARGIN, y, HEADING, bold=True))
        y = _nearest(page, found, right, y + 5, scale)
    page.height = _write_facts(page, found, y + 4) + MARGIN - 8
    return page


def _window(found: Comparison) -> tuple[float, float]:
    """Width and height of a patch's tile in input pixels."""
    if not found.patches or found.cropping.crop == "tight":
        return found.images[0].picture.shape[1], found.images[0].picture.shape[0]
    window = found.patches[0].view(found.cropping).window
    return window.width, window.height


def _scale(found: Comparison) -> tuple[float, int]:
    """Points for a pixel of the input, and the columns of patches: as large as the page allows."""
    columns = max(1, ceil(sqrt(len(found.patches))))
    room = WIDTH - 2 * MARGIN - ASIDE - (columns - 1) * GAP
    made, real = found.images[0].picture.shape[1], columns * _window(found)[0]
    scale = min(LARGEST, room / (made + real))
    return (scale if made * scale >= NARROWEST else min(LARGEST, (room - NARROWEST) / real)), columns


def _head(page: Page, found: Comparison) -> float:
    unit, recipe = found.unit, found.images[0].recipe
    origin = Origin.of(unit.index)
    add_title(page, unit.name)
    scale = " · patches enlarged to one size" if found.cropping.crop == "tight" else " · both at the same scale"
    facts = (
        f"unit {unit.unit} of {origin.model} · {tiles.field_text(unit, found.cropping)} · "
        f"{origin.photographs} photographs in {origin.source} · synthetic: {OBJECTIVES[recipe.objective]}, "
        f"{METHODS[recipe.method]}, {recipe.steps} steps{scale}"
    )
    y = MARGIN + TITLE + LEADING
    for text in filter(None, (name_text(unit), facts)):
        for line in wrapped(text, WIDTH - 2 * MARGIN, SMALL):
            page.texts.append(Text(line, MARGIN, y, SMALL, color=QUIET))
            y += LEADING
    return y + HEADING


def _synthetic(page: Page, image: SyntheticImage, value: float, best: float, x: float, y: float, scale: float) -> float:
    width, height = image.picture.shape[1] * scale, image.picture.shape[0] * scale
    size = (max(1, round(width * DPI / 72)), max(1, round(height * DPI / 72)))
    page.pictures.append(Picture(image.image().resize(size, Image.Resampling.BICUBIC), x, y, width, height))
    below = y + height + 8.5
    add_rank(page, (x, below, max(width, NARROWEST)), f"{image.number + 1}", f"{value:#.3g}".rstrip("."))
    against = f"{value / best:.1f} × the best real" if best > 0 and value > 0 else "synthetic"
    page.texts.append(Text(fitted(against, max(width, NARROWEST), SMALL), x, below + LEADING, SMALL))
    return y + height + 2 * LEADING + GAP + 2


def _nearest(page: Page, found: Comparison, right: float, y: float, scale: float) -> float:
    """Add one row, in the columns above if the synthetic image is as wide as a patch; returns where it ends."""
    width = _window(found)[0] * scale
    alike = abs(found.images[0].picture.shape[1] * scale - width) < 1
    room = WIDTH - MARGIN - (right if alike else MARGIN)
    many = max(1, int(alike + (room + GAP) // (width + GAP)))
    for number, (patch, similarity) in enumerate(zip(found.nearest[:many], found.similarities, strict=False)):
        x = right + (number - 1) * (width + GAP) if alike and number else MARGIN + number * (width + GAP)
        end = _patches(page, found, [patch], x, y, scale, 1, similarity)
    return end


def _patches(
    page: Page,
    found: Comparison,
    patches: list[Patch],
    x: float,
    y: float,
    scale: float,
    columns: int,
    similarity: float | None = None,
) -> float:
    """Add tiles with rank and value, or with a similarity; returns where they end."""
    across, down = _window(found)
    width, height = across * scale, down * scale
    size = (max(1, round(width * DPI / 72)), max(1, round(height * DPI / 72)))
    step = height + caption_height(patches, width) + GAP + 2
    shown = tiles.images(patches, found.cropping, size, page.missing)
    for number, (patch, image) in enumerate(zip(patches, shown, strict=True)):
        left, top = x + number % columns * (width + GAP), y + number // columns * step
        page.pictures.append(Picture(image, left, top, width, height))
        if similarity is None:
            caption(page, patch, left, top + height, width)
            continue
        below = top + height + 8.5
        own = (patch.image_id, patch.position) in {(p.image_id, p.position) for p in found.patches}
        add_rank(page, (left, below, width), f"{patch.rank}{' (above)' if own else ''}", f"{similarity:.2f}")
        named = patch.class_name or PurePath(patch.image).name
        page.texts.append(Text(fitted(named, width, SMALL), left, below + LEADING, SMALL))
    return y + ceil(len(patches) / columns) * step


def _write_facts(page: Page, found: Comparison, y: float) -> float:
    """Add the facts of the comparison, warnings first; returns where they end."""
    for text, color in [*((text, WARNING) for text in found.warnings()), *((text, QUIET) for text in found.facts())]:
        for line in wrapped(text, WIDTH - 2 * MARGIN, SMALL):
            page.texts.append(Text(line, MARGIN, y + SMALL, SMALL, color=color))
            y += LEADING
        y += 2
    return y + SMALL
