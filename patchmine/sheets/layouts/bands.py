"""The spectrum: patches from a unit's whole range, in one strip for each band from its maximum to its minimum."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from patchmine.drawing.lettering import fitted
from patchmine.ranking import Float32
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.captions import add_legend, value_text
from patchmine.sheets.layouts.grid import NARROWEST, head
from patchmine.sheets.page import Page, Rectangle, Text
from patchmine.sheets.style import PAGE, Style

ASIDE, AIR = 96.0, 12.0
"""The most width of the text beside a strip, and the gap between that text and the tiles."""

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


def spectrum_page(unit: OpenUnit, patches: Patches, column: Float32, style: Style = PAGE) -> Page:
    """A page with the patches that `--pick spectrum` chose, in strips. Reads the photographs, in parallel.

    `column` are the unit's activations on all photographs, float32 (images,).
    """
    strips = bands(patches, column)
    longest = max((len(strip.patches) for strip in strips), default=1)
    aside = min(ASIDE, 0.26 * style.inner)
    room = style.inner - aside - AIR
    columns = style.columns or longest
    width = min(LARGEST_TILE, (room - (columns - 1) * style.gap) / columns)
    across = columns * (width + style.gap) - style.gap
    wide = 2 * style.margin + aside + AIR + across
    page = Page(style.width if style.exact else max(NARROWEST, wide), 0, style=style)
    y = head(page, unit, patches, also=[LEGEND])
    for number, strip in enumerate(strips):
        y += style.gap * (number > 0)
        beside = _aside(page, strip, column, (style.margin, y, aside))
        y = max(beside, tiles.lay(page, strip.patches, (style.margin + aside + AIR, y, across), columns))
    page.height = add_legend(page, y) + style.margin
    return page


def _aside(page: Page, strip: Band, column: Float32, place: tuple[float, float, float]) -> float:
    """Add the values, the quantiles and the histogram of a strip, to its left; returns where they end."""
    style, (x, y, width) = page.style, place
    number = min(NUMBER, 1.3 * style.small)
    first, last = value_text(strip.patches[0]), value_text(strip.patches[-1])
    values = first if first == last else f"{first} to {last}"
    page.texts.append(Text(fitted(values, width, number, bold=True), x, y + number, number, bold=True))
    first, last = f"{strip.quantiles[0]:.3f}", f"{strip.quantiles[-1]:.3f}"
    text = f"quantile {first}" if first == last else f"quantile {first} to {last}"
    y = page.write(text, x, y + number + style.leading, width) - style.leading + 5
    page.rectangles += histogram(column, strip.values, (x, y, width))
    return y + HEIGHT


def histogram(column: Float32, marked: tuple[float, float], place: tuple[float, float, float]) -> list[Rectangle]:
    """How often each value of a column occurs, from its minimum to its maximum, as bars on a base line.

    `place` is x, y and the width. Bars that hold a value from `marked` (lowest, highest) are colored; the height is the
    square root of the count, so that rare values at the ends are visible.
    """
    x, y, width = place
    finite = column[np.isfinite(column)].astype(np.float64)
    counts, edges = np.histogram(finite, BARS)
    heights = np.sqrt(counts / max(1, counts.max())) * (HEIGHT - 1)
    # As numpy counts: a bar holds its lower edge, and the last one its upper edge too.
    first, last = np.clip(np.searchsorted(edges, marked, "right") - 1, 0, BARS - 1)
    step = width / BARS
    bars = [Rectangle(x, y + HEIGHT - 0.4, width, 0.4, PALE)]
    for number in np.flatnonzero(counts).tolist():
        height = max(0.8, float(heights[number]))
        color = MARKED if first <= number <= last else PALE
        bars.append(Rectangle(x + number * step, y + HEIGHT - height, 0.7 * step, height, color))
    return bars
