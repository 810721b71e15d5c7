"""One patch as a tile of a sheet: what it shows, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath

from PIL import ImageDraw
from PIL.Image import Image

from patchmine.crops import View, padding, tile
from patchmine.errors import PhotographError
from patchmine.geometry import FieldGroup
from patchmine.index import IndexedUnit
from patchmine.sheets.page import font
from patchmine.units import Box, Patch


def images(unit: IndexedUnit, patches: Sequence[Patch], crop: str, size: tuple[int, int]) -> list[Image]:
    """The tiles of `size` (width, height) pixels, read and cut in parallel."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda patch: _image(unit, patch, view(unit, patch, crop), size), patches))


def ratio(unit: IndexedUnit, patches: Sequence[Patch], crop: str) -> float:
    """Height over width of a unit's tiles."""
    if not patches:
        return 1.0
    window = view(unit, patches[0], crop).window
    return window.height / window.width


def view(unit: IndexedUnit, patch: Patch, crop: str) -> View:
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
            _centred(seen.left, seen.right, widest(group)[1]),
            _centred(seen.top, seen.bottom, widest(group)[0]),
        )
    return View(Box(across[0], down[0], across[1], down[1]), seen)


def widest(group: FieldGroup) -> tuple[int, int]:
    """Height and width of the largest clipped field in the group, in input pixels."""
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


def value_text(patch: Patch) -> str:
    return f"{patch.value:#.3g}".rstrip(".")


def field_text(unit: IndexedUnit, crop: str) -> str:
    """What a tile shows, in words."""
    group = unit.index.field(unit.unit.layer).group(unit.unit.channel)
    height, width = unit.index.preprocessing.crop
    size = f"{group.size[1]}×{group.size[0]}" if group.size else "up to {1}×{0}".format(*widest(group))
    stride = f", stride {group.stride[1]}" if group.stride else ""
    shown = {"rf": "", "image": "; the whole input is shown, the field framed"}[crop]
    return f"receptive field {size} px of the {width}×{height} input{stride}{shown}"
