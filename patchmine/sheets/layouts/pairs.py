"""Patches beside their projections, in pairs."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchmine.errors import PhotographError
from patchmine.fields.cropping import Cropping
from patchmine.photographs.crops import padding, placed
from patchmine.photographs.placement import Placement, View
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.reading.patch import Patch
from patchmine.sheets import tiles
from patchmine.sheets.captions import add_caption, add_frame, add_legend, caption_height
from patchmine.sheets.layouts.grid import head
from patchmine.sheets.page import DPI, Page, Picture
from patchmine.sheets.style import PAGE, Style

if TYPE_CHECKING:
    from patchmine.questions.project import Projector

CLEAR = 0.995
"""Share of a projection's nonzero values within the limits of its tile; values beyond are clipped."""
WIDEST_PAIR, SEAM, BETWEEN = 250.0, 2.0, 14.0


WORDS = {
    "deconv": "deconvnet projections of the unit's activation (Zeiler & Fergus 2013)",
    "guided": "guided backpropagation from the unit (Springenberg et al. 2014)",
    "gradxinput": "the gradient of the unit's activation times the normalized input",
    "ig": "integrated gradients of the unit's activation, starting from a mean-gray image",
    "occlusion": "the fall of the unit's activation when a mean-gray square covers the place; the square is two "
    "strides of the layer wide and moves by one stride (by several, where that makes more than 24 steps)",
}


def normalized_text(method: str) -> str:
    """The legend of projections by this method."""
    what = WORDS[method][0].upper() + WORDS[method][1:]
    return (
        f"{what}. Each tile has its own scale, symmetric about gray, which is 0: its limits are ± the {CLEAR:.1%} "
        "quantile of its nonzero absolute values. Projection and patch show the same place at the same scale; a "
        "projection without any signal is all gray."
    )


def projection_tile(
    values: NDArray[np.float32], placement: Placement, view: View, size: tuple[int, int]
) -> Image.Image:
    """The view of a projection, (3, height, width) of the input, as `crops.tile` draws that of the photograph.

    Gray is 0, and so is every value that is not finite.
    """
    canvas = padding(size)
    shown, target = placed(view, placement, size)
    if not shown.area:
        return canvas
    part = np.nan_to_num(values[:, shown.top : shown.bottom, shown.left : shown.right], posinf=0.0, neginf=0.0)
    # Only nonzero values count: most of a projection may be 0.
    strengths = np.abs(part[part != 0])
    limit = float(np.quantile(strengths, CLEAR)) if len(strengths) else 0.0
    levels = np.clip(part / limit, -1, 1) if limit > 0 else np.zeros_like(part)
    gray = np.rint(127.5 + 127.5 * levels).astype(np.uint8).transpose(1, 2, 0)
    drawn = Image.fromarray(np.ascontiguousarray(gray)).resize((target.width, target.height), Image.Resampling.BICUBIC)
    canvas.paste(drawn, (target.left, target.top))
    return canvas


def pairs_page(unit: OpenUnit, patches: Patches, projector: Projector, style: Style = PAGE) -> Page:
    """A page with the patches of one unit, each with its projection beside it, in rank order."""
    columns = style.columns or max(1, min(5, ceil(sqrt(len(patches) / 2))))
    pair = min(WIDEST_PAIR, (style.inner - (columns - 1) * BETWEEN) / columns)
    width = (pair - SEAM) / 2
    height = width * tiles.ratio(patches, patches.cropping)
    wide = max(PAGE.width * 0.6, columns * (pair + BETWEEN) - BETWEEN + 2 * style.margin)
    page = Page(style.width if style.exact else wide, 0, style=style)
    texts = [normalized_text(projector.method), projector.remark([unit.unit.layer])]
    top = head(page, unit, patches, also=[text for text in texts if text])
    projector.progress.begin(len(patches), 0, "projections")
    step = height + caption_height(patches, style, pair) + style.gap
    both = projected_tiles(page, patches, projector, (width, height))
    for number, (patch, (seen, drawn)) in enumerate(zip(patches, both, strict=True)):
        x, y = style.margin + number % columns * (pair + BETWEEN), top + number // columns * step
        page.pictures += [seen.at(x, y), drawn.at(x + width + SEAM, y)]
        place = replace(seen, x=x, y=y, width=pair)
        add_frame(page, patch, place)
        add_caption(page, patch, unit.name, place)
    page.height = add_legend(page, top + ceil(len(patches) / columns) * step - style.gap) + style.margin
    return page


def projected_tiles(
    page: Page, patches: Patches, projector: Projector, points: tuple[float, float]
) -> list[tuple[Picture, Picture]]:
    """Each patch and its projection as tiles of (width, height) points; one that cannot be shown is hatched."""
    size = (round(points[0] * DPI / 72), round(points[1] * DPI / 72))
    seen = tiles.pictures(patches, patches.cropping, points, page.missing)
    drawn = [Picture(_projection(patch, projector, patches.cropping, size), 0, 0, *points) for patch in patches]
    return list(zip(seen, drawn, strict=True))


def _projection(patch: Patch, projector: Projector, cropping: Cropping, size: tuple[int, int]) -> Image.Image:
    view, placement = patch.view(cropping), patch.placement
    assert placement is not None
    try:
        values = projector(patch, view.shown.intersect(placement.picture))
    except PhotographError:
        return padding(size)
    return projection_tile(values, placement, view, size)
