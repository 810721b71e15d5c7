"""Text on pages: the font that has each character, the room that a text takes, and cutting it to the room there is.

The font is DejaVu Sans, which matplotlib ships. What it lacks, such as Chinese, is drawn in a font of the system that
has it, found by fontconfig; where there is none, characters become escapes, and `lacking` names the font to install.
"""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageFont

from patchmine.system.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.ImageDraw import ImageDraw

LONGEST = 400
"""Characters that the widest line of a page can hold, if all are narrow."""

_COMMON = "\u0250"
"""DejaVu Sans has every printable character before this one."""

_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
"""Characters that join or vary others and need no glyph of their own."""

_TRIES = 3
"""Characters of one script for which a font is looked for, before the script counts as lacking."""

_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "KANGXI")
_PICTOGRAPHS = 0x1F000

_lacking_scripts: Counter[str] = Counter()


@dataclass(frozen=True)
class Run:
    """A piece of a text that one font can show. `lacks` are the characters that became escapes in it."""

    text: str
    font: Path
    lacks: str = ""


@cache
def font_file(bold: bool) -> Path:
    """DejaVu Sans, found without importing matplotlib."""
    spec = find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name


@lru_cache(maxsize=64)
def font(size: float, file: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size)


@lru_cache(maxsize=4096)
def runs(text: str, bold: bool = False) -> tuple[Run, ...]:
    """The text in runs of one font each, from left to right. Control characters become escapes."""
    text = unicodedata.normalize("NFC", printable(text))
    own = font_file(bold)
    if not text or max(text) < _COMMON:
        return (Run(text, own),)
    found: list[Run] = []
    for cluster in _clusters(text):
        file = _font_of(cluster, own, found[-1].font if found else own)
        run = Run(cluster, file) if file is not None else Run(_escaped(cluster), own, cluster)
        if found and found[-1].font == run.font:
            run = Run(found[-1].text + run.text, run.font, found[-1].lacks + run.lacks)
            found.pop()
        found.append(run)
    # Where the text begins from the right, so do its runs; within a run the layout engine does the same.
    first = next((unicodedata.bidirectional(c) for c in text if unicodedata.bidirectional(c) in ("L", "R", "AL")), "L")
    return tuple(found if first == "L" else reversed(found))


def _clusters(text: str) -> Iterator[str]:
    """Each character with the marks and joiners after it."""
    cluster = ""
    for char in text:
        joined = cluster and (unicodedata.category(char)[0] == "M" or char in _JOINERS or cluster[-1] == "\u200d")
        if cluster and not joined:
            yield cluster
            cluster = ""
        cluster += char
    yield cluster


def _font_of(cluster: str, own: Path, last: Path) -> Path | None:
    """The font that shows the cluster: our own if it can, else that of the run before, else one of the system."""
    needed = frozenset(map(ord, cluster)) - frozenset(map(ord, _JOINERS))
    for file in (own, last, *_system_fonts):
        if needed <= _characters(file):
            return file
    for number in sorted(needed - _characters(own)):
        other = _looked_for(number)
        if other is not None and needed <= _characters(other):
            return other
    return None


_system_fonts: list[Path] = []
"""Fonts of the system that have shown something already."""


@cache
def _looked_for(number: int) -> Path | None:
    """A font of the system that has the character and draws it as outlines, remembered in `_system_fonts`."""
    script = _script(chr(number))
    if _lacking_scripts[script] >= _TRIES:
        return None
    for file in _candidates(number):
        if number in _characters(file):
            _system_fonts.append(file)
            return file
    _lacking_scripts[script] += 1
    return None


def _candidates(number: int) -> list[Path]:
    """Fonts that may have the character, those most like ours first."""
    if shutil.which("fc-match"):
        command = ["fc-match", "-s", "-f", "%{file}\n", f"sans-serif:charset={number:x}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", timeout=20)
        except (OSError, subprocess.SubprocessError):
            return []
        return [Path(line) for line in done.stdout.splitlines()]
    from patchmine.drawing.settings import system_fonts

    return system_fonts()


@cache
def _characters(file: Path) -> frozenset[int]:
    """The characters that a font has as outlines; none for a font of bitmaps or one that cannot be read."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with file.open("rb") as data, TTFont(data, fontNumber=0, lazy=True) as found:
            if not {"glyf", "CFF ", "CFF2"} & set(found.keys()):
                return frozenset()
            return frozenset(found.getBestCmap() or ())
    except (OSError, TTLibError, ValueError, KeyError, AssertionError):
        return frozenset()


def _escaped(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def _script(char: str) -> str:
    return unicodedata.name(char, "UNNAMED").split(" ")[0].partition("-")[0]


def lacking(texts: Iterable[str]) -> str | None:
    """One line that names the characters of these texts that no font here has, and what to install; None if all can be
    shown."""
    found = {char for text in texts for run in runs(text) for char in run.lacks if char not in _JOINERS}
    chars = sorted(char for char in found if unicodedata.category(char)[0] != "M") or sorted(found)
    if not chars:
        return None
    fonts = ", ".join(dict.fromkeys(map(_font_with, chars)))
    some = " ".join(chars[:5]) + (f" and {len(chars) - 5} more" if len(chars) > 5 else "")
    return f"no font on this system has {some}, shown as {_escaped(chars[0])}: install {fonts}"


def _font_with(char: str) -> str:
    """A free font that has the character."""
    script = _script(char)
    if script in _EAST_ASIAN:
        return "Noto Sans CJK"
    if ord(char) >= _PICTOGRAPHS:
        return "Noto Emoji or Symbola"
    return f"Noto Sans {script.title()}" if unicodedata.category(char)[0] in "LM" else "Noto Sans Symbols"


def text_width(text: str, size: float, bold: bool = False) -> float:
    """The width in points of a text of that size."""
    return sum(font(100, run.font).getlength(run.text) for run in runs(text, bold)) * size / 100


def fitted(text: str, width: float, size: float, bold: bool = False) -> str:
    """The text, cut short with an ellipsis if it is wider than `width` points."""
    if len(text) <= LONGEST and text_width(text, size, bold) <= width:
        return text
    low, high = 0, min(len(text), LONGEST)
    while low < high:  # the most characters that fit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(text[:middle] + "…", size, bold) <= width else (low, middle - 1)
    return text[:low].rstrip() + "…"


def wrapped(text: str, width: float, size: float) -> list[str]:
    """The text in lines no wider than `width` points, broken at spaces; a word that is wider is cut short."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(fitted(word, width, size))
    return lines


def draw(canvas: ImageDraw, place: tuple[float, float], text: str, size: float, fill: str, bold: bool = False) -> None:
    """Draw a text of `size` pixels with its baseline from `place` on."""
    x, y = place
    for run in runs(text, bold):
        canvas.text((x, y), run.text, fill=fill, font=font(size, run.font), anchor="ls")
        x += font(size, run.font).getlength(run.text)


def draw_on(figure: Figure, place: tuple[float, float], text: str, size: float, color: str, bold: bool = False) -> None:
    """Add a text of `size` points to a matplotlib figure, its baseline from `place` on: points from its lower left
    corner. Runs of our own font stay text, those of the system's fonts become outlines, which every format can hold."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    x, y = place
    for run in runs(text, bold):
        properties = FontProperties(fname=run.font, size=size)
        inch = Affine2D().translate(x, y).scale(1 / 72) + figure.dpi_scale_trans
        if run.font == font_file(bold):
            figure.text(
                0, 0, run.text, color=color, va="baseline", fontproperties=properties, transform=inch, parse_math=False
            )
        else:
            outlines = TextPath((0, 0), run.text, prop=properties)
            figure.add_artist(PathPatch(outlines, color=color, linewidth=0, transform=inch))
        x += text_width(run.text, size, bold)
