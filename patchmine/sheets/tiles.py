"""One patch as a tile of a sheet: what it shows, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import PurePath

from PIL import ImageDraw
from PIL.Image import Image

from patchmine.errors import PhotographError
from patchmine.fields.field import FieldGroup, ReceptiveField
from patchmine.photographs.crops import View, padding, tile
from patchmine.reading.opened import Cropping, IndexedUnit
from patchmine.sheets.page import LONGEST, font
from patchmine.system.printable import printable
from patchmine.units import Box, Patch, Position

SLIVER = 16
"""The most that a tile is longer than wide, or wider than long."""


def images(
    unit: IndexedUnit, patches: Sequence[Patch], cropping: Cropping, size: tuple[int, int], missing: list[str]
) -> list[Image]:
    """The tiles of `size` (width, height) pixels, read and cut in parallel.

    A photograph that cannot be shown gets a tile that says why, and a line in `missing`.
    """
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda patch: _image(unit, patch, view(unit, patch, cropping), size), patches))
    tiles = []
    for patch, image in zip(patches, found, strict=True):
        if isinstance(image, str):
            missing.append(f"{patch.image}: {image}")
            image = _told(patch, image, size)
        tiles.append(image)
    return tiles


def ratio(unit: IndexedUnit, patches: Sequence[Patch], cropping: Cropping) -> float:
    """Height over width of a unit's tiles."""
    if not patches:
        return 1.0
    window = view(unit, patches[0], cropping).window
    return window.height / window.width


def view(unit: IndexedUnit, patch: Patch, cropping: Cropping) -> View:
    """What the tile of a patch of the index shows."""
    return framed(unit.index.field(patch.unit.layer, patch.image_id), patch, cropping)


def framed(field: ReceptiveField, patch: Patch, cropping: Cropping) -> View:
    """The field as it lies, in a frame of the same size for every patch; one larger than the input in the input."""
    group, channel = field.group(patch.unit.channel), patch.unit.channel
    seen = group.seen(patch.position)
    height, width = field.input
    if cropping.crop == "image":
        whole = Box(0, 0, width, height)
        framed = field.effective_box(channel, patch.position, cropping.share)
        return View(_widened(whole), whole, seen if seen != whole else framed and framed.intersect(whole))
    window = patch.input_box
    if cropping.crop == "erf":
        window = field.effective_box(channel, patch.position, cropping.share) or window
    elif group.size is None:
        # Fields of different sizes at different places: frames of one size, so that the scale is common.
        window = _centred(seen, *widest(group))
    across = (window.left, window.right) if window.width < width else (0, width)
    down = (window.top, window.bottom) if window.height < height else (0, height)
    window = _widened(Box(across[0], down[0], across[1], down[1]))
    return View(window, seen.intersect(window))


def _widened(box: Box) -> Box:
    """The box with room around it where it is a sliver: its tile would be thousands of pixels long."""
    width, height = max(box.width, ceil(box.height / SLIVER)), max(box.height, ceil(box.width / SLIVER))
    return box if (width, height) == (box.width, box.height) else _centred(box, height, width)


def widest(group: FieldGroup) -> tuple[int, int]:
    """Height and width of the largest clipped field in the group, in input pixels."""
    return int((group.rows[:, 1] - group.rows[:, 0]).max()), int((group.cols[:, 1] - group.cols[:, 0]).max())


def _centred(box: Box, height: int, width: int) -> Box:
    left, top = (box.left + box.right - width) // 2, (box.top + box.bottom - height) // 2
    return Box(left, top, left + width, top + height)


def _image(unit: IndexedUnit, patch: Patch, view: View, size: tuple[int, int]) -> Image | str:
    """The tile, or why there is none."""
    try:
        return tile(unit.index.photograph(patch.image_id), unit.index.placement(patch.image_id), view, size)
    except PhotographError as error:
        return str(error)


def _told(patch: Patch, reason: str, size: tuple[int, int]) -> Image:
    image = padding(size)
    text = f"{printable(PurePath(patch.image).name[:LONGEST])}\n{reason}"
    ImageDraw.Draw(image).multiline_text((8, 8), text, fill="#a00", font=font(size[0] / 16, False))
    return image


def value_text(patch: Patch) -> str:
    return f"{patch.value:#.3g}".rstrip(".")


def field_text(unit: IndexedUnit, cropping: Cropping) -> str:
    """What a tile shows, in words."""
    field = unit.index.field(unit.unit.layer)
    group = field.group(unit.unit.channel)
    height, width = field.input
    size = f"{group.size[1]}×{group.size[0]}" if group.size else "up to {1}×{0}".format(*widest(group))
    stride = f", stride {group.stride[1]}" if group.stride else ""
    whole = f"receptive field {size} px of the {width}×{height} input{stride}"
    if field.status == "whole_input":
        held = "gates held constant" if field.local else "gates included"
        whole += f" ({held}: the layer has some that see the whole input)"
    if cropping.crop == "image":
        return f"{whole}; the whole input is shown"
    if cropping.crop == "erf":
        middle = Position(field.grid[0] // 2, field.grid[1] // 2)
        box = field.effective_box(unit.unit.channel, middle, cropping.share)
        assert box is not None
        effective = f"effective field {box.width}×{box.height} px, {cropping.share:.0%} of the gradient's energy"
        return f"{effective}, of the {whole}"
    return whole
