"""Facets: the top patches on a map of their activation vectors, then a row of the best and one for each facet.

After figure 1 of Dreyer et al. 2024, "PURE: Turning Polysemantic Neurons Into Pure Features".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from patchmine.drawing.lettering import fitted
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.reading.picks import cosine_distances, medoids, vectors_of
from patchmine.sheets import tiles
from patchmine.sheets.captions import COLORS, FRAME, OTHERS, add_legend
from patchmine.sheets.layouts.strips import add_unit, page_of_units
from patchmine.sheets.origin import Origin
from patchmine.sheets.page import QUIET, Page, Rectangle, Text
from patchmine.sheets.style import PAGE, Style

MOST = 100
"""Patches on the map."""

THUMBNAIL, RATIO = 26.0, 0.5
"""Side of a thumbnail in points, and height over width of the map."""


@dataclass(frozen=True)
class Facets:
    """A unit's best patches, best first, with a facet's number for each and their place on the map.

    `group` (patches,) counts from 0, the facet of the best patch first; `places` (patches, 2) are from 0 to 1.
    """

    patches: Patches
    group: NDArray[np.int64]
    places: NDArray[np.float64]


def facets_of(unit: OpenUnit, patches: Patches, count: int) -> Facets:
    """The patches, which must be kept top patches, in up to `count` groups of similar vectors (k-medoids by cosine)."""
    images = np.array([patch.image_id for patch in patches], np.int64)
    grid = unit.index.field(unit.unit.layer).grid
    places = np.array([patch.position.y * grid[1] + patch.position.x for patch in patches], np.int64)
    vectors = vectors_of(unit.index.store, unit.unit.layer, images, places)
    vectors = np.nan_to_num(vectors, posinf=0, neginf=0)
    group = cosine_distances(vectors)[:, medoids(vectors, count)].argmin(1)
    return Facets(patches, group.astype(np.int64), principal(vectors))


def principal(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """The first two principal components of the vectors' directions, each scaled to 0..1: (patches, 2).

    The sign of a component is that which makes its largest weight positive.
    """
    unit = vectors.astype(np.float64) / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    _, _, weights = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    axes = np.zeros((2, unit.shape[1]))
    axes[: len(weights[:2])] = weights[:2]
    axes *= np.where(axes[range(2), np.abs(axes).argmax(1)] < 0, -1, 1)[:, None]
    found = (unit - unit.mean(0)) @ axes.T
    span = np.ptp(found, axis=0)
    scaled: NDArray[np.float64] = np.where(span > 1e-9, (found - found.min(0)) / np.maximum(span, 1e-9), 0.5)
    return scaled


def facets_page(unit: OpenUnit, found: Facets, k: int, style: Style = PAGE) -> Page:
    """A page with the map and rows of k patches. Reads the photographs, in parallel."""
    origin = Origin.of(unit.index)
    facts = (
        f"The {len(found.patches)} patches of {origin.data} that drive the unit "
        "hardest, on a map of their activation vectors: the first two principal components of their directions. Facets "
        "are groups of similar directions (k-medoids by cosine)."
    )
    page, y = page_of_units([unit], facts, style)
    y = add_unit(page, unit, found.patches, y)
    y = _map(page, found, y) + style.gap
    columns = style.columns or k
    groups = int(found.group.max(initial=-1)) + 1
    for number in range(-1, groups):
        members = [at for at, group in enumerate(found.group) if number in (-1, group)]
        text = f"all {len(members)}" if number < 0 else f"facet {number + 1}: {len(members)} of {len(found.patches)}"
        color = QUIET if number < 0 else _color(number)
        side, y = 0.8 * style.small, y + 1.4 * style.small
        page.rectangles.append(Rectangle(style.margin, y - side, side, side, color))
        text = fitted(text, style.inner - 1.6 * side, style.small, bold=True)
        page.texts.append(Text(text, style.margin + 1.6 * side, y, style.small, bold=True))
        chosen = found.patches.chosen(members[:k])
        y = tiles.lay(page, chosen, (style.margin, y + 0.5 * style.small, style.inner), columns) + style.gap
    page.height = add_legend(page, y - style.gap) + style.margin
    return page


def _map(page: Page, found: Facets, y: float) -> float:
    """Add the map below `y`, the strongest patches on top; returns where it ends."""
    style, patches = page.style, found.patches
    width, height = style.inner, RATIO * style.inner
    shown = tiles.pictures(patches, patches.cropping, (THUMBNAIL, THUMBNAIL * _ratio(patches)), page.missing)
    tallest = max((picture.height for picture in shown), default=0.0)
    for number in reversed(range(len(shown))):
        across, down = found.places[number]
        x = style.margin + across * (width - THUMBNAIL)
        picture = replace(shown[number], x=x, y=y + (1 - down) * (height - tallest))
        frame = Rectangle(picture.x, picture.y, picture.width, picture.height, _color(found.group[number]), FRAME)
        page.pictures.append(replace(picture, frame=frame))
    return y + height


def _ratio(patches: Patches) -> float:
    return tiles.ratio(patches, patches.cropping)


def _color(group: int) -> str:
    return COLORS[group] if group < len(COLORS) else OTHERS
