"""Crops, strips and photographs of an index as a screen shows them, with the tag by which a browser knows them again.

Needs neither torch nor the network: tight crops are shown where the index keeps them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from threading import BoundedSemaphore, Lock

from PIL import Image

from patchmine.errors import SourceError, UnitError
from patchmine.fields.cropping import Cropping, squared
from patchmine.index import Index
from patchmine.photographs.crops import padding, piece, placed
from patchmine.photographs.placement import View
from patchmine.photographs.upright import upright
from patchmine.reading.cropped import cropped
from patchmine.reading.patch import Patch
from patchmine.system import digests
from patchmine.units import Position, Unit

VERSION = 1
"""The version of the drawing: another one's pictures have other tags."""

SIZES = (96, 192, 384)
"""Widths of a crop, in pixels."""

WIDE = 1280
"""The longest side of a whole photograph, in pixels."""

STRIP, STRIP_PX, BLOCK = 6, 96, 32
"""A strip shows this many crops of a unit, each this wide; so many units share one picture."""

FACE = "face"
"""What addresses call the crops that `face` makes."""

_QUALITY = 86
_CORES = os.cpu_count() or 1

Check = Callable[[], None]


@dataclass(frozen=True)
class Picture:
    """A picture that may still have to be drawn. `tag` is equal for equal pictures, and is known without drawing them.

    `draw` raises SourceError where the photograph is gone or has changed, and what the check raises that it gets: it
    calls that before it decodes a photograph, so that a picture that nobody waits for any more is not drawn.
    """

    tag: str
    draw: Callable[[Check], Image.Image]
    format: str = "JPEG"

    @property
    def media(self) -> str:
        return f"image/{self.format.lower()}"

    def encoded(self, check: Check = lambda: None) -> bytes:
        buffer = BytesIO()
        self.draw(check).save(buffer, self.format, quality=_QUALITY, method=2)
        return buffer.getvalue()


class Kept:
    """Bytes by their tag, the most recently used ones up to `most` bytes."""

    def __init__(self, most: int = 96 << 20) -> None:
        self._most, self._size, self._lock = most, 0, Lock()
        self._data: OrderedDict[str, bytes] = OrderedDict()

    def get(self, picture: Picture, check: Check) -> bytes:
        """The encoded picture: kept, or drawn now. Raises as `Picture.draw`."""
        with self._lock:
            if picture.tag in self._data:
                self._data.move_to_end(picture.tag)
                return self._data[picture.tag]
        data = picture.encoded(check)
        with self._lock:
            if picture.tag not in self._data and len(data) <= self._most:
                self._data[picture.tag] = data
                self._size += len(data)
                while self._size > self._most:
                    self._size -= len(self._data.popitem(last=False)[1])
        return data


_drawing = BoundedSemaphore(_CORES)  # decoded photographs in memory at once


def patch_at(index: Index, unit: Unit, image: int, position: Position, crop: str) -> tuple[Patch, Cropping]:
    """One patch, and what it shows. Raises UnitError for a place that the layer lacks, and as `OpenUnit.top`."""
    grid = index.field(unit.layer, image).grid
    if not (position.y < grid[0] and position.x < grid[1]):
        raise UnitError(f"layer {unit.layer} has positions 0,0 to {grid[0] - 1},{grid[1] - 1}")
    # A tight crop that is not kept would be sought, with the network; `auto` shows only those that are.
    cropping = Cropping("auto" if crop in ("tight", FACE) else crop)
    settled = index.settled(unit, cropping)
    patch = index.patch(unit, 1, 0.0, image, position.y * grid[1] + position.x, settled)
    (shown,), cropping = cropped(index, [patch], cropping, settled)
    return shown, cropping


def crop(index: Index, patch: Patch, cropping: Cropping, px: int) -> Picture:
    """What a tile of the patch shows, `px` pixels wide, as WebP: transparent where the photograph ends."""
    assert patch.placement is not None
    view = patch.view(cropping)
    size = (px, max(1, round(px * view.window.height / view.window.width)))

    def draw(check: Check) -> Image.Image:
        drawn = _drawn(patch, view, size, check)
        assert patch.placement is not None
        _, target = placed(view, patch.placement, size)
        if (target.width, target.height) != size:
            mask = Image.new("L", size)
            mask.paste(255, target.as_tuple())
            drawn.putalpha(mask)
        return drawn

    return Picture(_tag(index.digest(patch.image_id), view, size), draw, "WEBP")


def face(index: Index, patch: Patch, cropping: Cropping, px: int) -> Picture:
    """A square that stands for the patch, `px` pixels wide: what the crop shows, moved inside the input, as JPEG."""
    assert patch.field is not None
    view = patch.view(cropping)
    square = squared(view.shown if view.shown.area else view.window, patch.field.input)
    view, size = View(square, square), (px, px)
    return Picture(_tag(index.digest(patch.image_id), view, size), lambda check: _drawn(patch, view, size, check))


def _drawn(patch: Patch, view: View, size: tuple[int, int], check: Check) -> Image.Image:
    check()
    data = patch.picture()
    assert patch.placement is not None
    with _drawing:
        check()
        return piece(data, patch.placement, view, screen=size).drawn(size)


def strips(index: Index, layer: str, block: int) -> Picture:
    """The crops of BLOCK units in one picture: a row for each unit, STRIP crops beside each other, best first.

    A photograph that cannot be read leaves its place hatched. Raises UnitError for a block that the layer lacks.
    """
    index.check_layer(layer)
    channels = range(block * BLOCK, min((block + 1) * BLOCK, index.layers[layer]))
    if not channels:
        raise UnitError(f"layer {layer} has {index.layers[layer]} units, so block {block} does not exist")
    rows = [_row(index, Unit(layer, channel)) for channel in channels]

    def draw(check: Check) -> Image.Image:
        sheet = Image.new("RGB", (STRIP * STRIP_PX, BLOCK * STRIP_PX), "#888")
        cells = [(x, y, one) for y, row in enumerate(rows) for x, one in enumerate(row)]
        with ThreadPoolExecutor(_CORES) as pool:
            for (x, y, _), drawn in zip(cells, pool.map(lambda cell: _or_hatched(cell[2], check), cells), strict=True):
                sheet.paste(drawn, (x * STRIP_PX, y * STRIP_PX))
        return sheet

    return Picture(_tag(*(one.tag for row in rows for one in row), [len(row) for row in rows]), draw)


def _row(index: Index, unit: Unit) -> list[Picture]:
    patches = index.unit(unit).top(STRIP, crop="auto")
    return [face(index, patch, patches.cropping, STRIP_PX) for patch in patches]


def _or_hatched(one: Picture, check: Check) -> Image.Image:
    try:
        return one.draw(check)
    except SourceError:
        return padding((STRIP_PX, STRIP_PX))


def photograph(index: Index, image: int, longest_px: int = WIDE) -> Picture:
    """A whole photograph, upright, whose longer side has at most `longest_px` pixels."""
    record = index.store.image(image)

    def draw(check: Check) -> Image.Image:
        data = index.photograph(image)
        longest, shortest = max(record.size), min(record.size)
        with _drawing:
            check()
            picture = upright(data, -(-shortest * longest_px // longest) if longest > longest_px else None)
            picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
        return picture

    return Picture(_tag(record.digest, longest_px), draw)


def gone(why: str) -> bytes:
    """An SVG picture that says why a photograph is not there."""
    from html import escape
    from textwrap import wrap

    from patchmine.system.printable import printable

    lines = wrap(printable(why), 22)[:6]
    rows = "".join(f'<tspan x="96" dy="16">{escape(line)}</tspan>' for line in lines)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 192 192" width="192" height="192">'
        '<rect width="192" height="192" fill="#888" fill-opacity=".15"/>'
        f'<text y="{88 - 8 * len(lines)}" font-family="sans-serif" font-size="13" text-anchor="middle" fill="#888">'
        f"{rows}</text></svg>"
    ).encode()


def _tag(*parts: object) -> str:
    return digests.of_bytes(repr((VERSION, parts)).encode("utf-8", "surrogatepass"))


__all__ = ["Kept", "Picture", "crop", "face", "gone", "patch_at", "photograph", "strips"]
