"""Draw the picture of docs/receptive-fields.md: what three layers see of a photograph, and where they look.

python scripts/draw_fields.py
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import patchmine
from patchmine.crops import View, tile
from patchmine.index import Index
from patchmine.request import SHARE
from patchmine.units import Box, Position

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
SHOWN = "coffee"
PLACES = {"blocks.2": Position(1, 20), "blocks.3": Position(5, 4), "blocks.4": Position(8, 9)}
MARGIN = 24  # input pixels, at least, around the input


def draw(axes: Axes, index: Index, layer: str, position: Position) -> None:
    image = next(i for i in range(len(index)) if SHOWN in index.store.image(i).path)
    placement, field = index.placement(image), index.field(layer)
    width, height = placement.input
    whole, effective = field.group(0).whole(position), field.effective_box(0, position, SHARE)
    assert effective is not None
    overhang = max(-whole.left, -whole.top, whole.right - width, whole.bottom - height)
    margin = max(MARGIN, overhang + MARGIN // 2)
    frame = Box(-margin, -margin, width + margin, height + margin)
    data = index.source.read(index.store.image(image).path)
    picture = tile(data, placement, View(frame, Box(0, 0, width, height)), (frame.width * 2, frame.height * 2))
    axes.imshow(picture, extent=(frame.left, frame.right, frame.bottom, frame.top))
    for box, colour, style in ((whole, "#d6336c", "-"), (effective, "#1971c2", "-")):
        corner = (box.left, box.top)
        axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, edgecolor="white", linewidth=3.5))
        axes.add_patch(
            Rectangle(corner, box.width, box.height, fill=False, edgecolor=colour, linewidth=2, linestyle=style)
        )
    padding = 1 - field.visible(0, position)
    axes.set_title(f"{layer}, position ({position.y}, {position.x})", fontsize=9, loc="left", fontweight="bold")
    axes.set_xlabel(
        f"receptive field {whole.width} px, effective {effective.width} px\n"
        f"{padding:.0%} of the field is padding; {field.inside(field.group(0)):.0%} of all fields have none",
        fontsize=7.5,
    )
    axes.set_xlim(frame.left, frame.right)
    axes.set_ylim(frame.bottom, frame.top)
    axes.set_xticks([])
    axes.set_yticks([])


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photographs"
        folder.mkdir()
        for file in (files("skimage") / "data").iterdir():
            if Path(file.name).stem in PHOTOGRAPHS:
                shutil.copy(str(file), folder / file.name)
        patchmine.build_index(folder, folder.with_suffix(".patchmine"), layers=tuple(PLACES))
        index = patchmine.open_index(folder.with_suffix(".patchmine"))
        figure = Figure(figsize=(10, 3.9), dpi=140, layout="constrained")
        for axes, (layer, position) in zip(figure.subplots(1, 3), PLACES.items(), strict=True):
            draw(axes, index, layer, position)
        target = Path(__file__).parent.parent / "docs" / "receptive-fields.jpg"
        figure.savefig(Path(temporary) / "figure.png")
        with Image.open(Path(temporary) / "figure.png") as picture:
            picture.convert("RGB").save(target, quality=88, optimize=True)


if __name__ == "__main__":
    main()
