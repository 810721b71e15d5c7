"""The activations of CoSy's control photographs, val_MODEL-LAYER.pt: averages over positions, as in CoSy itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchmine.exports import Asked, Export, _matrices
from patchmine.exports._pictures import file_name

HELP = "cosy: the averages over positions of every photograph, for CoSy"
FOLDER = True
K = 1


def check(asked: Asked) -> None:
    _matrices.check("cosy", asked)


def write(export: Export, out: Path) -> str:
    order = np.arange(len(export.index), dtype=np.int64)
    word = _matrices.word(export)
    return _matrices.write(
        export, out, export.asked.pool or "mean", order, lambda layer: f"val_{word}-{file_name(layer)}.pt"
    )
