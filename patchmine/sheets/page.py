"""A page as data: pictures, rectangles and texts at places in points (1/72 inch) from the upper left corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from PIL.Image import Image

from patchmine.drawing.lettering import fitted, lacking, text_width, wrapped
from patchmine.photographs.crops import Piece
from patchmine.sheets.style import INCH, NARROWEST_PATCH, PAGE, Style

INK, QUIET = "#1a1a1a", "#666666"
DPI = 200


@dataclass(frozen=True)
class Rectangle:
    """A rectangle, filled or, with `line` points, drawn as a line inside its edges."""

    x: float
    y: float
    width: float
    height: float
    color: str
    line: float | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Picture:
    """An image, or a piece of a photograph in its own pixels, in the rectangle at (x, y) of width x height points.

    `frame` is drawn around it, below the pictures that follow.
    """

    image: Image | Piece
    x: float
    y: float
    width: float
    height: float
    frame: Rectangle | None = None

    def at(self, x: float, y: float) -> Picture:
        return replace(self, x=x, y=y)


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


@dataclass(frozen=True)
class Link:
    """A rectangle that leads to another page of the same document, counted from 0."""

    x: float
    y: float
    width: float
    height: float
    page: int


@dataclass
class Page:
    width: float
    height: float
    pictures: list[Picture] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    rectangles: list[Rectangle] = field(default_factory=list)
    """They lie above all pictures."""
    frames: dict[str, str] = field(default_factory=dict)
    """What each color of a frame means, for the legend: color by meaning."""
    links: list[Link] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Photographs that could not be shown, each with the reason."""
    style: Style = PAGE
    bookmark: str | None = None
    """Its line in the outline of a document of several pages."""

    @property
    def lacking(self) -> str | None:
        """The characters of its texts that no font here has, and the font to install, in one line."""
        return lacking(text.text for text in self.texts)

    def write(self, text: str, x: float, y: float, width: float, color: str = QUIET) -> float:
        """Add small text in lines of that width from the baseline `y` on; returns the next baseline."""
        for line in wrapped(text, width, self.style.small):
            self.texts.append(Text(line, x, y, self.style.small, color=color))
            y += self.style.leading
        return y


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


def add_heading(page: Page, place: tuple[float, float, float], name: str, beside: str) -> None:
    """Add a name in bold and, as far as there is room, what stands beside it in small letters.

    `place` is x, the baseline and the width of the line.
    """
    x, y, width = place
    size, small = page.style.heading, page.style.small
    shown = fitted(name, width if not beside else max(0.5 * width, width - text_width(beside, small)), size, bold=True)
    page.texts.append(Text(shown, x, y, size, bold=True))
    taken = text_width(f"{shown} ", size, bold=True)
    if beside and width - taken > 4 * small:
        page.texts.append(Text(fitted(beside, width - taken, small), x + taken, y, small, color=QUIET))


def add_rank(page: Page, place: tuple[float, float, float], rank: str, value: str) -> None:
    """Add a rank and a value at both ends of the line below a tile, smaller where the tile is narrow.

    `place` is x, the baseline and the width of the tile.
    """
    x, y, width = place
    small = page.style.small
    taken = text_width(f"{rank} ", small, bold=True) + text_width(value, small)
    size = small * min(1.0, width / taken)
    page.texts.append(Text(rank, x, y, size, bold=True))
    page.texts.append(Text(value, x + width, y, size, color=QUIET, right=True))


def add_title(page: Page, title: str, x: float | None = None) -> None:
    """Add the title of a page, cut short to its width."""
    margin, size = page.style.margin, page.style.title
    left = margin if x is None else x
    shown = fitted(title, page.width - margin - left, size, bold=True)
    page.texts.append(Text(shown, left, margin + size * 0.8, size, bold=True))


def narrow(page: Page) -> str | None:
    """Says that patches are too narrow for print, and how many side by side would not be; None if none is."""
    patches = [picture for picture in page.pictures if isinstance(picture.image, Piece) and picture.frame is None]
    width = min((picture.width for picture in patches), default=NARROWEST_PATCH)
    if width >= NARROWEST_PATCH - 1e-6:
        return None
    first = next(picture for picture in patches if picture.width == width)
    columns = sum(abs(picture.y - first.y) < 1e-6 and picture.width == width for picture in patches)
    gap = page.style.gap
    fitting = int((columns * (width + gap) + 1e-6) / (NARROWEST_PATCH + gap))
    found = f"patches are {width / INCH:.2f} in wide: below {NARROWEST_PATCH / INCH:g} in, print hides what they show"
    if fitting < 1:
        return f"{found}; choose another --width"
    return f"{found}; give --columns {fitting}" + (" or fewer" if fitting > 1 else "")


def stacked(pages: Sequence[Page], style: Style) -> Page:
    """One page of several of the same style, below one another."""
    if len(pages) == 1:
        return pages[0]
    whole = Page(max(page.width for page in pages), 0, style=style)
    for page in pages:
        down = whole.height
        for picture in page.pictures:
            frame = picture.frame and replace(picture.frame, y=picture.frame.y + down)
            whole.pictures.append(replace(picture, y=picture.y + down, frame=frame))
        whole.rectangles += [replace(rectangle, y=rectangle.y + down) for rectangle in page.rectangles]
        whole.texts += [replace(text, y=text.y + down) for text in page.texts]
        whole.missing += page.missing
        whole.height += page.height + style.gap
    whole.height -= style.gap
    return whole
