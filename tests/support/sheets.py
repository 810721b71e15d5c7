"""What sheets look like, and where their texts lie."""

from __future__ import annotations

from itertools import combinations

from patchmine.drawing.lettering import text_width
from patchmine.sheets.page import Page, Picture, Text

HATCH = {(0xF1, 0xF1, 0xF1), (0xDC, 0xDC, 0xDC)}
"""The colors of a hatched area."""

UP, DOWN, SLACK = 0.76, 0.24, 0.3
"""How far letters reach above and below the baseline, as shares of their size, and the overlap that nobody sees, in
points."""

Edges = tuple[float, float, float, float]


def edges(thing: Text | Picture) -> Edges:
    """Left, top, right and bottom in points."""
    if isinstance(thing, Picture):
        return thing.x, thing.y, thing.x + thing.width, thing.y + thing.height
    width = text_width(thing.text, thing.size, thing.bold)
    left = thing.x - width if thing.right else thing.x
    return left, thing.y - UP * thing.size, left + width, thing.y + DOWN * thing.size


def faults(page: Page) -> list[str]:
    """Texts that lie over another text or a picture, or leave the page."""
    found = []
    for text in page.texts:
        left, top, right, bottom = edges(text)
        if left < -SLACK or top < -SLACK or right > page.width + SLACK or bottom > page.height + SLACK:
            found.append(f"{text.text!r} leaves the page")
        found += [f"{text.text!r} lies over a picture" for picture in page.pictures if _overlap(text, picture)]
    found += [f"{a.text!r} lies over {b.text!r}" for a, b in combinations(page.texts, 2) if _overlap(a, b)]
    return found


def _overlap(one: Text, other: Text | Picture) -> bool:
    a, b = edges(one), edges(other)
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return across > SLACK and down > SLACK
