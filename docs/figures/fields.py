"""Draw the picture of docs/receptive-fields.md: what layers see of a photograph, and where they look.

    python -m docs.figures.fields

The first row is ResNet-50, whose fields need no trained weights; the second the built-in network with its effective
fields, which do.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from docs.figures.samples import free_photographs, index_of, save
from patchmine import models
from patchmine.defaults import MODEL, SHARE
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField
from patchmine.photographs.crops import piece
from patchmine.photographs.placement import Placement, View
from patchmine.units import Box, Position

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
SHOWN = "coffee"
RESNET = {"layer2": Position(9, 11), "layer3": Position(7, 4), "layer4": Position(1, 4)}
BUILTIN = {"blocks.2": Position(1, 20), "blocks.3": Position(5, 4), "blocks.4": Position(8, 9)}
MARGIN = 24  # input pixels, at least, around the input


def draw(axes: Axes, data: bytes, placement: Placement, field: ReceptiveField, network: str, at: Position) -> None:
    width, height = placement.input
    whole, effective = field.group(0).whole(at), field.effective_box(0, at, SHARE)
    overhang = max(-whole.left, -whole.top, whole.right - width, whole.bottom - height)
    margin = max(MARGIN, overhang + MARGIN // 2)
    frame = Box(-margin, -margin, width + margin, height + margin)
    picture = piece(data, placement, View(frame, Box(0, 0, width, height))).drawn((frame.width * 2, frame.height * 2))
    axes.imshow(picture, extent=(frame.left, frame.right, frame.bottom, frame.top))
    for box, color in ((whole, "#d6336c"), (effective, "#1971c2")):
        if box is not None:
            corner = (box.left, box.top)
            axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, edgecolor="white", linewidth=3.5))
            axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, edgecolor=color, linewidth=2))
    axes.set_title(f"{network} {field.layer}, position ({at.y}, {at.x})", fontsize=9, loc="left", fontweight="bold")
    sizes = f"receptive field {whole.width} px" + (f", effective {effective.width} px" if effective else "")
    axes.set_xlabel(
        f"{sizes}\n{1 - field.visible(0, at):.0%} of the field is padding; "
        f"{field.inside(field.group(0)):.0%} of all fields have none",
        fontsize=7.5,
    )
    axes.set_xlim(frame.left, frame.right)
    axes.set_ylim(frame.bottom, frame.top)
    axes.set_xticks([])
    axes.set_yticks([])


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = free_photographs(Path(temporary), PHOTOGRAPHS)
        (shown,) = folder.glob(f"{SHOWN}.*")
        resnet = models.load("torchvision:resnet50", pretrained=False)
        builtin = models.load(MODEL, pretrained=False)
        exact = receptive_fields(resnet.module, resnet.preprocessing.crop, list(RESNET))
        index = index_of(folder, tuple(BUILTIN))
        measured = {layer: index.field(layer) for layer in BUILTIN}  # with the effective fields
        rows = [("ResNet-50", resnet, RESNET, exact), ("EfficientNet-Lite0", builtin, BUILTIN, measured)]
        figure = Figure(figsize=(10, 7.6), dpi=120, layout="constrained")
        with Image.open(shown) as picture:
            size = picture.size
        for line, (name, network, places, fields) in zip(figure.subplots(2, 3), rows, strict=True):
            placement = network.preprocessing.place(*size)
            for axes, (layer, at) in zip(line, places.items(), strict=True):
                draw(axes, shown.read_bytes(), placement, fields[layer], name, at)
        figure.savefig(Path(temporary) / "figure.png")
        save(Path(temporary) / "figure.png", "receptive-fields.jpg", quality=86)


if __name__ == "__main__":
    main()
