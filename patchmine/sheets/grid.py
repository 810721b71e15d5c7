"""The grid: one unit's patches in rank order, at one common scale."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import ceil, sqrt
from pathlib import PurePath

from PIL import ImageDraw
from PIL.Image import Image

from patchmine.crops import View, padding, tile
from patchmine.errors import PhotographError
from patchmine.geometry import FieldGroup
from patchmine.index import IndexedUnit, Patches
from patchmine.sheets.page import DPI, QUIET, Page, Picture, Text, fitted, font, wrapped
from patchmine.units import Box, Patch

MARGIN, GAP, WIDTH = 22.0, 7.0, 560.0
TITLE, SMALL = 15.0, 7.0
LARGEST_TILE, NARROWEST = 200.0, 330.0


def grid_page(unit: IndexedUnit, patches: Patches, *, pick: str, crop: str) -> Page:
    """A page with the patches of one unit. Reads the photographs, in parallel."""
    columns = max(1, min(10, ceil(sqrt(len(patches)))))
    width = min(LARGEST_TILE, (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns)
    inner = max(NARROWEST - 2 * MARGIN, columns * (width + GAP) - GAP)
    windows = [_view(unit, patch, crop) for patch in patches]
    ratio = windows[0].window.height / windows[0].window.width if windows else 1.0
    height = width * ratio
    lines = wrapped(_subtitle(unit, patches, pick, crop), inner, SMALL)
    lines += [line for note in _notes(unit, patches, crop) for line in wrapped(note, inner, SMALL)]

    page = Page(inner + 2 * MARGIN, 0)
    page.texts.append(Text(unit.name, MARGIN, MARGIN + TITLE * 0.8, TITLE, bold=True))
    for number, line in enumerate(lines):
        page.texts.append(Text(line, MARGIN, MARGIN + TITLE + 9 + number * 9.5, SMALL, colour=QUIET))
    top = MARGIN + TITLE + 9 + len(lines) * 9.5 + 4
    size = (round(width * DPI / 72), round(height * DPI / 72))
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda patch, view: _image(unit, patch, view, size), patches, windows))
    step = height + 2 * 9.0 + GAP + 3
    for number, (patch, image) in enumerate(zip(patches, images, strict=True)):
        x, y = MARGIN + number % columns * (width + GAP), top + number // columns * step
        page.pictures.append(Picture(image, x, y, width, height))
        _caption(page, patch, x, y + height, width)
    page.height = top + ceil(len(patches) / columns) * step - GAP + MARGIN - 8
    return page


def _view(unit: IndexedUnit, patch: Patch, crop: str) -> View:
    """The receptive field as it lies, or, where it is larger than the input, the input."""
    group = unit.index.field(patch.unit.layer).group(patch.unit.channel)
    seen = group.seen(patch.position)
    height, width = unit.index.preprocessing.crop
    if crop == "image":
        whole = Box(0, 0, width, height)
        return View(whole, whole, seen if seen != whole else None)
    field = patch.input_box
    across = (field.left, field.right) if field.width < width else (0, width)
    down = (field.top, field.bottom) if field.height < height else (0, height)
    if group.size is None:
        # Fields of different sizes at different places: frames of one size, so that the scale is common.
        across, down = (
            _centred(seen.left, seen.right, _widest(group)[1]),
            _centred(seen.top, seen.bottom, _widest(group)[0]),
        )
    return View(Box(across[0], down[0], across[1], down[1]), seen)


def _widest(group: FieldGroup) -> tuple[int, int]:
    return int((group.rows[:, 1] - group.rows[:, 0]).max()), int((group.cols[:, 1] - group.cols[:, 0]).max())


def _centred(start: int, stop: int, size: int) -> tuple[int, int]:
    low = (start + stop - size) // 2
    return low, low + size


def _image(unit: IndexedUnit, patch: Patch, view: View, size: tuple[int, int]) -> Image:
    try:
        data = unit.index.source.read(patch.image)
        return tile(data, unit.index.placement(patch.image_id), view, size)
    except PhotographError as error:
        image = padding(size)
        text = f"{PurePath(patch.image).name}\n{error}"
        ImageDraw.Draw(image).multiline_text((8, 8), text, fill="#a00", font=font(size[0] / 16, False))
        return image


def _caption(page: Page, patch: Patch, x: float, y: float, width: float) -> None:
    value = f"{patch.value:#.3g}".rstrip(".")
    page.texts.append(Text(f"{patch.rank}", x, y + 8.5, SMALL, bold=True))
    page.texts.append(Text(value, x + width, y + 8.5, SMALL, colour=QUIET, right=True))
    named = patch.class_name or PurePath(patch.image).name
    page.texts.append(Text(fitted(named, width, SMALL), x, y + 17.5, SMALL))


def _subtitle(unit: IndexedUnit, patches: Patches, pick: str, crop: str) -> str:
    index = unit.index
    group = index.field(unit.unit.layer).group(unit.unit.channel)
    height, width = index.preprocessing.crop
    if group.size is None:
        field = f"receptive field up to {'×'.join(map(str, reversed(_widest(group))))} px"
    else:
        field = f"receptive field {group.size[1]}×{group.size[0]} px"
    stride = f", stride {group.stride[1]}" if group.stride else ""
    shown = {"rf": "", "image": "; the whole input is shown, the field framed"}[crop]
    return (
        f"unit {unit.unit} of {index.manifest['job']['model']} · "
        f"{field} of the {width}×{height} input{stride}{shown} · "
        f"{pick} {len(patches)} of {len(index)} photographs in {PurePath(index.manifest['job']['source']).name}"
    )


def _notes(unit: IndexedUnit, patches: Patches, crop: str) -> list[str]:
    notes = []
    numbers = unit.statistics
    if numbers.saturated:
        notes.append(
            f"Saturated: {numbers.tied} photographs hold the maximum {numbers.maximum:.3g}, so which of them are shown "
            "is arbitrary."
        )
    if crop == "rf" and any(patch.visible < 1 for patch in patches):
        notes.append("Hatched: outside the receptive field or outside the picture that the network saw.")
    return notes
