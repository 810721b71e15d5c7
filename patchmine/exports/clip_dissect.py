"""The activations that CLIP-Dissect and DnD cache: if the file is there, they skip their own forward pass.

The folder is their `saved_activations`, with PROBE_TARGET_LAYER_max.pt for maxima and PROBE_TARGET_LAYER.pt for
averages; PROBE is the name of the index. The rows are in the order in which torchvision's ImageFolder lists the
photographs, which PROBE_photographs.txt repeats.
"""

from __future__ import annotations

from pathlib import Path

from patchmine.exports import Asked, Export, _matrices
from patchmine.exports._pictures import file_name

HELP = "clip-dissect: the activations of every photograph, for CLIP-Dissect and DnD"
FOLDER = True
K = 1

_SUFFIX = {"max": "_max", "mean": ""}


def check(asked: Asked) -> None:
    _matrices.check("clip-dissect", asked)


def write(export: Export, out: Path) -> str:
    pool, probe = export.asked.pool or "max", file_name(export.index.directory.resolve().stem)
    order = _matrices.in_order_of_folders(export)
    paths = "".join(f"{export.index.path(image)}\n" for image in order.tolist())
    (out / f"{probe}_photographs.txt").write_text(paths, "utf-8", "surrogateescape")
    start, end = f"{probe}_{_matrices.word(export)}", f"{_SUFFIX[pool]}.pt"
    return _matrices.write(export, out, pool, order, lambda layer: f"{start}_{file_name(layer)}{end}")
