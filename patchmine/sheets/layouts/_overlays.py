"""Attribution drawn over a photograph, inside the crop alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from patchmine.errors import PhotographError
from patchmine.photographs.crops import Piece
from patchmine.photographs.placement import View
from patchmine.reading.patch import Patch
from patchmine.sheets.layouts.pairs import CLEAR, WORDS
from patchmine.units import Box

if TYPE_CHECKING:
    from patchmine.questions.project import Projector

SIGNED = ("gradxinput", "ig", "occlusion")
"""Methods whose values say whether a pixel raises or lowers the activation; of these the overlay shows what raises."""

SMOOTH = 2
"""Standard deviation of the smoothing, in input pixels: single pixels cannot be seen."""

SMALL = 0.2
"""A crop is small if its longer side is less than this share of the input's shorter one."""

STRONGEST = 0.85
"""The opacity of the strongest attribution."""


def overlay_text(method: str, insets: bool = False) -> str:
    """The legend of overlays by this method, of which some show a small crop a second time."""
    what = "what raises the activation, by " if method in SIGNED else ""
    return (
        f"Over each crop, which is gray there, from none through red to yellow: {what}{WORDS[method]}. It is smoothed "
        f"over {SMOOTH} pixels; each has its own scale, up to the {CLEAR:.1%} quantile of its values."
        f"{' In a corner: a small crop again, enlarged.' if insets else ''}"
    )


def overlays(projector: Projector) -> Callable[[Patch, Piece], tuple[Piece, Piece | None]]:
    """A function that draws the attribution of a patch over the piece of its `context`, and for a small crop a second
    time over the crop enlarged."""

    def over(patch: Patch, piece: Piece) -> tuple[Piece, Piece | None]:
        view = patch.context()
        region = view.lit or view.window
        try:
            heat = heat_of(projector(patch, region), region, projector.method)
            near = enlarged(view)
            closer = None if near is None else overlaid(patch.piece(near), heat, region, near)
        except PhotographError:
            return piece, None
        return overlaid(piece, heat, region, view), closer

    return over


def enlarged(view: View) -> View | None:
    """The surroundings of a crop that is too small to see in a view of the whole input; None for a larger crop.

    They are a square twice as long as the crop, inside the window.
    """
    region, window = view.lit or view.window, view.window
    longer, shorter = max(region.width, region.height), min(window.width, window.height)
    if longer >= SMALL * shorter:
        return None
    side = min(2 * longer, shorter)
    left, top = (
        min(max((low + high - side) // 2, first), last - side)
        for low, high, first, last in (
            (region.left, region.right, window.left, window.right),
            (region.top, region.bottom, window.top, window.bottom),
        )
    )
    part = Box(left, top, left + side, top + side)
    return View(part, part, lit=region)


def heat_of(values: NDArray[np.float32], region: Box, method: str) -> Image.Image:
    """The strength of an attribution float32 (3, height, width) inside the region, as gray levels from 0 to 255.

    The region lies inside the input.
    """
    finite = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    strength = np.maximum(finite.sum(0), 0) if method in SIGNED else np.abs(finite).sum(0)
    inside = np.zeros(strength.shape, np.bool_)
    inside[region.top : region.bottom, region.left : region.right] = True
    nonzero = strength[inside & (strength > 0)]
    limit = float(np.quantile(nonzero, CLEAR)) if len(nonzero) else 1.0
    levels = np.rint(255 * np.clip(inside * strength / limit, 0, 1)).astype(np.uint8)
    smooth = inside * np.asarray(Image.fromarray(levels).filter(ImageFilter.GaussianBlur(SMOOTH)), np.float32)
    return Image.fromarray(np.rint(255 * smooth / max(1.0, float(smooth.max()))).astype(np.uint8))


def overlaid(piece: Piece, heat: Image.Image, region: Box, view: View) -> Piece:
    """The piece with the heat (input pixels) over its photograph, which is gray inside the region (input pixels)."""
    if not piece.visible:
        return piece
    width, height = piece.image.size
    left, top, right, bottom = piece.place
    window = view.window
    to_input = (
        *((right - left) * window.width / width, 0.0, window.left + left * window.width),
        *(0.0, (bottom - top) * window.height / height, window.top + top * window.height),
    )

    def mapped(levels: Image.Image) -> Image.Image:
        return levels.transform((width, height), Image.Transform.AFFINE, to_input, Image.Resampling.BILINEAR)

    inside = Image.new("L", heat.size, 0)
    inside.paste(255, region.as_tuple())
    levels = mapped(heat)
    colors = ImageOps.colorize(levels, black="#b2182b", mid="#f46d43", white="#fff200")
    opacity = levels.point([round(255 * STRONGEST * (level / 255) ** 0.5) for level in range(256)])
    gray = Image.composite(piece.image.convert("L").convert("RGB"), piece.image, mapped(inside))
    return replace(piece, image=Image.composite(colors, gray, opacity))
