"""A patch cut out of its photograph: the bare pixels, or a tile for a sheet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

from patchmine.errors import PhotographError
from patchmine.fields.field import Placement
from patchmine.photographs.upright import upright
from patchmine.units import Box


def cut(data: bytes, box: Box) -> Image.Image:
    """The pixels of a photograph's bytes inside `box` (source pixels), at full resolution, as RGB.

    Raises PhotographError when the bytes are no picture any more, or the picture is smaller than the box.
    """
    picture = upright(data)
    if not Box(0, 0, *picture.size).contains(box):
        raise PhotographError(f"is now {picture.width}x{picture.height} pixels and no longer holds the patch")
    return picture.crop(box.as_tuple())


@dataclass(frozen=True)
class View:
    """What one tile of a sheet shows, all in input pixels.

    `window` is the tile's frame; `shown` the part of the picture that is drawn, the rest of the frame being
    padding or outside the receptive field; `outline` is drawn as a frame, if it is given.
    """

    window: Box
    shown: Box
    outline: Box | None = None


def tile(data: bytes, placement: Placement, view: View, size: tuple[int, int]) -> Image.Image:
    """The view at a common scale as an RGB image of `size` (width, height) pixels, cut from full resolution.

    Raises PhotographError as `cut` does.
    """
    picture = upright(data)
    if picture.size != placement.source:
        raise PhotographError(f"is now {picture.width}x{picture.height} pixels and no longer holds the patch")
    canvas = padding(size)
    shown, target = placed(view, placement, size)
    if shown.area:
        scale = [placement.source[axis] / placement.resized[axis] for axis in (0, 1)]
        source = (
            (shown.left + placement.left) * scale[0],
            (shown.top + placement.top) * scale[1],
            min((shown.right + placement.left) * scale[0], placement.source[0]),
            min((shown.bottom + placement.top) * scale[1], placement.source[1]),
        )
        resized = picture.resize((target.width, target.height), Image.Resampling.LANCZOS, box=source, reducing_gap=3.0)
        canvas.paste(resized, (target.left, target.top))
    across, down = size[0] / view.window.width, size[1] / view.window.height
    if view.outline is not None:
        frame = [
            (view.outline.left - view.window.left) * across,
            (view.outline.top - view.window.top) * down,
            (view.outline.right - view.window.left) * across - 1,
            (view.outline.bottom - view.window.top) * down - 1,
        ]
        width = max(2, size[0] // 100)
        draw = ImageDraw.Draw(canvas)
        draw.rectangle(frame, outline="white", width=width + 2)
        draw.rectangle(frame, outline="#d6336c", width=width)
    return canvas


def placed(view: View, placement: Placement, size: tuple[int, int]) -> tuple[Box, Box]:
    """What of the input a tile of `size` (width, height) shows, in input pixels, and where in the tile's pixels."""
    shown = view.shown.intersect(placement.picture).intersect(view.window)
    across, down = size[0] / view.window.width, size[1] / view.window.height
    left, top = round((shown.left - view.window.left) * across), round((shown.top - view.window.top) * down)
    right, bottom = round((shown.right - view.window.left) * across), round((shown.bottom - view.window.top) * down)
    return shown, Box(left, top, max(left + 1, right), max(top + 1, bottom))


def padding(size: tuple[int, int]) -> Image.Image:
    """What a tile shows where there is no picture: a quiet diagonal hatch that no photograph has."""
    return _hatched(size).copy()


@lru_cache(maxsize=8)
def _hatched(size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, "#f1f1f1")
    draw = ImageDraw.Draw(image)
    for start in range(-size[1], size[0], max(6, size[0] // 24)):
        draw.line([(start, size[1]), (start + size[1], 0)], fill="#dcdcdc", width=max(1, size[0] // 200))
    return image
