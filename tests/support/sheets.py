"""What sheets look like, and where their texts lie."""

from __future__ import annotations

import numpy as np
from PIL.Image import Image

from patchmine.drawing.lettering import text_width
from patchmine.photographs.crops import Piece
from patchmine.sheets.page import Page, Picture, Rectangle, Text

HATCH = {(0xF1, 0xF1, 0xF1), (0xDC, 0xDC, 0xDC)}
"""The colors of a hatched area."""

UP, DOWN, SLACK = 0.76, 0.24, 0.3
"""How far letters reach above and below the baseline, as shares of their size, and the overlap that nobody sees, in
points."""

Edges = tuple[float, float, float, float]


def edges(thing: Text | Picture | Rectangle) -> Edges:
    """Left, top, right and bottom in points."""
    if not isinstance(thing, Text):
        return thing.x, thing.y, thing.x + thing.width, thing.y + thing.height
    width = text_width(thing.text, thing.size, thing.bold)
    left = thing.x - width if thing.right else thing.x
    return left, thing.y - UP * thing.size, left + width, thing.y + DOWN * thing.size


def pixels(picture: Picture) -> Image:
    """The picture as a PNG shows it, at 72 dots per inch."""
    if isinstance(picture.image, Piece):
        return picture.image.drawn((round(picture.width), round(picture.height)))
    return picture.image


def faults(page: Page) -> list[str]:
    """Texts that lie over another text, a picture or a filled rectangle, and whatever leaves the page."""
    filled = [rectangle for rectangle in page.rectangles if rectangle.line is None]
    things: list[Text | Picture | Rectangle] = [*page.texts, *page.pictures, *filled]
    lines = [rectangle for rectangle in page.rectangles if rectangle.line is not None]
    boxes = np.array([edges(thing) for thing in (*things, *lines)]).reshape(-1, 4)
    names = [repr(thing.text) if isinstance(thing, Text) else f"a {type(thing).__name__.lower()}" for thing in things]
    names += ["a rectangle"] * len(lines)
    beyond = (boxes[:, :2] < -SLACK).any(1) | (boxes[:, 2:] > np.array([page.width, page.height]) + SLACK).any(1)
    found = [f"{names[number]} leaves the page" for number in np.flatnonzero(beyond)]
    texts = len(page.texts)
    near, far = boxes[: len(things), :2], boxes[: len(things), 2:]
    common = np.minimum(far[:texts, None], far) - np.maximum(near[:texts, None], near)
    over = np.argwhere(np.triu((common > SLACK).all(2), 1))
    return found + [f"{names[one]} lies over {names[other]}" for one, other in over]
