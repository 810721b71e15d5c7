"""What stands below a tile: rank, value and class, or a template of the user's; a scale bar; the color of a frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from string import Formatter
from typing import Any

from patchmine.drawing.lettering import fitted, text_width, wrapped
from patchmine.errors import RequestError
from patchmine.photographs.crops import Piece
from patchmine.reading.answers import Patches
from patchmine.reading.patch import Patch
from patchmine.sheets.page import INK, QUIET, Page, Picture, Rectangle, Text, add_rank
from patchmine.sheets.style import Style

FIELDS: dict[str, Callable[[Patch, str], Any]] = {
    "name": lambda _, name: name,
    "layer": lambda patch, _: patch.unit.layer,
    "channel": lambda patch, _: patch.unit.channel,
    "rank": lambda patch, _: patch.rank,
    "value": lambda patch, _: patch.value,
    "class": lambda patch, _: patch.class_name,
    "retained": lambda patch, _: patch.tight.retained if patch.cropped and patch.tight is not None else None,
    "area": lambda patch, _: patch.area if patch.cropped else None,
    "image": lambda patch, _: PurePath(patch.image).name,
}
"""The fields of a caption, each from a patch and the name of its unit; None leaves nothing in its place."""

_SPEC = re.compile(r"(?:.?[<>=^])?[-+ ]?#?0?\d{0,2}[,_]?(?:\.\d{1,2})?[a-zA-Z%]?")
"""Format specifications, of widths that can be read."""

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Colors that the color-blind can tell apart (Okabe & Ito 2008)."""

OTHERS = "#8c8c8c"
SIGNS = {1: ("positive", COLORS[0]), 0: ("zero", OTHERS), -1: ("negative", COLORS[5])}
FRAME = 1.5
"""The width of a frame in points."""

BELOW = 1.5
"""Points between a tile and its caption."""

_BAR, _LONGEST_BAR = 1.4, 0.45
"""Height of a scale bar in points, and its most length as a share of the tile."""


@dataclass(frozen=True)
class Template:
    """A caption such as `{name} {value:.2f}`; `\\n` begins a new line.

    Raises RequestError for an unknown field, or a format that its value cannot take.
    """

    template: str

    def __post_init__(self) -> None:
        try:
            parts = [(name, spec, turn) for _, name, spec, turn in Formatter().parse(self.template) if name is not None]
        except ValueError as error:
            raise RequestError(f"--caption {self.template!r} is not a template: {error}") from None
        for name, spec, turn in parts:
            if name not in FIELDS:
                raise RequestError(f"unknown field {name!r} in --caption: choose from {', '.join(FIELDS)}")
            if turn is not None or not _SPEC.fullmatch(spec or ""):
                raise RequestError(f"--caption cannot show {name} as {spec or turn!r}: write {{{name}}}")
            try:
                format(_SAMPLES[name], spec or "")
            except ValueError:
                raise RequestError(f"--caption cannot show {name} as {spec!r}: write {{{name}}}") from None

    def lines(self, patch: Patch, name: str) -> list[str]:
        text = ""
        for literal, field, spec, _ in Formatter().parse(self.template):
            value = FIELDS[field](patch, name) if field is not None else None
            text += literal + ("" if value is None else format(value, spec or ""))
        return text.replace("\\n", "\n").split("\n") if text.strip() else []


_SAMPLES: dict[str, Any] = {
    **dict.fromkeys(FIELDS, "a"),
    "channel": 1,
    "rank": 1,
    "value": 1.0,
    "retained": 0.8,
    "area": 0.1,
}


def add_caption(page: Page, patch: Patch, name: str, picture: Picture) -> None:
    """Add what stands below the tile of a patch of the unit of that name."""
    style = page.style
    x, width = picture.x, picture.width
    y = picture.y + picture.height + BELOW
    if style.scale_bar:
        add_scale(page, picture, y)
        y += style.tiny_leading
    if style.caption is not None:
        for line in style.caption.lines(patch, name):
            y += style.leading
            page.texts.append(Text(fitted(line, width, style.small), x, y - 0.24 * style.small, style.small))
        return
    add_rank(page, (x, y + style.small, width), f"{patch.rank}", value_text(patch))
    text = fitted(named(patch), width, style.small)
    page.texts.append(Text(text, x, y + style.small + style.leading, style.small))
    add_proof(page, patch, x, y + style.small + 2 * style.leading, width)


def add_proof(page: Page, patch: Patch, x: float, y: float, width: float) -> None:
    """Add what the patch's tight crop proves, from the baseline `y` on; nothing for a patch that shows none."""
    style = page.style
    for number, line in enumerate(_proof(patch, style, width)):
        page.texts.append(Text(line, x, y + number * style.tiny_leading, style.tiny, color=QUIET))


def caption_height(patches: Sequence[Patch], style: Style, width: float) -> float:
    """The height of the tallest caption of these patches, below tiles of that width."""
    bar = style.tiny_leading * style.scale_bar
    if style.caption is not None:
        lines = max((len(style.caption.lines(patch, "name")) for patch in patches), default=0)
        return bar + lines * style.leading + BELOW * bool(lines or bar)
    proof = max((len(_proof(patch, style, width)) for patch in patches), default=0)
    return bar + 2 * style.leading + BELOW + style.tiny_leading * proof


def _proof(patch: Patch, style: Style, width: float) -> list[str]:
    """In lines; none on a page for a paper, whose caption can show the field `retained`."""
    text = None if style.exact else patch.proof_text
    return wrapped(text, width, style.tiny) if text else []


def named(patch: Patch) -> str:
    """The class, or else the file's name."""
    return patch.class_name or PurePath(patch.image).name


def value_text(patch: Patch) -> str:
    return number_text(patch.value)


def number_text(value: float) -> str:
    """Three significant digits."""
    return f"{value:#.3g}".rstrip(".")


def add_scale(page: Page, picture: Picture, y: float) -> None:
    """Add a bar that shows how long a round number of source pixels is in this tile, and that number."""
    if not isinstance(picture.image, Piece) or not picture.image.across:
        return
    length, tiny = _round_length(_LONGEST_BAR * picture.image.across), page.style.tiny
    long = length / picture.image.across * picture.width
    page.rectangles.append(Rectangle(picture.x, y + 0.5 * tiny - _BAR / 2, long, _BAR, INK))
    text = f"{length:g} px"
    room = picture.width - long - 2
    if text_width(text, tiny) > room:
        text = f"{length:g}"
    size = tiny * min(1.0, room / text_width(text, tiny))
    page.texts.append(Text(text, picture.x + long + 2, y + 0.5 * tiny + 0.36 * size, size))


def _round_length(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not above `most`; `most` itself below 1."""
    scale = 1
    while 10 * scale <= most:
        scale *= 10
    return max((step * scale for step in (1, 2, 5) if step * scale <= most), default=most)


def add_frame(page: Page, patch: Patch, picture: Picture) -> None:
    """Add the frame of a tile, if the page's style asks for one, and note its meaning for the legend."""
    if page.style.frame is None:
        return
    if page.style.frame == "sign":
        meaning, color = SIGNS[(patch.value > 0) - (patch.value < 0)]
    else:
        meaning = named(patch) if patch.class_name else "no class"
        color = page.frames.get(meaning) or (COLORS[len(page.frames)] if len(page.frames) < len(COLORS) else OTHERS)
        meaning = meaning if color != OTHERS else "other classes"
    page.frames[meaning] = color
    dashed = page.style.frame == "sign" and patch.value < 0
    box = (picture.x, picture.y, picture.width, picture.height)
    page.rectangles.append(Rectangle(*box, color, FRAME, dashed))


def add_legend(page: Page, y: float) -> float:
    """Add what the colors of the frames mean, in lines below `y`; returns where they end."""
    style = page.style
    if not page.frames:
        return y
    x, side = style.margin, 0.8 * style.small
    baseline = y + style.leading
    for meaning, color in page.frames.items():
        text = fitted(meaning, style.inner - 2 * side, style.small)
        wide = 1.5 * side + text_width(text, style.small)
        if x > style.margin and x + wide > style.width - style.margin:
            x, baseline = style.margin, baseline + style.leading
        page.rectangles.append(Rectangle(x, baseline - side, side, side, color))
        page.texts.append(Text(text, x + 1.5 * side, baseline, style.small))
        x += wide + 2 * side
    return baseline + 0.3 * style.small


def names_of(patches: Patches) -> list[str]:
    """The name of each patch's unit."""
    return [str(patches.described(patch.unit)["name"]) for patch in patches]
