"""Attribution drawn over a photograph, inside the crop alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

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

STRONGEST = 0.85
"""The opacity of the strongest attribution."""


def overlay_text(method: str) -> str:
    """The legend of overlays by this method."""
    what = "what raises the activation, by " if method in SIGNED else ""
    return (
        f"Over each crop, from none (clear) over red to yellow: {what}{WORDS[method]}. Each has its own scale, up to "
        f"the {CLEAR:.1%} quantile of its values."
    )


def overlays(projector: Projector) -> Callable[[Patch, Piece], Piece]:
    """A function that draws the attribution of a patch over the piece of its `context`."""

    def over(patch: Patch, piece: Piece) -> Piece:
        view = patch.context()
        region = view.lit or view.window
        try:
            values = projector(patch, region)
        except PhotographError:
            return piece
        return overlaid(piece, heat_of(values, region, projector.method), view)

    return over


def heat_of(values: NDArray[np.float32], region: Box, method: str) -> NDArray[np.uint8]:
    """The strength of an attribution float32 (3, height, width) inside the region, 0 to 255, (height, width)."""
    finite = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    strength = np.maximum(finite.sum(0), 0) if method in SIGNED else np.abs(finite).sum(0)
    inside = np.zeros_like(strength)
    box = region.intersect(Box(0, 0, strength.shape[1], strength.shape[0]))
    part = (slice(box.top, box.bottom), slice(box.left, box.right))
    inside[part] = strength[part]
    nonzero = inside[inside > 0]
    limit = float(np.quantile(nonzero, CLEAR)) if len(nonzero) else 1.0
    return np.rint(255 * np.clip(inside / limit, 0, 1)).astype(np.uint8)


def overlaid(piece: Piece, heat: NDArray[np.uint8], view: View) -> Piece:
    """The piece with the heat (input pixels) over its photograph."""
    if not piece.visible:
        return piece
    width, height = piece.image.size
    left, top, right, bottom = piece.place
    across, down = view.window.width / width, view.window.height / height
    to_input = (
        *((right - left) * across, 0.0, view.window.left + left * view.window.width),
        *(0.0, (bottom - top) * down, view.window.top + top * view.window.height),
    )
    mapped = Image.fromarray(heat).transform(
        (width, height), Image.Transform.AFFINE, to_input, Image.Resampling.BILINEAR, fillcolor=0
    )
    colors = ImageOps.colorize(mapped, black="#b2182b", mid="#f46d43", white="#fff200")
    opacity = mapped.point([round(255 * STRONGEST * (level / 255) ** 0.5) for level in range(256)])
    return replace(piece, image=Image.composite(colors, piece.image, opacity))
