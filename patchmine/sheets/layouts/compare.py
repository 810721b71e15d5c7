"""Synthetic images beside the real patches, at the same scale: a pixel of the input has the same size in both."""

from __future__ import annotations

from math import ceil, sqrt

from patchmine.drawing.lettering import fitted
from patchmine.questions.compare import Comparison
from patchmine.sheets import tiles
from patchmine.sheets.captions import BELOW, add_legend, caption_height, number_text
from patchmine.sheets.layouts.similar import add_alike
from patchmine.sheets.origin import Origin, name_text
from patchmine.sheets.page import QUIET, Page, Picture, Text, add_heading, add_rank, add_title
from patchmine.sheets.style import PAGE, Style
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


def compare_page(found: Comparison, style: Style = PAGE) -> Page:
    """A page: synthetic images on the left, patches on the right, then the nearest patches and the facts.

    A page for a paper has neither the nearest patches nor the facts.
    """
    page = Page(style.width, 0, style=style)
    scale, columns = compare_scale(found, style)
    heading = min(HEADING, style.heading)
    y = _head(page, found)
    left_width = max(found.images[0].picture.shape[1] * scale, _narrowest(style))
    right = style.margin + left_width + ASIDE
    page.texts.append(Text(fitted("synthetic", left_width, heading, bold=True), style.margin, y, heading, bold=True))
    real = fitted(f"real, top {len(found.patches)}", style.width - style.margin - right, heading, bold=True)
    page.texts.append(Text(real, right, y, heading, bold=True))
    y += 5
    beneath = y
    for image, value in zip(found.images, found.values, strict=True):
        beneath = _synthetic(page, image, value, found.best, (beneath, scale))
    across = columns * (_window(found)[0] * scale + style.gap) - style.gap
    y = max(beneath, tiles.lay(page, found.patches, (right, y, across), columns) + style.gap)
    if found.nearest and not style.exact:
        y += heading
        page.texts.append(Text("real, nearest to the first synthetic image", style.margin, y, heading, bold=True))
        y = _nearest(page, found, right, y + 5, scale) + style.gap
    if style.exact:
        page.height = add_legend(page, y - style.gap) + style.margin
    else:
        page.height = _write_facts(page, found, add_legend(page, y) + 4) + style.margin - 8
    return page


def _narrowest(style: Style) -> float:
    """Room for the numbers of the synthetic images."""
    return NARROWEST if not style.exact else 5.5 * style.small


def _window(found: Comparison) -> tuple[float, float]:
    """Width and height of a patch's tile in input pixels."""
    if not found.patches or found.cropping.crop == "tight":
        return found.images[0].picture.shape[1], found.images[0].picture.shape[0]
    window = found.patches[0].view(found.cropping).window
    return window.width, window.height


def compare_scale(found: Comparison, style: Style) -> tuple[float, int]:
    """Points for a pixel of the input, and the columns of patches: as large as the page allows."""
    columns = style.columns or max(1, ceil(sqrt(len(found.patches))))
    room = style.inner - ASIDE - (columns - 1) * style.gap
    made, real = found.images[0].picture.shape[1], columns * _window(found)[0]
    scale, least = min(LARGEST, room / (made + real)), _narrowest(style)
    return (scale if made * scale >= least else min(LARGEST, (room - least) / real)), columns


def _head(page: Page, found: Comparison) -> float:
    """Add the title and the facts, or for a paper the name; returns the baseline of what follows."""
    style, unit, recipe = page.style, found.unit, found.images[0].recipe
    if style.exact:
        add_heading(page, (style.margin, style.margin + 0.8 * style.heading, style.inner), unit.name, f"{unit.unit}")
        return style.margin + 2.2 * style.heading
    origin = Origin.of(unit.index)
    add_title(page, unit.name)
    scale = " · patches enlarged to one size" if found.cropping.crop == "tight" else " · both at the same scale"
    facts = (
        f"unit {unit.unit} of {origin.model} · {tiles.field_text(unit, found.cropping)} · "
        f"{origin.data} · synthetic: {OBJECTIVES[recipe.objective]}, "
        f"{METHODS[recipe.method]}, {recipe.steps} steps{scale}"
    )
    y = style.margin + style.title + style.leading
    for text in filter(None, (name_text(unit), facts)):
        y = page.write(text, style.margin, y, style.inner)
    return y + HEADING


def _synthetic(page: Page, image: SyntheticImage, value: float, best: float, place: tuple[float, float]) -> float:
    """Add one image with its numbers; returns where they end. `place` is y and the points for a pixel of the input."""
    style, (y, scale) = page.style, place
    width, height = image.picture.shape[1] * scale, image.picture.shape[0] * scale
    page.pictures.append(Picture(image.image(), style.margin, y, width, height))
    below, room = y + height + BELOW + style.small, max(width, _narrowest(style))
    add_rank(page, (style.margin, below, room), f"{image.number + 1}", number_text(value))
    against = f"{value / best:.1f} × the best real" if best > 0 and value > 0 else "synthetic"
    text = Text(fitted(against, room, style.small), style.margin, below + style.leading, style.small)
    page.texts.append(text)
    return y + height + 2 * style.leading + style.gap + 2


def _nearest(page: Page, found: Comparison, right: float, y: float, scale: float) -> float:
    """Add one row, in the columns above if the synthetic image is as wide as a patch; returns where it ends."""
    style, (across, down) = page.style, _window(found)
    width, height = across * scale, down * scale
    alike = abs(found.images[0].picture.shape[1] * scale - width) < 1
    room = style.width - style.margin - (right if alike else style.margin)
    many = max(1, int(alike + (room + style.gap) // (width + style.gap)))
    nearest = found.nearest[:many]
    shown = tiles.pictures(nearest, found.cropping, (width, height), page.missing)
    above = {(patch.image_id, patch.position) for patch in found.patches}
    for number, (patch, similarity, picture) in enumerate(zip(nearest, found.similarities, shown, strict=False)):
        left = style.margin if not (alike and number) else right - width - style.gap
        picture = picture.at(left + number * (width + style.gap), y)
        page.pictures.append(picture)
        rank = f"{patch.rank}{' (above)' if (patch.image_id, patch.position) in above else ''}"
        add_alike(page, patch, rank, f"{similarity:.2f}", (picture.x, y + height, width))
    return y + height + caption_height(nearest, style, width)


def _write_facts(page: Page, found: Comparison, y: float) -> float:
    """Add the facts of the comparison, warnings first; returns where they end."""
    small = page.style.small
    for text, color in [*((text, WARNING) for text in found.warnings()), *((text, QUIET) for text in found.facts())]:
        y = page.write(text, page.style.margin, y + small, page.style.inner, color) - small + 2
    return y + small
