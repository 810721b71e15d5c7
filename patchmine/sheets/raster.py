"""A page as PNG, by Pillow: the same bytes for the same page."""

from __future__ import annotations

import io
import zlib

from PIL import Image, ImageDraw

from patchmine.photographs.upright import own_pillow
from patchmine.sheets.page import DPI, Page, font
from patchmine.system.printable import printable


@own_pillow()
def png(page: Page) -> bytes:
    """The page as a PNG of DPI dots per inch."""
    scale = DPI / 72
    canvas = Image.new("RGB", (round(page.width * scale), round(page.height * scale)), "white")
    for picture in page.pictures:
        size = (round(picture.width * scale), round(picture.height * scale))
        image = picture.image if picture.image.size == size else picture.image.resize(size)
        canvas.paste(image, (round(picture.x * scale), round(picture.y * scale)))
    draw = ImageDraw.Draw(canvas)
    for text in page.texts:
        draw.text(
            (text.x * scale, text.y * scale),
            printable(text.text),
            fill=text.color,
            font=font(text.size * scale, text.bold),
            anchor="rs" if text.right else "ls",
        )
    # Photographs hardly repeat themselves: run-length encoding alone takes half the time and a tenth more bytes.
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", dpi=(DPI, DPI), compress_type=zlib.Z_RLE)
    return buffer.getvalue()
