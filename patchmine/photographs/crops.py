"""Cut a patch out of its photograph, as bare pixels or as a tile for a sheet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

from PIL import Image, ImageDraw

from patchmine.errors import PhotographError
from patchmine.photographs.placement import Placement, View
from patchmine.photographs.upright import own_pillow, upright
from patchmine.units import Box

FADED = 0.65
"""How far the surroundings of a tight crop are faded towards white."""

MARK = "#d6336c"
"""The color of the line around a tight crop."""

PAPER, LINES = "#f1f1f1", "#dcdcdc"
"""The colors of a hatched area."""

OUTLINES = ((MARK, False), ("#1971c2", False), ("#e67700", True))
"""Color of each outline of a view, and whether it is dashed, so that no two differ by color alone."""

_SCALES = (1, 2, 4, 8)
"""The scales at which Pillow decodes a JPEG."""

Edges = tuple[float, float, float, float]


@dataclass(frozen=True)
class Outline:
    """A rectangle in a tile; its edges are shares of the tile."""

    edges: Edges
    color: str = MARK
    dashed: bool = False


@own_pillow()
def cut(data: bytes, box: Box) -> Image.Image:
    """The pixels of a photograph's bytes inside `box` (source pixels), at full resolution, as RGB.

    Raises PhotographError if the bytes are no longer a picture, or the picture no longer contains the box.
    """
    picture = upright(data)
    if not Box(0, 0, *picture.size).contains(box):
        raise PhotographError(f"is now {picture.width}x{picture.height} pixels and no longer contains the patch")
    return picture.crop(box.as_tuple())


@dataclass(frozen=True)
class Piece:
    """What a tile shows of a photograph: the photograph's own pixels, and where in the tile they lie.

    All edges are left, top, right, bottom in shares of the tile's width and height. `place` is where the pixels lie,
    which may reach beyond the tile; only those inside `shown` are visible, and the rest of the tile is hatched.
    Outside of `lit` the pixels are faded. `outlines` are drawn as rectangles.
    """

    image: Image.Image
    place: Edges
    shown: Edges
    lit: Edges | None = None
    outlines: tuple[Outline, ...] = ()

    @property
    def across(self) -> float:
        """How many source pixels are as wide as the tile."""
        return self.image.width / (self.place[2] - self.place[0]) if self.image.width else 0.0

    @property
    def visible(self) -> bool:
        """Whether the tile shows any of the photograph."""
        return bool(self.image.width) and self.shown[2] > self.shown[0] and self.shown[3] > self.shown[1]

    @property
    def full(self) -> bool:
        """Whether the photograph fills the tile, so that nothing is hatched."""
        return self.visible and _inside((0, 0, 1, 1), self.shown)

    @property
    def edged(self) -> bool:
        """Whether the border of `lit` is to be drawn: where all is lit, it would only be a frame."""
        return self.lit is not None and not _inside(self.shown, self.lit)

    @own_pillow()
    def reduced(self, width: float, dpi: int) -> Piece:
        """The same with at most `dpi` pixels per inch, for a tile that is `width` points wide."""
        most = max(1, round((self.place[2] - self.place[0]) * width * dpi / 72))
        if most >= self.image.width:
            return self
        size = (most, max(1, round(self.image.height * most / self.image.width)))
        return replace(self, image=self.image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))

    @own_pillow()
    def drawn(self, size: tuple[int, int]) -> Image.Image:
        """The tile as an RGB image of `size` (width, height) pixels."""
        canvas = padding(size)
        shown = _whole(self.shown, size)
        if self.visible:
            part = _source(self.shown, self.place, self.image.size)
            to = (shown.width, shown.height)
            resized = self.image.resize(to, Image.Resampling.LANCZOS, box=part, reducing_gap=3.0)
            canvas.paste(resized, (shown.left, shown.top))
            if self.lit is not None:
                _fade(canvas, shown, _whole(self.lit, size), self.edged)
        for outline in self.outlines:
            _outline(canvas, outline, size)
        return canvas


@own_pillow()
def piece(data: bytes, placement: Placement, view: View, screen: tuple[int, int] | None = None) -> Piece:
    """What a tile of the view shows of a photograph's bytes, in the photograph's own pixels.

    For a tile of `screen` (width, height) pixels a JPEG may be decoded smaller, which is much faster, but with no fewer
    pixels than the tile has. Raises PhotographError if the bytes are no longer a picture, or one of another size.
    """
    picture = upright(data, None if screen is None else _least(placement, view, screen))
    by = next((by for by in _SCALES[: None if screen else 1] if picture.size == _reduced(placement.source, by)), None)
    if by is None:
        picture = upright(data)  # its own size, to say it
        raise PhotographError(f"is now {picture.width}x{picture.height} pixels and no longer contains the patch")
    shown = view.shown.intersect(placement.picture).intersect(view.window)
    box = placement.to_source(shown)
    cut = Box(box.left // by, box.top // by, -(-box.right // by), -(-box.bottom // by))
    return Piece(
        picture.crop(cut.as_tuple()),
        place=_share(placement.to_input(Box(*(side * by for side in cut.as_tuple()))), view.window),
        shown=_share(shown.as_tuple(), view.window),
        lit=None if view.lit is None else _share(view.lit.intersect(shown).as_tuple(), view.window),
        outlines=tuple(
            Outline(_share(outline.as_tuple(), view.window), *OUTLINES[number])
            for number, outline in enumerate(view.outlines)
            if outline is not None
        ),
    )


def _least(placement: Placement, view: View, screen: tuple[int, int]) -> int:
    """The short side, in pixels, at which the photograph has no fewer pixels than the tile shows of it."""
    across, down = screen[0] / view.window.width, screen[1] / view.window.height
    return ceil(min(placement.resized[0] * across, placement.resized[1] * down, *placement.source))


def _reduced(size: tuple[int, int], by: int) -> tuple[int, int]:
    return -(-size[0] // by), -(-size[1] // by)


def _share(edges: tuple[float, float, float, float], window: Box) -> Edges:
    across, down = window.width, window.height
    left, top, right, bottom = edges
    return (
        (left - window.left) / across,
        (top - window.top) / down,
        (right - window.left) / across,
        (bottom - window.top) / down,
    )


def _inside(inner: Edges, outer: Edges) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def _source(shown: Edges, place: Edges, size: tuple[int, int]) -> Edges:
    """The part of an image of that size (width, height) that is visible, in its pixels, not rounded."""
    left, top, right, bottom = place

    def pixels(edge: float, near: float, far: float, length: int) -> float:
        return min(max((edge - near) / (far - near) * length, 0.0), float(length))

    return (
        pixels(shown[0], left, right, size[0]),
        pixels(shown[1], top, bottom, size[1]),
        pixels(shown[2], left, right, size[0]),
        pixels(shown[3], top, bottom, size[1]),
    )


def _whole(edges: Edges, size: tuple[int, int]) -> Box:
    """Shares of a tile as whole pixels of a tile of that size; at least one pixel each way."""
    left, top = round(edges[0] * size[0]), round(edges[1] * size[1])
    return Box(left, top, max(left + 1, round(edges[2] * size[0])), max(top + 1, round(edges[3] * size[1])))


def _fade(canvas: Image.Image, shown: Box, lit: Box, edged: bool) -> None:
    """Fade what is shown outside the box `lit` towards white, and draw a thin line around the box."""
    sharp = canvas.crop(lit.as_tuple())
    part = canvas.crop(shown.as_tuple())
    canvas.paste(Image.blend(part, Image.new("RGB", part.size, "white"), FADED), (shown.left, shown.top))
    canvas.paste(sharp, (lit.left, lit.top))
    if edged:
        line = max(1, canvas.width // 200)
        box = (lit.left, lit.top, lit.right - 1, lit.bottom - 1)
        ImageDraw.Draw(canvas).rectangle(box, outline=MARK, width=line)


def _outline(canvas: Image.Image, outline: Outline, size: tuple[int, int]) -> None:
    """Draw a rectangle on a white one, so that it can be seen on any photograph; dashed where the outline says so."""
    box = _whole(outline.edges, size)
    frame = (box.left, box.top, box.right - 1, box.bottom - 1)
    width = max(2, size[0] // 100)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle(frame, outline="white", width=width + 2)
    if not outline.dashed:
        draw.rectangle(frame, outline=outline.color, width=width)
        return
    inset = ((frame[0], frame[1], frame[2], frame[1]), (frame[0], frame[3], frame[2], frame[3]))
    sides = (*inset, (frame[0], frame[1], frame[0], frame[3]), (frame[2], frame[1], frame[2], frame[3]))
    step = max(4, size[0] // 40)
    for left, top, right, bottom in sides:
        length = max(right - left, bottom - top)
        for start in range(0, length, 2 * step):
            end = min(start + step, length)
            if right > left:
                row = min(top, frame[3] - width + 1)
                draw.rectangle((left + start, row, left + end, row + width - 1), fill=outline.color)
            else:
                column = min(left, frame[2] - width + 1)
                draw.rectangle((column, top + start, column + width - 1, top + end), fill=outline.color)


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
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    for start in range(-size[1], size[0], max(6, size[0] // 24)):
        draw.line([(start, size[1]), (start + size[1], 0)], fill=LINES, width=max(1, size[0] // 200))
    return image
