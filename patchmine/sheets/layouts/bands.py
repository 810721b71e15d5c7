"""The spectrum: patches from a unit's whole range, in one strip for each band from its maximum to its minimum."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patchmine.drawing.lettering import fitted
from patchmine.ranking import Float32
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.layouts.grid import NARROWEST, caption, caption_height, head
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text
from patchmine.sheets.style import GAP, LEADING, MARGIN, SMALL, WIDTH

ASIDE, AIR = 96.0, 12.0
"""Width of the text beside a strip, and the gap between that text and the tiles."""

NUMBER = 9.0
BARS, HEIGHT = 48, 26.0
LARGEST_TILE = 110.0
MOST = 8
"""Tiles in a strip."""

PALE, MARKED = "#cfcfcf", "#d6336c"

LEGEND = (
    "Each strip shows a band of the unit's range, strongest first, with photographs at equal distances in rank. Beside "
    "it are the values, the quantiles (share of all other photographs that drive the unit less) and a histogram of all "
    "activations, with the band in color. The heights of its bars are square roots of the counts."
)


@dataclass(frozen=True)
class Band:
    """The patches of one strip, best first, with their quantiles."""

    patches: Patches
    quantiles: NDArray[np.float64]

    @property
    def values(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        return self.patches[-1].value, self.patches[0].value


def bands(patches: Patches, column: Float32) -> list[Band]:
    """Patches in descending order as bands of nearly as many patches each, about as many bands as patches in one.

    `column` are the activations on all photographs (images,): quantile 1 is their maximum, 0 their minimum.
    """
    if not patches:
        return []
    count = ceil(len(patches) / min(MOST, max(1, round(sqrt(len(patches))))))
    ends = np.linspace(0, len(patches), count + 1).round().astype(int).tolist()
    return [
        Band(patches[start:end], quantiles(column, np.array([patch.value for patch in patches[start:end]], np.float32)))
        for start, end in pairwise(ends)
    ]


def quantiles(column: Float32, values: Float32) -> NDArray[np.float64]:
    """For each value, the share of the other finite values of the column that are below it; ties count half.

    The values must be in the column.
    """
    ordered = np.sort(column[np.isfinite(column)])
    below, up_to = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    found: NDArray[np.float64] = (below + up_to - 1) / 2 / max(1, len(ordered) - 1)
    return found


def spectrum_page(unit: OpenUnit, patches: Patches, column: Float32) -> Page:
    """A page with the patches that `--pick spectrum` chose, in strips. Reads the photographs, in parallel.

    `column` are the unit's activations on all photographs, float32 (images,).
    """
    strips = bands(patches, column)
    across = max((len(strip.patches) for strip in strips), default=1)
    width = min(LARGEST_TILE, (WIDTH - 2 * MARGIN - ASIDE - AIR - (across - 1) * GAP) / across)
    height = width * tiles.ratio(patches, patches.cropping)
    page = Page(max(NARROWEST, 2 * MARGIN + ASIDE + AIR + across * (width + GAP) - GAP), 0)
    y = head(page, unit, patches, also=[LEGEND])
    size = (round(width * DPI / 72), round(height * DPI / 72))
    shown = iter(tiles.images(patches, patches.cropping, size, page.missing))
    for strip in strips:
        _aside(page, strip, column, y)
        for number, patch in enumerate(strip.patches):
            x = MARGIN + ASIDE + AIR + number * (width + GAP)
            page.pictures.append(Picture(next(shown), x, y, width, height))
            caption(page, patch, x, y + height, width)
        y += max(height + caption_height(strip.patches, width), NUMBER + LEADING + 5 + HEIGHT) + GAP
    page.height = y - GAP + MARGIN - 4
    return page


def _aside(page: Page, strip: Band, column: Float32, y: float) -> None:
    """Add the values, the quantiles and the histogram of a strip, to its left."""
    first, last = tiles.value_text(strip.patches[0]), tiles.value_text(strip.patches[-1])
    values = first if first == last else f"{first} to {last}"
    page.texts.append(Text(fitted(values, ASIDE, NUMBER, bold=True), MARGIN, y + NUMBER, NUMBER, bold=True))
    first, last = f"{strip.quantiles[0]:.3f}", f"{strip.quantiles[-1]:.3f}"
    text = f"quantile {first}" if first == last else f"quantile {first} to {last}"
    page.texts.append(Text(fitted(text, ASIDE, SMALL), MARGIN, y + NUMBER + LEADING, SMALL, color=QUIET))
    bars = histogram(column, strip.values, (round(ASIDE * DPI / 72), round(HEIGHT * DPI / 72)))
    page.pictures.append(Picture(bars, MARGIN, y + NUMBER + LEADING + 5, ASIDE, HEIGHT))


def histogram(column: Float32, marked: tuple[float, float], size: tuple[int, int]) -> Image.Image:
    """How often each value of a column occurs, from its minimum to its maximum, as an image of (width, height) pixels.

    Bars that hold a value from `marked` (lowest, highest) are colored; the height is the square root of the count, so
    that rare values at the ends are visible.
    """
    canvas = Image.new("RGB", size, "white")
    finite = column[np.isfinite(column)].astype(np.float64)
    counts, edges = np.histogram(finite, BARS)
    heights = np.sqrt(counts / max(1, counts.max())) * (size[1] - 2)
    draw = ImageDraw.Draw(canvas)
    draw.line([(0, size[1] - 1), (size[0], size[1] - 1)], fill=PALE)
    # As numpy counts: a bar holds its lower edge, and the last one its upper edge too.
    first, last = np.clip(np.searchsorted(edges, marked, "right") - 1, 0, BARS - 1)
    step = size[0] / BARS
    for number, bar in enumerate(heights):
        if counts[number]:
            color = MARKED if first <= number <= last else PALE
            top = size[1] - 1 - max(2, round(bar))
            draw.rectangle((round(number * step), top, round((number + 1) * step) - 2, size[1] - 1), fill=color)
    return canvas
