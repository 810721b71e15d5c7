"""Patches as tiles of a sheet: their pictures, rows and columns of them, and their extent in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from pathlib import PurePath

from PIL import ImageDraw
from PIL.Image import Image

from patchmine.drawing.lettering import draw, wrapped
from patchmine.errors import PhotographError, SourceError
from patchmine.fields.cropping import Cropping
from patchmine.fields.field import ReceptiveField
from patchmine.photographs.crops import Piece, padding
from patchmine.photographs.placement import View
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.reading.patch import Patch
from patchmine.reading.tokens import TokenFacts
from patchmine.sheets.captions import add_caption, add_frame, caption_height, names_of
from patchmine.sheets.page import DPI, Page, Picture, Rectangle
from patchmine.units import Position

TIGHT_LEGEND = (
    "Clear: the smallest box found that alone, on gray and on the blurred photograph, brings back most of the "
    "activation. Faded: its surroundings."
)

INSET, INSET_LINE = 0.45, 1.5
"""The side of an enlarged part in a corner of a tile, as a share of the tile's shorter one, and its line in points."""


def hatched(units: Iterable[OpenUnit]) -> str:
    """What hatched parts of the tiles of these units are. Tokens see the whole input, and have no field to end."""
    fields = any(unit.index.field(unit.unit.layer).token is None for unit in units)
    return f"Hatched: outside {'the receptive field or outside ' if fields else ''}the picture that the network saw."


def lay(
    page: Page,
    patches: Patches,
    place: tuple[float, float, float],
    columns: int,
    *,
    context: bool = False,
    bare: bool = False,
    level: Patches | None = None,
    over: Callable[[Patch, Piece], tuple[Piece, Piece | None]] | None = None,
) -> float:
    """Add the tiles of patches with their captions, row by row, in so many columns; returns where they end.

    `place` is x, y and the width of all columns. Reads the photographs, in parallel. With `context` a tile shows the
    whole input; `bare` ones have neither caption nor frame. The rows are level with those of `level`, beside them.
    `over` draws something over each piece, and may give a second one for a corner. A photograph that cannot be shown
    gets a tile with the reason, and a line in `page.missing`.
    """
    x, y, across = place
    style = page.style
    width = (across - (columns - 1) * style.gap) / columns
    height = width * (context_ratio(patches) if context else ratio(patches, patches.cropping))
    rows = patches if level is None else [*patches, *level]
    highest = height if level is None else max(height, width * ratio(level, level.cropping))
    step = highest + (0.0 if bare else caption_height(rows, style, width)) + style.gap
    shown = pictures(patches, patches.cropping, (width, height), page.missing, context)
    insets: dict[int, Piece] = {}
    for number, (patch, picture) in enumerate(zip(patches, shown, strict=True)):
        if over is not None and isinstance(picture.image, Piece):
            drawn, inset = over(patch, picture.image)
            shown[number] = replace(picture, image=drawn)
            if inset is not None:
                insets[number] = inset
    for number, (patch, name, picture) in enumerate(zip(patches, names_of(patches), shown, strict=True)):
        picture = picture.at(x + number % columns * (width + style.gap), y + number // columns * step)
        page.pictures.append(picture)
        if number in insets:
            page.pictures.append(_in_corner(insets[number], picture))
        if not bare:
            add_frame(page, patch, picture)
            add_caption(page, patch, name, picture)
    return y + ceil(len(patches) / columns) * step - style.gap * bool(patches)


def _in_corner(inset: Piece, picture: Picture) -> Picture:
    """The inset in the corner of the tile that is farthest from what the tile shows lit."""
    assert isinstance(picture.image, Piece)
    left, top, right, bottom = picture.image.lit or (0.0, 0.0, 1.0, 1.0)
    side = INSET * min(picture.width, picture.height)
    x = picture.x + (picture.width - side if left + right < 1 else 0.0)
    y = picture.y + (picture.height - side if top + bottom < 1 else 0.0)
    return Picture(inset, x, y, side, side, Rectangle(x, y, side, side, "#ffffff", INSET_LINE))


def pictures(
    patches: Sequence[Patch],
    cropping: Cropping,
    size: tuple[float, float],
    missing: list[str],
    context: bool = False,
    dpi: int | None = None,
) -> list[Picture]:
    """The tiles of patches, each of `size` (width, height) points at 0, 0, read and cut in parallel.

    With `context` a tile shows the whole input. With `dpi` photographs keep at most so many pixels per inch. One that
    cannot be shown gets a tile with the reason, and a line in `missing`.
    """
    with ThreadPoolExecutor() as pool:
        views = [patch.context() if context else patch.view(cropping) for patch in patches]
        found = list(pool.map(lambda patch, view: _piece(patch, view, size[0], dpi), patches, views))
    tiles = []
    for patch, image in zip(patches, found, strict=True):
        if isinstance(image, str):
            missing.append(f"{patch.image}: {image}")
        shown = _reason_tile(patch, image, size) if isinstance(image, str) else image
        tiles.append(Picture(shown, 0, 0, *size))
    return tiles


def ratio(patches: Sequence[Patch], cropping: Cropping) -> float:
    """Height over width of the tiles of one unit's patches; 1 without patches, and for tight crops."""
    if not patches or cropping.crop == "tight":
        return 1.0
    window = patches[0].view(cropping).window
    return window.height / window.width


def context_ratio(patches: Sequence[Patch]) -> float:
    """Height over width of tiles that show the whole input of each patch."""
    windows = [patch.context().window for patch in patches]
    return max((window.height / window.width for window in windows), default=1.0)


def _piece(patch: Patch, view: View, width: float, dpi: int | None) -> Piece | str:
    """What the tile, `width` points wide, shows, or the reason why the photograph cannot be shown."""
    try:
        piece = patch.piece(view)
        return piece if dpi is None else piece.reduced(width, dpi)
    except (PhotographError, SourceError) as error:
        return str(error)


def _reason_tile(patch: Patch, reason: str, size: tuple[float, float]) -> Image:
    across, down = (max(8, round(length * DPI / 72)) for length in size)
    image = padding((across, down))
    canvas, height = ImageDraw.Draw(image), across / 16
    lines = [PurePath(patch.image).name, reason]
    for number, line in enumerate(line for text in lines for line in wrapped(text, across - 16, height)):
        draw(canvas, (8, 8 + (number + 1) * 1.25 * height), line, height, "#a00")
    return image


def field_text(unit: OpenUnit, cropping: Cropping) -> str:
    """The extent of a tile, in words."""
    field = unit.index.field(unit.unit.layer)
    whole = _token_text(field) if field.token else _whole_text(field, unit.unit.channel)
    if cropping.crop == "image":
        return f"{whole}; the whole input is shown"
    if cropping.crop == "tight":
        return f"tight crops: boxes that alone bring back {cropping.retained:.0%} of the activation; {whole}"
    if cropping.crop == "erf":
        middle = Position(field.grid[0] // 2, field.grid[1] // 2)
        box = field.effective_box(unit.unit.channel, middle, cropping.energy)
        assert box is not None
        effective = f"effective field {box.width}×{box.height} px, {cropping.energy:.0%} of the gradient's energy"
        return f"{effective}, of {'a' if field.token else 'the'} {whole}"
    return f"{whole}; outlined, with its surroundings" if field.squares else whole


def doubts(unit: OpenUnit) -> str | None:
    """What the tokens of the unit's best patches say against it; None for nothing, and for a unit without tokens."""
    return TokenFacts.of(unit.index.store, unit.index.field(unit.unit.layer), unit.unit).text


def _whole_text(field: ReceptiveField, channel: int) -> str:
    group = field.group(channel)
    height, width = field.input
    size = f"{group.size[1]}×{group.size[0]}" if group.size else "up to {1}×{0}".format(*group.largest)
    stride = f", stride {group.stride[1]}" if group.stride else ""
    whole = f"receptive field {size} px of the {width}×{height} input{stride}"
    if field.status == "whole_input":
        held = "gates held constant" if field.local else "gates included"
        whole += f" ({held}: some gates of the layer see the whole input)"
    return whole


def _token_text(field: ReceptiveField) -> str:
    """A token of a transformer, and that it sees the whole input."""
    height, width = field.input
    size = field.groups[0].size if field.squares else None
    extent = f" of {size[1]}×{size[0]} px" if size else ""
    return f"{field.token}{extent}, which sees the whole {width}×{height} input"
