"""A whole photograph with boxes in it, as a picture of a page."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from patchmine.drawing.lettering import font, font_file
from patchmine.photographs.placement import Placement
from patchmine.photographs.upright import own_pillow, upright
from patchmine.sheets.page import DPI, Picture
from patchmine.units import Box

COLORS = ("#d6336c", "#1971c2", "#e67700", "#2f9e44", "#7048e8", "#0b7285", "#c92a2a", "#495057")
"""Colors of the boxes, in order; dark enough for white numbers."""


@own_pillow()
def photograph_picture(data: bytes, placement: Placement, boxes: Sequence[Box], most: tuple[float, float]) -> Picture:
    """The photograph with numbered boxes (source pixels), as large as fits into `most` (width, height) points, at 0, 0.

    The parts outside the network's input are pale. Raises PhotographError.
    """
    picture = upright(data)
    scale = min(most[0] / picture.width, most[1] / picture.height)
    width, height = picture.width * scale, picture.height * scale
    size = (max(1, round(width * DPI / 72)), max(1, round(height * DPI / 72)))
    image = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    pale = Image.blend(image, Image.new("RGB", size, "white"), 0.65)
    across, down = size[0] / picture.width, size[1] / picture.height

    def scaled(box: Box) -> tuple[int, int, int, int]:
        left, top, right, bottom = box.as_tuple()
        return round(left * across), round(top * down), round(right * across), round(bottom * down)

    seen = scaled(placement.to_source(Box(0, 0, *placement.input)))
    pale.paste(image.crop(seen), seen[:2])
    draw = ImageDraw.Draw(pale)
    line = max(3, size[0] // 150)
    # The first box last, so that it lies on top.
    for number, box in reversed(list(enumerate(boxes, 1))):
        color = COLORS[(number - 1) % len(COLORS)]
        left, top, right, bottom = scaled(box)
        draw.rectangle((left, top, right - 1, bottom - 1), outline="white", width=line + 2)
        draw.rectangle((left + 1, top + 1, right - 2, bottom - 2), outline=color, width=line)
    for number, box in enumerate(boxes if len(boxes) > 1 else [], 1):
        _number(draw, number, *scaled(box)[:2])
    return Picture(pale, 0, 0, width, height)


def _number(draw: ImageDraw.ImageDraw, number: int, left: int, top: int) -> None:
    side = round(11 * DPI / 72)
    # Boxes at the same corner would hide each other's numbers.
    left += (number - 1) * side
    draw.rectangle((left, top, left + side, top + side), fill=COLORS[(number - 1) % len(COLORS)])
    draw.text(
        (left + side / 2, top + side / 2),
        f"{number}",
        fill="white",
        font=font(side * 0.75, font_file(True)),
        anchor="mm",
    )
