"""One patch as a tile of a sheet: its picture and its texts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath

from PIL import ImageDraw
from PIL.Image import Image

from patchmine.drawing.lettering import draw, wrapped
from patchmine.errors import PhotographError
from patchmine.fields.cropping import Cropping
from patchmine.photographs.crops import padding
from patchmine.photographs.placement import View
from patchmine.reading.opened import OpenUnit
from patchmine.reading.patch import Patch
from patchmine.units import Position

TIGHT_LEGEND = (
    "Clear: the smallest box found that alone, on gray and on the blurred photograph, brings back that much of the "
    "activation. Faded: its surroundings."
)


def images(
    patches: Sequence[Patch],
    cropping: Cropping,
    size: tuple[int, int],
    missing: list[str],
    context: bool = False,
) -> list[Image]:
    """The tiles of patches, each of `size` (width, height) pixels, read and cut in parallel.

    With `context` a tile shows the whole input, faded outside the patch's tight crop.

    A photograph that cannot be shown gets a tile with the reason, and a line in `missing`.
    """
    with ThreadPoolExecutor() as pool:
        views = [patch.context() if context else patch.view(cropping) for patch in patches]
        found = list(pool.map(lambda patch, view: _image(patch, view, size), patches, views))
    tiles = []
    for patch, image in zip(patches, found, strict=True):
        if isinstance(image, str):
            missing.append(f"{patch.image}: {image}")
            image = _reason_tile(patch, image, size)
        tiles.append(image)
    return tiles


def ratio(patches: Sequence[Patch], cropping: Cropping) -> float:
    """Height over width of the tiles of one unit's patches; 1 without patches, and for tight crops."""
    if not patches or cropping.crop == "tight":
        return 1.0
    window = patches[0].view(cropping).window
    return window.height / window.width


def _image(patch: Patch, view: View, size: tuple[int, int]) -> Image | str:
    """The tile, or the reason why the photograph cannot be shown."""
    try:
        return patch.tile(view, size)
    except PhotographError as error:
        return str(error)


def _reason_tile(patch: Patch, reason: str, size: tuple[int, int]) -> Image:
    image = padding(size)
    canvas, height = ImageDraw.Draw(image), size[0] / 16
    lines = [PurePath(patch.image).name, reason]
    for number, line in enumerate(line for text in lines for line in wrapped(text, size[0] - 16, height)):
        draw(canvas, (8, 8 + (number + 1) * 1.25 * height), line, height, "#a00")
    return image


def value_text(patch: Patch) -> str:
    return f"{patch.value:#.3g}".rstrip(".")


def field_text(unit: OpenUnit, cropping: Cropping) -> str:
    """The extent of a tile, in words."""
    field = unit.index.field(unit.unit.layer)
    group = field.group(unit.unit.channel)
    height, width = field.input
    size = f"{group.size[1]}×{group.size[0]}" if group.size else "up to {1}×{0}".format(*group.largest)
    stride = f", stride {group.stride[1]}" if group.stride else ""
    whole = f"receptive field {size} px of the {width}×{height} input{stride}"
    if field.status == "whole_input":
        held = "gates held constant" if field.local else "gates included"
        whole += f" ({held}: some gates of the layer see the whole input)"
    if cropping.crop == "image":
        return f"{whole}; the whole input is shown"
    if cropping.crop == "tight":
        return f"tight crops: boxes that alone bring back {cropping.retained:.0%} of the activation; {whole}"
    if cropping.crop == "erf":
        middle = Position(field.grid[0] // 2, field.grid[1] // 2)
        box = field.effective_box(unit.unit.channel, middle, cropping.energy)
        assert box is not None
        effective = f"effective field {box.width}×{box.height} px, {cropping.energy:.0%} of the gradient's energy"
        return f"{effective}, of the {whole}"
    return whole
