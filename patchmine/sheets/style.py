"""Sizes that all layouts share, in points (1/72 inch), and the widths of pages that venues ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from patchmine.defaults import VENUES
from patchmine.errors import RequestError
from patchmine.reading.patch import Patch

INCH, TEX_POINT, MM = 72.0, 72 / 72.27, 72 / 25.4
"""In points; a point of TeX is a little smaller."""

NARROWEST_PATCH = 0.35 * INCH
"""Patches narrower than this are hard to see in print."""

SHORTEST, LONGEST = 30 * MM, 2000 * MM
"""The widths that a page may have."""


class Caption(Protocol):
    """What stands below a tile: the lines for a patch of the unit of that name."""

    def lines(self, patch: Patch, name: str) -> list[str]: ...


@dataclass(frozen=True)
class Style:
    """How a page is set.

    `width` is that of the page, `margin` lies around it, `gap` between tiles. `title`, `heading`, `small` and `tiny`
    are text sizes, `leading` and `tiny_leading` the distances between lines of the last two. An `exact` page is for a
    paper: exactly `width` wide, without the title and the facts, which belong into the caption of the figure.

    `columns` is how many tiles stand side by side; None leaves it to the layout. `caption` replaces what stands below
    each tile. `frame` is `class` or `sign`: what the color of the line around a tile says. `scale_bar` adds a bar in
    source pixels below each tile.
    """

    width: float = 560.0
    margin: float = 22.0
    gap: float = 7.0
    title: float = 15.0
    heading: float = 9.5
    small: float = 7.0
    leading: float = 9.5
    tiny: float = 5.5
    tiny_leading: float = 7.0
    exact: bool = False
    columns: int | None = None
    caption: Caption | None = None
    frame: str | None = None
    scale_bar: bool = False

    @property
    def inner(self) -> float:
        """The width between the margins."""
        return self.width - 2 * self.margin

    def tile(self, columns: int) -> float:
        """The width of a tile if so many stand side by side."""
        return (self.inner - (columns - 1) * self.gap) / columns


PAGE = Style()
"""A page to look at by itself."""

_UNITS = {"mm": MM, "cm": 10 * MM, "in": INCH, "pt": TEX_POINT}
_LENGTH = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(mm|cm|in|pt)")


def style_of(width: str | None) -> Style:
    """The style for `--width`: that of a venue, or of a length such as 89mm (`pt` are TeX's, 72.27 to an inch).

    None is PAGE. Raises RequestError for a word that is neither.
    """
    if width is None:
        return PAGE
    length, small, heading = VENUES.get(width, (width, 7.0, 9.0))
    return Style(
        width=points(length),
        margin=0.0,
        gap=3.0,
        title=heading,
        heading=heading,
        small=small,
        leading=1.3 * small,
        tiny=max(5.0, small - 1.5),
        tiny_leading=1.25 * max(5.0, small - 1.5),
        exact=True,
    )


def points(width: str) -> float:
    """A length such as 89mm in points. Raises RequestError."""
    found = _LENGTH.fullmatch(width)
    if found is None:
        known = f"choose from {', '.join(VENUES)}, or give a length such as 89mm, 3.5in or 240pt"
        raise RequestError(f"unknown --width {width!r}: {known}")
    length = float(found[1]) * _UNITS[found[2]]
    if not SHORTEST <= length <= LONGEST:
        raise RequestError(f"--width must be from {SHORTEST / MM:g}mm to {LONGEST / MM:g}mm, not {width}")
    return length
