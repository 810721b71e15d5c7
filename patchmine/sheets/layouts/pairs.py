"""Patches beside their projections: pairs for one unit, and the 3x3 blocks of Zeiler & Fergus 2013, figure 2."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchmine.errors import PhotographError
from patchmine.fields.field import Placement
from patchmine.photographs.crops import View, padding, placed
from patchmine.reading.opened import Cropping, IndexedUnit, Patches
from patchmine.sheets import tiles
from patchmine.sheets.layouts.grid import GAP, LEADING, MARGIN, SMALL, TITLE, WIDTH, caption, head
from patchmine.sheets.origin import names_text
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text, fitted, wrapped
from patchmine.units import Patch

if TYPE_CHECKING:
    from patchmine.questions.project import Projector

CLEAR = 0.995
"""The share of a projection's values that its tile can tell apart; what is beyond is drawn as the limit."""
SIDE = 3
"""Rows and columns of a block."""
WIDEST_PAIR, HEADING, SEAM, BETWEEN = 250.0, 9.0, 2.0, 14.0


WORDS = {
    "deconv": "deconvnet projections of the unit's activation (Zeiler & Fergus 2013)",
    "guided": "guided backpropagation from the unit (Springenberg et al. 2014)",
    "gradxinput": "the gradient of the unit's activation times the normalised input",
    "ig": "integrated gradients of the unit's activation, from a mean-grey picture",
    "occlusion": "how much the unit's activation falls when a mean-grey square lies there, two of the layer's strides "
    "wide and moved by one (by several, where that makes more than 24 steps)",
}


def normalised_text(method: str) -> str:
    """What a projection's tile shows, for a caption."""
    what = WORDS[method][0].upper() + WORDS[method][1:]
    return (
        f"{what}. Each tile has a scale of its own, symmetric about grey, which is 0: its limits are ± the {CLEAR:.1%} "
        "quantile of what is drawn, without regard to sign. Projection and patch show the same place at the same "
        "scale; where nothing came back, all is grey."
    )


def projection_tile(
    values: NDArray[np.float32], placement: Placement, view: View, size: tuple[int, int]
) -> Image.Image:
    """The view of a projection, (3, height, width) of the input, as `crops.tile` draws that of the photograph.

    Grey is 0. What is not finite or all 0 is grey as a whole.
    """
    canvas = padding(size)
    shown, target = placed(view, placement, size)
    if not shown.area:
        return canvas
    part = np.nan_to_num(values[:, shown.top : shown.bottom, shown.left : shown.right], posinf=0.0, neginf=0.0)
    # Of what is not 0: most of a projection may be.
    strengths = np.abs(part[part != 0])
    limit = float(np.quantile(strengths, CLEAR)) if len(strengths) else 0.0
    levels = np.clip(part / limit, -1, 1) if limit > 0 else np.zeros_like(part)
    grey = np.rint(127.5 + 127.5 * levels).astype(np.uint8).transpose(1, 2, 0)
    drawn = Image.fromarray(np.ascontiguousarray(grey)).resize((target.width, target.height), Image.Resampling.BICUBIC)
    canvas.paste(drawn, (target.left, target.top))
    return canvas


def pairs_page(unit: IndexedUnit, patches: Patches, projector: Projector, *, pick: str, cropping: Cropping) -> Page:
    """A page with the patches of one unit, each with its projection beside it, in rank order."""
    columns = max(1, min(5, ceil(sqrt(len(patches) / 2))))
    pair = min(WIDEST_PAIR, (WIDTH - 2 * MARGIN - (columns - 1) * BETWEEN) / columns)
    width = (pair - SEAM) / 2
    height = width * tiles.ratio(unit, patches, cropping)
    page = Page(max(WIDTH * 0.6, columns * (pair + BETWEEN) - BETWEEN + 2 * MARGIN), 0)
    texts = [normalised_text(projector.method), projector.remark([unit.unit.layer])]
    top = head(page, unit, patches, pick=pick, cropping=cropping, also=[text for text in texts if text])
    projector.progress.begin(len(patches), 0, "projections")
    step = height + 2 * LEADING + GAP + 2
    both = _tiles(page, unit, patches, projector, cropping, (width, height))
    for number, (patch, (seen, drawn)) in enumerate(zip(patches, both, strict=True)):
        x, y = MARGIN + number % columns * (pair + BETWEEN), top + number // columns * step
        page.pictures += [
            Picture(seen, x, y, width, height),
            Picture(drawn, x + width + SEAM, y, width, height),
        ]
        caption(page, patch, x, y + height, pair)
    page.height = top + ceil(len(patches) / columns) * step - GAP + MARGIN - 8
    return page


def zeiler_page(units: Sequence[IndexedUnit], projector: Projector, *, crop: str, share: float) -> Page:
    """A page with a block of SIDE x SIDE projections beside the block of their patches for each unit, best first.

    `crop` is as in `IndexedUnit.top`. Raises ValueError without units.
    """
    if not units:
        raise ValueError("a sheet needs at least one unit")
    columns = min(2, len(units))
    page = Page(WIDTH if columns == 2 else WIDTH * 0.75, 0)
    across = (page.width - 2 * MARGIN - (columns - 1) * BETWEEN) / columns
    y = _zeiler_head(page, units, projector)
    projector.progress.begin(SIDE * SIDE * len(units), 0, "projections")
    for start in range(0, len(units), columns):
        ends = [
            _blocks(page, unit, projector, Cropping(unit.index.crop(unit.unit, crop), share), (x, y, across))
            for unit, x in zip(units[start : start + columns], (MARGIN, MARGIN + across + BETWEEN), strict=False)
        ]
        y = max(ends) + BETWEEN
    page.height = y - BETWEEN + MARGIN
    return page


def _zeiler_head(page: Page, units: Sequence[IndexedUnit], projector: Projector) -> float:
    index = units[0].index
    job = index.manifest["job"]
    title = f"{len(units)} unit{'s' if len(units) > 1 else ''} of {job['model']}"
    page.texts.append(Text(title, MARGIN, MARGIN + TITLE * 0.8, TITLE, bold=True))
    facts = (
        f"Of each unit the {SIDE * SIDE} patches that drive it hardest, among {len(index)} photographs in "
        f"{PurePath(job['source']).name}, on the right, row by row; on the left their projections. "
    )
    y = _told(page, facts + normalised_text(projector.method), MARGIN + TITLE + LEADING)
    for text in (projector.remark(unit.unit.layer for unit in units), names_text(index, units)):
        if text:
            y = _told(page, text, y)
    return _told(page, "Hatched: outside the receptive field or outside the picture that the network saw.", y) + 4


def _told(page: Page, text: str, y: float) -> float:
    """The text in lines from the baseline `y` on; returns the next baseline."""
    for line in wrapped(text, page.width - 2 * MARGIN, SMALL):
        page.texts.append(Text(line, MARGIN, y, SMALL, colour=QUIET))
        y += LEADING
    return y


def _blocks(
    page: Page, unit: IndexedUnit, projector: Projector, cropping: Cropping, place: tuple[float, float, float]
) -> float:
    """One unit's two blocks at `place`: x, y and the width of both; returns where they end."""
    x, y, across = place
    patches = unit.top(SIDE * SIDE, crop=cropping.crop, share=cropping.share)
    block = (across - 3 * SEAM) / 2
    width = (block - (SIDE - 1) * SEAM) / SIDE
    height = width * tiles.ratio(unit, patches, cropping)
    y += HEADING
    value = f"{unit.unit} · {tiles.value_text(patches[0])} to {tiles.value_text(patches[-1])}" if patches else ""
    name = fitted(unit.name, across / 2, HEADING, bold=True)
    page.texts.append(Text(name, x, y, HEADING, bold=True))
    page.texts.append(Text(value, x + across, y, SMALL, colour=QUIET, right=True))
    y += LEADING
    page.texts.append(Text(fitted(_size_text(unit, cropping), across, SMALL), x, y, SMALL, colour=QUIET))
    y += 4
    for number, (seen, drawn) in enumerate(_tiles(page, unit, patches, projector, cropping, (width, height))):
        left, top = x + number % SIDE * (width + SEAM), y + number // SIDE * (height + SEAM)
        page.pictures += [
            Picture(drawn, left, top, width, height),
            Picture(seen, left + block + 3 * SEAM, top, width, height),
        ]
    return y + ceil(len(patches) / SIDE) * (height + SEAM)


def _size_text(unit: IndexedUnit, cropping: Cropping) -> str:
    """What a tile shows, shortly: `tiles.field_text` is too long for a column."""
    field = unit.index.field(unit.unit.layer)
    if cropping.crop == "image":
        return f"the whole input of {field.input[1]}×{field.input[0]} px"
    size = field.effective_size(cropping.share) if cropping.crop == "erf" else None
    if size is not None:
        return f"effective field {size} px, {cropping.share:.0%} of the gradient's energy"
    height, width = tiles.widest(field.group(unit.unit.channel))
    whole = field.group(unit.unit.channel).size
    return f"receptive field {whole[1]}×{whole[0]} px" if whole else f"receptive field up to {width}×{height} px"


def _tiles(
    page: Page,
    unit: IndexedUnit,
    patches: Sequence[Patch],
    projector: Projector,
    cropping: Cropping,
    points: tuple[float, float],
) -> list[tuple[Image.Image, Image.Image]]:
    """Each patch and its projection as tiles of (width, height) points; one that cannot be shown is hatched."""
    size = (round(points[0] * DPI / 72), round(points[1] * DPI / 72))
    seen = tiles.images(unit, patches, cropping, size, page.missing)
    drawn = [_projection(unit, patch, projector, cropping, size) for patch in patches]
    return list(zip(seen, drawn, strict=True))


def _projection(
    unit: IndexedUnit, patch: Patch, projector: Projector, cropping: Cropping, size: tuple[int, int]
) -> Image.Image:
    view, placement = tiles.view(unit, patch, cropping), unit.index.placement(patch.image_id)
    try:
        values = projector(patch, view.shown.intersect(placement.picture))
    except PhotographError:
        return padding(size)
    return projection_tile(values, placement, view, size)
