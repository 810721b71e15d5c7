"""A row for each change of a unit's patches: how much of the activation remains, and what the network saw."""

from __future__ import annotations

from PIL import Image

from patchmine.drawing.lettering import fitted
from patchmine.fields.cropping import squared
from patchmine.probe.conditions import CONDITIONS
from patchmine.probe.probing import PICTURED, Changed, Probe
from patchmine.probe.verdict import INTERVAL, KINDS, Retained
from patchmine.sheets.captions import COLORS, number_text
from patchmine.sheets.origin import Origin
from patchmine.sheets.page import INK, QUIET, Page, Picture, Rectangle, Text, add_title
from patchmine.sheets.style import PAGE, Style
from patchmine.units import Box

_LEFT = 118.0  # points for the name of a condition and its bar
_BAR, _HEIGHT = 78.0, 5.0
_MOST = 1.25  # the longest bar
_WIDER = 1.3  # a tile shows so many times the patch's side


def probe_page(found: Probe, style: Style = PAGE) -> Page:
    """A page with the patches as they are in the first row, and below them a row for each condition."""
    page = Page(style.width, 0, style=style)
    add_title(page, f"{found.unit.name}: {KINDS[found.verdict.kind].partition(',')[0]}")
    origin = Origin.of(found.unit.index)
    verdict, count = str(found.verdict), len(found.changed)
    patches = "best patch" if count == 1 else f"{count} best patches"
    seen = "shown" if count <= PICTURED else f"the first {PICTURED} of which are shown"
    facts = (
        f"{verdict[0].upper()}{verdict[1:]}. {found.unit.unit} of {origin.model}; its {patches} of {origin.data}, "
        f"{seen} as the network saw {'it' if count == 1 else 'them'}. "
        "Bars: the share of the activation that remains, where 0% is an unrelated photograph and 100% (the line) the "
        f"photograph as it is; thin lines: {INTERVAL:.0%} intervals over patches. Below each tile: the activation."
    )
    y = page.write(facts, style.margin, style.margin + style.title + style.leading, style.inner)
    side = (style.inner - _LEFT - (PICTURED - 1) * style.gap) / PICTURED
    shown = found.changed[:PICTURED]
    _tiles(page, shown, 0, y, side)
    page.texts.append(Text("as it is", style.margin, y + 0.5 * side, style.small, bold=True))
    y += side + style.leading + 6
    for number, (one, condition) in enumerate(zip(found.conditions, CONDITIONS, strict=True)):
        middle = y + 0.38 * side
        page.texts.append(Text(f"{one.name} {one}", style.margin, middle, style.small, bold=True))
        words = fitted(condition.words, _LEFT - 6, style.tiny)
        page.texts.append(Text(words, style.margin, middle + style.tiny_leading, style.tiny, color=QUIET))
        _bar(page, one, middle + 1.6 * style.tiny_leading)
        _tiles(page, shown, 2 + number, y, side)
        y += side + style.leading + 3
    page.height = y - 3 + style.margin
    return page


def _bar(page: Page, one: Retained, y: float) -> None:
    """Add a bar from 0 to the share retained, its interval as a thin line, and a tick at 1, below `y`."""
    left, width = page.style.margin, _BAR / _MOST
    page.rectangles += [
        Rectangle(left, y, _BAR, _HEIGHT, "#eeeeee"),
        Rectangle(left, y, max(_along(one.retained), 0.5), _HEIGHT, COLORS[0]),
        Rectangle(left + width, y - 1, 0.7, _HEIGHT + 2, INK),
    ]
    if one.low is not None and one.high is not None:
        low, high = _along(one.low), _along(one.high)
        page.rectangles.append(Rectangle(left + low, y + _HEIGHT / 2 - 0.35, max(high - low, 0.7), 0.7, INK))


def _along(share: float) -> float:
    """How far along the bar a share is, in points."""
    return _BAR / _MOST * min(max(share, 0.0), _MOST)


def _tiles(page: Page, shown: list[Changed], number: int, y: float, side: float) -> None:
    """Add the picture of each patch under one condition, with the activation below it."""
    small = page.style.tiny
    for place, changed in enumerate(shown):
        x = page.style.margin + _LEFT + place * (side + page.style.gap)
        picture = changed.pictures[number]
        height, width = picture.shape[1:]
        window = squared(_wider(changed.box), (height, width)).intersect(Box(0, 0, width, height))
        cut = Image.fromarray(picture.transpose(1, 2, 0)).crop(window.as_tuple())
        across, down = (side * length / max(window.width, window.height) for length in (window.width, window.height))
        page.pictures.append(Picture(cut, x, y, across, down))
        value = _of_whole((changed.plain, changed.unrelated, *changed.values)[number], changed.plain)
        page.texts.append(Text(value, x + side, y + side + small + 1, small, color=QUIET, right=True))


def _of_whole(value: float, whole: float) -> str:
    """The value, and 0 for what is a rounding error beside the whole: a millionth of it."""
    return "0" if abs(value) < 1e-6 * abs(whole) else number_text(value)


def _wider(box: Box) -> Box:
    """The box with some of its surroundings."""
    across, down = (round(max(1, (_WIDER - 1) / 2 * length)) for length in (box.width, box.height))
    return Box(box.left - across, box.top - down, box.right + across, box.bottom + down)
