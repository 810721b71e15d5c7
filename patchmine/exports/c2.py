"""The folders that the C2-Score reads (FaCT, C2Score-minimal): a folder for each unit, with pictures and their maps.

`concept_NAME/id_IMAGE_act_VALUE.jpg` is what the network sees, 224 x 224; `id_IMAGE_actmap.pt` the map of the
activation, float32 (grid height, grid width), with 0 for what is negative. Values are weights there, written in digits
alone, so a patch whose value is not positive is left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import RequestError
from patchmine.exports import Asked, Export
from patchmine.exports._matrices import write_tensor
from patchmine.exports._pictures import file_name, jpeg
from patchmine.exports._rows import counted
from patchmine.reading.patch import Patch

if TYPE_CHECKING:
    from torch import Tensor

HELP = "c2: a folder of pictures and activation maps for each unit, for the C2-Score"
FOLDER = True
K = 10


def check(asked: Asked) -> None:
    asked.only("c2")


def write(export: Export, out: Path) -> str:
    folders = _folders(export)
    by_image: dict[int, list[tuple[str, Patch]]] = defaultdict(list)
    for (unit, patches), folder in zip(export.every(), folders, strict=True):
        for _, patch in patches:
            if float(_act(patch)) > 0:
                by_image[patch.image_id].append((folder, patch))
        if not any(float(_act(patch)) > 0 for _, patch in patches):
            export.progress.note(f"{unit.unit} is left out: none of its patches has a positive activation")
    if not by_image:
        raise RequestError("no patch of these units has a positive activation, which the C2-Score weighs them by")
    count = _write_files(export, out, by_image)
    return counted(count, len({folder for patches in by_image.values() for folder, _ in patches}))


def _write_files(export: Export, out: Path, by_image: dict[int, list[tuple[str, Patch]]]) -> int:
    from PIL import Image

    from patchmine.exports._maps import batches, square

    count = 0
    layers = list(export.layers)
    export.progress.begin(len(by_image), 0, "photographs")
    for batch in batches(export.index, sorted(by_image), layers, export.asked.workers):
        pictures = square(batch.pixels).permute(0, 2, 3, 1).numpy()
        for row, image in enumerate(batch.images.tolist()):
            picture = jpeg(Image.fromarray(pictures[row]))
            for folder, patch in by_image[image]:
                (out / folder).mkdir(exist_ok=True)
                (out / folder / f"id_{image}_act_{_act(patch)}.jpg").write_bytes(picture)
                actmap = batch.maps[patch.unit.layer][row, patch.unit.channel]
                write_tensor(
                    _on_grid(actmap, export.index.field(patch.unit.layer).grid), out / folder / f"id_{image}_actmap.pt"
                )
                count += 1
        export.progress.advance(len(batch.images))
    return count


def _on_grid(actmap: Tensor, grid: tuple[int, int]) -> NDArray[np.float32]:
    """The positive part of a map, on the nominal grid (height, width): the reader stacks the maps of a unit."""
    from torch.nn.functional import interpolate

    positive = actmap.clamp(min=0)
    if positive.shape != grid:
        positive = interpolate(positive[None, None], size=grid, mode="bilinear")[0, 0]
    return positive.numpy()


def _act(patch: Patch) -> str:
    return f"{patch.value:.4f}"


def _folders(export: Export) -> list[str]:
    """The folder of each unit: its name, with the layer before it where two units have that name."""
    names = Counter(unit.name for unit in export.units)
    words = [unit.name if names[unit.name] == 1 else f"{unit.unit.layer}_{unit.name}" for unit in export.units]
    return [f"concept_{file_name(word)}" for word in words]
