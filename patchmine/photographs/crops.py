"""Cut a patch out of its photograph, as bare pixels or as a tile for a sheet."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from PIL import Image, ImageDraw

from patchmine.errors import PhotographError
from patchmine.photographs.placement import Placement, View
from patchmine.photographs.upright import own_pillow, upright
from patchmine.units import Box

FADED = 0.65
"""How far the surroundings of a tight crop are faded towards white."""


@own_pillow()
def cut(data: bytes, box: Box) -> Image.Image:
    """The pixels of a photograph's bytes inside `box` (source pixels), at full resolution, as RGB.

    Raises PhotographError if the bytes are no longer a picture, or the picture no longer contains the box.
    """
    picture = upright(data)
    if not Box(0, 0, *picture.size).contains(box):
        raise PhotographError(f"is now {picture.width}x{picture.height} pixels and no longer contains the patch")
    return picture.crop(box.as_tuple())


@own_pillow()
def tile(data: bytes, placement: Placement, view: View, size: tuple[int, int], for_screen: bool = False) -> Image.Image:
    """The view as an RGB image of `size` (width, height) pixels, resampled from the photograph's full resolution.

    With `for_screen` a JPEG may be decoded smaller, which is much faster, but no smaller than the tile shows it.
    Raises PhotographError if the bytes are no longer a picture, or one of another size.
    """
    shown, target = placed(view, placement, size)
    picture = upright(data, _least(placement, shown, target) if for_screen else None)
    reduced = [tuple(ceil(side / by) for side in placement.source) for by in ((1, 2, 4, 8) if for_screen else (1,))]
    if picture.size not in reduced:
        picture = upright(data)  # its own size, to say it
        raise PhotographError(f"is now {picture.width}x{picture.height} pixels and no longer contains the patch")
    canvas = padding(size)
    if shown.area:
        scale = [picture.size[axis] / placement.resized[axis] for axis in (0, 1)]
        source = (
            (shown.left + placement.left) * scale[0],
            (shown.top + placement.top) * scale[1],
            min((shown.right + placement.left) * scale[0], picture.width),
            min((shown.bottom + placement.top) * scale[1], picture.height),
        )
        resized = picture.resize((target.width, target.height), Image.Resampling.LANCZOS, box=source, reducing_gap=3.0)
        canvas.paste(resized, (target.left, target.top))
        if view.lit is not None:
            _fade(canvas, target, placed(View(view.window, view.lit), placement, size)[1])
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


def _least(placement: Placement, shown: Box, target: Box) -> int:
    """The short side, in pixels, at which the photograph has no fewer pixels than the tile shows of it."""
    if not shown.area:
        return 1
    across, down = target.width / shown.width, target.height / shown.height
    return ceil(min(placement.resized[0] * across, placement.resized[1] * down, *placement.source))


def _fade(canvas: Image.Image, shown: Box, lit: Box) -> None:
    """Fade what is shown outside the box `lit` towards white, and draw a thin line around the box."""
    sharp = canvas.crop(lit.as_tuple())
    part = canvas.crop(shown.as_tuple())
    canvas.paste(Image.blend(part, Image.new("RGB", part.size, "white"), FADED), (shown.left, shown.top))
    canvas.paste(sharp, (lit.left, lit.top))
    if not lit.contains(shown):
        line = max(1, canvas.width // 200)
        ImageDraw.Draw(canvas).rectangle(
            (lit.left, lit.top, lit.right - 1, lit.bottom - 1), outline="#d6336c", width=line
        )


def placed(view: View, placement: Placement, size: tuple[int, int]) -> tuple[Box, Box]:
    """The box that a tile of `size` (width, height) shows, in input pixels, and its place in the tile's pixels."""
    shown = view.shown.intersect(placement.picture).intersect(view.window)
    across, down = size[0] / view.window.width, size[1] / view.window.height
    left, top = round((shown.left - view.window.left) * across), round((shown.top - view.window.top) * down)
    right, bottom = round((shown.right - view.window.left) * across), round((shown.bottom - view.window.top) * down)
    return shown, Box(left, top, max(left + 1, right), max(top + 1, bottom))


def padding(size: tuple[int, int]) -> Image.Image:
    """The background of a tile of `size` (width, height): a quiet diagonal hatch, unlike any photograph."""
    return _hatched(size).copy()


@lru_cache(maxsize=8)
def _hatched(size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, "#f1f1f1")
    draw = ImageDraw.Draw(image)
    for start in range(-size[1], size[0], max(6, size[0] // 24)):
        draw.line([(start, size[1]), (start + size[1], 0)], fill="#dcdcdc", width=max(1, size[0] // 200))
    return image
