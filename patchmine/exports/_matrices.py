"""One number for each photograph and channel, as .pt files: what CLIP-Dissect, DnD and CoSy cache of a network."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import RequestError
from patchmine.exports import Asked, Export
from patchmine.exports._pictures import file_name
from patchmine.ranking import Float32, Int64


def check(kind: str, asked: Asked) -> None:
    asked.only(kind, pick=False)
    if asked.k is not None:
        raise RequestError(f"export {kind} holds every photograph: leave -k out")


def write(export: Export, out: Path, pool: str, order: Int64, name: Callable[[str], str]) -> str:
    """A float32 tensor (photographs, channels) for each layer, with the photographs in this order.

    `pool` is `max`, which the table of the index holds, or `mean`, which takes one pass over the photographs. `name` is
    the name of the file of a layer. Raises StoreError for maxima of an index without a table.
    """
    layers = list(export.layers)
    _refuse_some(export)
    with _pooled(export, pool) as pooled:
        for layer in layers:
            write_tensor(pooled(layer)[order], out / name(layer))
    many = "layer" if len(layers) == 1 else "layers"
    return f"the {pool} of {len(order)} photographs for every channel of {len(layers)} {many}"


def write_tensor(array: NDArray[np.float32], file: Path) -> None:
    """Write an array as a tensor in torch's own format. Raises OSError."""
    import torch

    data = io.BytesIO()  # torch does not survive a disk that fills
    torch.save(torch.from_numpy(np.ascontiguousarray(array)), data)
    file.write_bytes(data.getbuffer())


@contextmanager
def _pooled(export: Export, pool: str) -> Iterator[Callable[[str], Float32]]:
    """A function that gives the numbers of a layer, float32 (photographs, channels)."""
    if pool == "max":
        yield lambda layer: export.index.store.table(layer)[0]
        return
    from patchmine.exports._positions import measured

    with measured(export) as positions:
        yield lambda layer: positions.mean(layer)[:]


def _refuse_some(export: Export) -> None:
    """A column stands for the channel of its number, so no channel may be missing. Raises RequestError."""
    for layer, units in export.layers.items():
        if len(units) < export.index.layers[layer]:
            raise RequestError(f"these files hold every channel of a layer: give --layer {layer} in place of --unit")


def in_order_of_folders(export: Export) -> Int64:
    """The photographs as torchvision's ImageFolder lists them: by class folder, then by folder, then by name."""
    paths = [record.path for record in export.index.store.records()]

    def key(image: int) -> tuple[str, str, str]:
        folder, _, name = paths[image].rpartition("/")
        return paths[image].partition("/")[0], folder, name

    return np.array(sorted(range(len(paths)), key=key), np.int64)


def word(export: Export) -> str:
    """The network's name in a file name: `resnet18` for `timm:resnet18`, the function for a Python file."""
    return file_name(export.index.job.model.rpartition(":")[2])
