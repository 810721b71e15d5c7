"""A whole layer: a table of contents, then pages of blocks, one for each unit, with its patches row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Generic, TypeVar

from patchmine.drawing.lettering import fitted, text_width
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.captions import value_text
from patchmine.sheets.origin import Origin, names_text
from patchmine.sheets.page import QUIET, Link, Page, Text, add_title
from patchmine.sheets.style import PAGE, Style

ACROSS, SEAM, AIR = 5, 2.0, 12.0
"""Blocks side by side, and points between tiles and between blocks."""

RATIO = 2**0.5
"""Height over width of a page, as of A4."""

NAMES_ACROSS = 3
DPI = 300
"""Pixels per inch that photographs keep, unless the user says otherwise: a layer has thousands of them."""


U = TypeVar("U", bound=OpenUnit)


@dataclass(frozen=True)
class Book(Generic[U]):
    """How the units of a layer lie on pages: so many blocks on each, so many names on each page of the contents."""

    units: Sequence[U]
    k: int
    style: Style
    dpi: int

    @property
    def columns(self) -> int:
        return self.style.columns or (ACROSS if not self.style.exact else max(1, int(self.style.width // 120)))

    @property
    def side(self) -> int:
        """Patches side by side in a block."""
        return ceil(sqrt(self.k))

    @property
    def block(self) -> float:
        return (self.style.inner - (self.columns - 1) * AIR) / self.columns

    @property
    def tile(self) -> float:
        return (self.block - (self.side - 1) * SEAM) / self.side

    @property
    def height(self) -> float:
        return RATIO * self.style.width

    @property
    def head(self) -> float:
        """Height of the lines above the tiles of a block."""
        return self.style.heading + self.style.leading + 3

    @property
    def step(self) -> float:
        """From the upper edge of one row of blocks to that of the next."""
        return self.head + ceil(self.k / self.side) * (self.tile + SEAM) + AIR

    @property
    def top(self) -> float:
        return self.style.margin + self.style.title + self.style.leading

    @property
    def rows(self) -> int:
        return max(1, int((self.height - self.top - self.style.margin + AIR) / self.step))

    @property
    def lines(self) -> int:
        """Lines of a column of the contents; the first page has fewer, below its facts."""
        return max(1, int((self.height - self.top - self.style.margin - 6 * self.style.leading) / self.style.leading))

    @property
    def on_a_page(self) -> int:
        return self.rows * self.columns

    @property
    def listed(self) -> int:
        """Names on a page of the contents."""
        return self.lines * self.names_across

    @property
    def names_across(self) -> int:
        return max(1, min(NAMES_ACROSS, int(self.style.inner // 150)))

    @property
    def contents(self) -> int:
        """Pages of the contents."""
        return ceil(len(self.units) / self.listed)

    @property
    def pages(self) -> int:
        return self.contents + ceil(len(self.units) / self.on_a_page)


def layer_pages(
    units: Sequence[U], k: int, top: Callable[[U], Patches], style: Style = PAGE, dpi: int = DPI
) -> Iterator[Page]:
    """The contents, then the blocks of the units; `top` gives the patches of one, up to k. Each page is drawn as it is
    asked for, with at most `dpi` pixels per inch of a photograph. Raises ValueError without units.
    """
    if not units:
        raise ValueError("a layer needs at least one unit")
    book = Book(units, k, style, dpi)
    for number in range(book.contents):
        yield _contents(book, number)
    for first in range(0, len(units), book.on_a_page):
        yield _blocks(book, first, top)


def _contents(book: Book[U], number: int) -> Page:
    style, first = book.style, number * book.listed
    page = Page(style.width, book.height, style=style, bookmark="Contents" if number == 0 else None)
    index = book.units[0].index
    origin = Origin.of(index)
    layers = ", ".join(dict.fromkeys(unit.unit.layer for unit in book.units))
    add_title(page, f"{layers} of {origin.model}")
    if number == 0:
        facts = (
            f"{len(book.units)} units, each with the {book.k} patches of {origin.photographs} photographs in "
            f"{origin.source} that drive it hardest, row by row. {tiles.hatched(book.units)}"
        )
        labels = names_text(index, (unit for unit in book.units if unit.unit not in index.names.given))
        page.write(fitted(facts, 2.9 * style.inner, style.small), style.margin, book.top, style.inner)
        if labels:
            text = fitted(labels, style.inner, style.small)
            page.texts.append(Text(text, style.margin, book.top + 3 * style.leading, style.small, color=QUIET))
    width = (style.inner - (book.names_across - 1) * AIR) / book.names_across
    for count, unit in enumerate(book.units[first : first + book.listed]):
        at = book.contents + (first + count) // book.on_a_page
        x = style.margin + count // book.lines * (width + AIR)
        y = book.top + (6 + count % book.lines) * style.leading
        shown = f"{at + 1}"
        room = width - text_width(f"  {shown}", style.small)
        name = fitted(f"{unit.unit.channel}  {unit.name}", room, style.small)
        page.texts += [Text(name, x, y, style.small), Text(shown, x + width, y, style.small, color=QUIET, right=True)]
        page.links.append(Link(x, y - 0.8 * style.leading, width, style.leading, at))
    return page


def _blocks(book: Book[U], first: int, top: Callable[[U], Patches]) -> Page:
    style, units = book.style, book.units[first : first + book.on_a_page]
    channels = f"{units[0].unit.channel} to {units[-1].unit.channel}" if len(units) > 1 else f"{units[0].unit.channel}"
    title = f"{units[0].unit.layer}, units {channels}"
    page = Page(style.width, book.height, style=style, bookmark=title)
    number = f"{book.contents + first // book.on_a_page + 1}"
    folio = Text(number, style.width - style.margin, style.margin + 0.8 * style.title, style.small, right=True)
    room = style.inner - text_width(f"  {number}", style.small)
    shown = fitted(title, room, style.heading, bold=True)
    page.texts += [Text(shown, style.margin, folio.y, style.heading, bold=True), folio]
    for count, unit in enumerate(units):
        x = style.margin + count % book.columns * (book.block + AIR)
        y = book.top + count // book.columns * book.step
        _block(page, book, unit, top(unit), (x, y))
    return page


def _block(page: Page, book: Book[U], unit: U, patches: Patches, place: tuple[float, float]) -> None:
    style, (x, y) = book.style, place
    y += style.heading
    name = fitted(unit.name, book.block, style.heading, bold=True)
    page.texts.append(Text(name, x, y, style.heading, bold=True))
    values = f"{value_text(patches[0])} to {value_text(patches[-1])}" if patches else "no patches"
    text = fitted(f"{values} · {unit.evidence}" if unit.evidence else values, book.block, style.small)
    page.texts.append(Text(text, x, y + style.leading, style.small, color=QUIET))
    top = place[1] + book.head
    # Tiles are square here, so that blocks are alike; a field that is not is cut to the middle.
    ratio = tiles.ratio(patches, patches.cropping)
    size = (book.tile / max(1.0, ratio), book.tile * min(1.0, ratio))
    shown = tiles.pictures(patches, patches.cropping, size, page.missing, dpi=book.dpi)
    for number, picture in enumerate(shown):
        left = x + number % book.side * (book.tile + SEAM)
        page.pictures.append(picture.at(left, top + number // book.side * (book.tile + SEAM)))
