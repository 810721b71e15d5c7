"""Fonts inside of files: the glyphs of a text, a font with no more than those, and glyphs as outlines."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

Command = tuple[str, tuple[tuple[float, float], ...]]
"""A step of an outline: `m`ove, `l`ine, `c`urve (cubic) or `h` (close), with its points in shares of the size."""


_NEUTRAL = ("WS", "ON", "NSM", "CS", "ES", "ET", "BN")
"""Classes of characters that are read from the side of their neighbors (Unicode Standard Annex 9)."""


@cache
def opened(file: Path) -> Any:
    """The font, read as far as it is needed; kept open."""
    from fontTools.ttLib import TTFont

    return TTFont(io.BytesIO(file.read_bytes()), fontNumber=0, lazy=True)


@lru_cache(maxsize=4096)
def glyphs(file: Path, text: str) -> tuple[tuple[int, str, float], ...]:
    """The glyphs of a text from left to right: number, the character that it stands for, advance in shares of the size.

    Letters of Arabic are joined, and what is read from the right is in that order. Nothing else is shaped.
    """
    font = opened(file)
    characters, widths, em = _characters(file), font["hmtx"].metrics, font["head"].unitsPerEm
    found = []
    for char, stands_for in visual(text, frozenset(characters)):
        name = characters.get(ord(char), ".notdef")
        found.append((font.getGlyphID(name), stands_for, widths[name][0] / em))
    return tuple(found)


@cache
def _characters(file: Path) -> dict[int, str]:
    return dict(opened(file).getBestCmap() or {})


def subset(file: Path, characters: Iterable[str], numbers: Iterable[int] = (), *, woff: bool = False) -> bytes:
    """The font with no more than the glyphs of these characters, and those of these numbers.

    As TrueType the glyphs keep their numbers, as WOFF the font keeps what joins and places them.
    """
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    options = Options(hinting=False, notdef_outline=True, glyph_names=False, recalc_timestamp=False)
    options.drop_tables += ["FFTM", "MATH"]
    if woff:
        options.layout_features = ["*"]
    else:
        options.retain_gids = True
        options.drop_tables += ["GSUB", "GPOS", "GDEF", "kern", "name", "OS/2", "post", "cmap", "gasp"]
    subsetter = Subsetter(options)
    subsetter.populate(text="".join(characters), gids=list(numbers))
    buffer = io.BytesIO()
    with TTFont(file, lazy=True, recalcTimestamp=False) as font:
        subsetter.subset(font)
        font.flavor = "woff" if woff else None
        font.save(buffer)
    return buffer.getvalue()


def outlines(file: Path, text: str) -> Iterator[tuple[float, list[Command]]]:
    """For each glyph of a text, from left to right, where it begins and its outline, in shares of the font's size."""
    from fontTools.pens.basePen import BasePen

    font = opened(file)
    shapes, em = font.getGlyphSet(), font["head"].unitsPerEm

    class Pen(BasePen):
        """Collects an outline; BasePen takes components apart and makes quadratic curves cubic."""

        def __init__(self) -> None:
            super().__init__(shapes)
            self.commands: list[Command] = []

        def _add(self, what: str, *points: tuple[float, float]) -> None:
            self.commands.append((what, tuple((x / em, y / em) for x, y in points)))

        def _moveTo(self, point: tuple[float, float]) -> None:  # noqa: N802 - fontTools' names
            self._add("m", point)

        def _lineTo(self, point: tuple[float, float]) -> None:  # noqa: N802
            self._add("l", point)

        def _curveToOne(self, *points: tuple[float, float]) -> None:  # noqa: N802
            self._add("c", *points)

        def _closePath(self) -> None:  # noqa: N802
            self._add("h")

    x = 0.0
    order = font.getGlyphOrder()
    for number, _, advance in glyphs(file, text):
        pen = Pen()
        shapes[order[number]].draw(pen)
        yield x, pen.commands
        x += advance


def visual(text: str, known: frozenset[int]) -> list[tuple[str, str]]:
    """The characters of a text from left to right, each with the one that it stands for.

    `known` are the characters of the font: joined forms of Arabic letters that it lacks are not used.
    """
    pairs = [(char, char) for char in text]
    if text.isascii() or not any(_from_right(char) for char in text):
        return pairs
    base = _from_right(next((char for char in text if unicodedata.bidirectional(char) in ("L", "R", "AL")), ""))
    joined = _joined(text, known)
    parts = [(right, [joined[number] for number in part]) for right, part in _directions(text, base)]
    ordered = [part[::-1] if right else part for right, part in parts]
    return [pair for part in (reversed(ordered) if base else ordered) for pair in part]


def _directions(text: str, base: bool) -> list[tuple[bool, list[int]]]:
    """The places of a text in parts that are read from one side: from the right, or not.

    What has no side of its own, such as a space, goes with its neighbors if they agree, else with the `base` of the
    line.
    """
    sides = [None if unicodedata.bidirectional(char) in _NEUTRAL else _from_right(char) for char in text]
    before, after = _filled(sides), _filled(sides[::-1])[::-1]
    found = [
        side if side is not None else (one if one == other and one is not None else base)
        for side, one, other in zip(sides, before, after, strict=True)
    ]
    return [(right, list(part)) for right, part in groupby(range(len(text)), key=found.__getitem__)]


def _filled(sides: Sequence[bool | None]) -> list[bool | None]:
    """The same with the last side before it in each place that has none."""
    found: list[bool | None] = []
    last = None
    for side in sides:
        last = last if side is None else side
        found.append(last)
    return found


def _from_right(char: str) -> bool:
    return unicodedata.bidirectional(char) in ("R", "AL") if char else False


@cache
def _forms() -> dict[tuple[str, str], str]:
    """Unicode's joined forms of single Arabic letters: by letter and `isolated`, `initial`, `medial` or `final`."""
    forms = {}
    for number in (*range(0xFB50, 0xFBB2), *range(0xFBD3, 0xFC00), *range(0xFE80, 0xFEF5)):
        kind, _, letters = unicodedata.decomposition(chr(number)).partition("> ")
        if kind and letters and " " not in letters:
            forms[chr(int(letters, 16)), kind[1:]] = chr(number)
    return forms


def _joined(text: str, known: frozenset[int]) -> list[tuple[str, str]]:
    forms = _forms()

    def joins(char: str, kinds: tuple[str, ...]) -> bool:
        return any((char, kind) in forms for kind in kinds)

    letters = [number for number, char in enumerate(text) if unicodedata.bidirectional(char) != "NSM"]
    shown = dict(enumerate(text))
    for place, number in enumerate(letters):
        before = text[letters[place - 1]] if place else ""
        after = text[letters[place + 1]] if place + 1 < len(letters) else ""
        char = text[number]
        from_before = joins(before, ("initial", "medial")) and joins(char, ("final", "medial"))
        to_after = joins(char, ("initial", "medial")) and joins(after, ("final", "medial"))
        kind = {(0, 0): "isolated", (0, 1): "initial", (1, 0): "final", (1, 1): "medial"}[from_before, to_after]
        form = forms.get((char, kind), char)
        shown[number] = form if ord(form) in known else char
    return [(shown[number], char) for number, char in enumerate(text)]
