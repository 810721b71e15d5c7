"""Pixels in files: a page as PNG, and a single picture of a page as PNG or JPEG; the same bytes for the same page."""

from __future__ import annotations

import io
import zlib

from PIL import Image, ImageDraw

from patchmine.drawing.lettering import draw, text_width
from patchmine.photographs.crops import Piece
from patchmine.photographs.upright import own_pillow
from patchmine.sheets.page import DPI, Page, Picture, Rectangle

QUALITY = 92
"""Of photographs as JPEG, with colors at full resolution."""


@own_pillow()
def png(page: Page, dpi: int = DPI) -> bytes:
    """The page as a PNG of so many dots per inch."""
    scale = dpi / 72
    page_image = Image.new("RGB", (round(page.width * scale), round(page.height * scale)), "white")
    canvas = ImageDraw.Draw(page_image)
    for picture in page.pictures:
        page_image.paste(_scaled(picture, scale), (round(picture.x * scale), round(picture.y * scale)))
        if picture.frame is not None:
            _rectangle(canvas, picture.frame, scale)
    for rectangle in page.rectangles:
        _rectangle(canvas, rectangle, scale)
    for text in page.texts:
        left = text.x - text_width(text.text, text.size, text.bold) * text.right
        draw(canvas, (left * scale, text.y * scale), text.text, text.size * scale, text.color, text.bold)
    # Photographs hardly repeat themselves: run-length encoding alone takes half the time and a tenth more bytes.
    buffer = io.BytesIO()
    page_image.save(buffer, "PNG", dpi=(dpi, dpi), compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def _scaled(picture: Picture, scale: float) -> Image.Image:
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if isinstance(picture.image, Piece):
        return picture.image.drawn(size)
    return picture.image if picture.image.size == size else picture.image.resize(size)


def _rectangle(canvas: ImageDraw.ImageDraw, rectangle: Rectangle, scale: float) -> None:
    left, top = round(rectangle.x * scale), round(rectangle.y * scale)
    right = max(left, round((rectangle.x + rectangle.width) * scale) - 1)
    bottom = max(top, round((rectangle.y + rectangle.height) * scale) - 1)
    if rectangle.line is None:
        canvas.rectangle((left, top, right, bottom), fill=rectangle.color)
        return
    width = max(1, round(rectangle.line * scale))
    if not rectangle.dashed:
        canvas.rectangle((left, top, right, bottom), outline=rectangle.color, width=width)
        return
    step = 5 * width
    for x in range(left, right + 1, step):
        end = min(x + 3 * width - 1, right)
        for row in (top, bottom - width + 1):
            canvas.rectangle((x, row, end, row + width - 1), fill=rectangle.color)
    for y in range(top, bottom + 1, step):
        end = min(y + 3 * width - 1, bottom)
        for column in (left, right - width + 1):
            canvas.rectangle((column, y, column + width - 1, end), fill=rectangle.color)


def reduced(picture: Picture, dpi: int | None) -> Image.Image:
    """The picture's own pixels, or fewer where a photograph has more than `dpi` per inch."""
    if not isinstance(picture.image, Piece):
        return picture.image
    return (picture.image if dpi is None else picture.image.reduced(picture.width, dpi)).image


@own_pillow()
def packed(image: Image.Image) -> bytes:
    """The image as a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_type=zlib.Z_RLE)  # as `png` does, and for the same reason
    return buffer.getvalue()


def deflated(image: Image.Image) -> bytes:
    """The compressed pixels of the PNG of an RGB image, as a PDF may hold them (ISO 32000-1, 7.4.4.4)."""
    data, at, parts = packed(image), 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    return b"".join(parts)


@own_pillow()
def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
