"""A page as data: pictures and texts at places in points (1/72 inch) from the upper left corner."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from PIL.Image import Image

from patchmine.drawing.lettering import fitted, lacking, text_width
from patchmine.sheets.style import MARGIN, SMALL, TITLE

INK, QUIET = "#1a1a1a", "#666666"
DPI = 200


@dataclass(frozen=True)
class Picture:
    """An image drawn into the rectangle at (x, y) of width x height points."""

    image: Image
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Text:
    """One line of text; (x, y) is the left (or, with `right`, the right) end of its baseline."""

    text: str
    x: float
    y: float
    size: float
    bold: bool = False
    color: str = INK
    right: bool = False


@dataclass
class Page:
    width: float
    height: float
    pictures: list[Picture] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Photographs that could not be shown, each with the reason."""

    @property
    def lacking(self) -> str | None:
        """The characters of its texts that no font here has, and the font to install, in one line."""
        return lacking(text.text for text in self.texts)


def add_line(page: Page, place: tuple[float, float, float], left: Text, right: Text) -> None:
    """Add two texts at both ends of a line, each cut short to the room that the other leaves.

    `place` is x, the baseline and the width of the line; the places of the texts are not used.
    """
    x, y, width = place
    numbers = fitted(right.text, 0.65 * width, right.size, right.bold)
    room = width - text_width(numbers, right.size, right.bold) - left.size
    name = fitted(left.text, room, left.size, left.bold)
    page.texts.append(replace(left, text=name, x=x, y=y))
    page.texts.append(replace(right, text=numbers, x=x + width, y=y, right=True))


def add_rank(page: Page, place: tuple[float, float, float], rank: str, value: str) -> None:
    """Add a rank and a value at both ends of the line below a tile, smaller where the tile is narrow.

    `place` is x, the baseline and the width of the tile.
    """
    x, y, width = place
    taken = text_width(f"{rank} ", SMALL, bold=True) + text_width(value, SMALL)
    size = SMALL * min(1.0, width / taken)
    page.texts.append(Text(rank, x, y, size, bold=True))
    page.texts.append(Text(value, x + width, y, size, color=QUIET, right=True))


def add_title(page: Page, title: str, x: float = MARGIN) -> None:
    """Add the title of a page, cut short to its width."""
    shown = fitted(title, page.width - MARGIN - x, TITLE, bold=True)
    page.texts.append(Text(shown, x, MARGIN + TITLE * 0.8, TITLE, bold=True))
