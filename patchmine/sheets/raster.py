"""A page as PNG, by Pillow: the same bytes for the same page."""

from __future__ import annotations

import io
import zlib

from PIL import Image, ImageDraw

from patchmine.drawing.lettering import draw, text_width
from patchmine.photographs.upright import own_pillow
from patchmine.sheets.page import DPI, Page


@own_pillow()
def png(page: Page) -> bytes:
    """The page as a PNG of DPI dots per inch."""
    scale = DPI / 72
    page_image = Image.new("RGB", (round(page.width * scale), round(page.height * scale)), "white")
    for picture in page.pictures:
        size = (round(picture.width * scale), round(picture.height * scale))
        image = picture.image if picture.image.size == size else picture.image.resize(size)
        page_image.paste(image, (round(picture.x * scale), round(picture.y * scale)))
    canvas = ImageDraw.Draw(page_image)
    for text in page.texts:
        left = text.x - text_width(text.text, text.size, text.bold) * text.right
        draw(canvas, (left * scale, text.y * scale), text.text, text.size * scale, text.color, text.bold)
    # Photographs hardly repeat themselves: run-length encoding alone takes half the time and a tenth more bytes.
    buffer = io.BytesIO()
    page_image.save(buffer, "PNG", dpi=(DPI, DPI), compress_type=zlib.Z_RLE)
    return buffer.getvalue()
