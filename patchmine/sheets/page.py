"""A page as data: pictures and texts at places in points (1/72 inch) from the upper left corner."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont
from PIL.Image import Image

from patchmine.system.printable import printable

LONGEST = 400
"""Characters that the widest line of a page can hold, if all are narrow."""

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


@cache
def font_file(bold: bool) -> Path:
    """DejaVu Sans, which matplotlib ships: found without importing matplotlib."""
    spec = find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name


@cache
def font(size_px: float, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_file(bold)), size_px)


def text_width(text: str, size: float, bold: bool = False) -> float:
    """The width in points of a text of that size."""
    return font(100, bold).getlength(printable(text)) * size / 100


def fitted(text: str, width: float, size: float, bold: bool = False) -> str:
    """The text, cut short with an ellipsis if it is wider than `width` points."""
    if len(text) <= LONGEST and text_width(text, size, bold) <= width:
        return text
    text = text[:LONGEST]
    while text and text_width(text + "…", size, bold) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, width: float, size: float) -> list[str]:
    """The text in lines no wider than `width` points, broken at spaces."""
    lines: list[str] = []
    for word in (word[:LONGEST] for word in text.split(" ")):
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
