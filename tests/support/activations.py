"""What an index holds, to compare it with another one byte by byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from patchmine.store.reading import ACTIVATIONS


def datasets(directory: Path) -> dict[str, tuple[str, tuple[int, ...], Any]]:
    """Type, shape and content of every dataset of activations.h5. Numbers come as bytes, so that NaN equals itself."""
    found = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            array = np.asarray(item[()])
            content = array.tobytes() if array.dtype != object else list(array.ravel())
            found[name] = (str(item.dtype), item.shape, content)

    with h5py.File(directory / ACTIVATIONS) as file:
        file.visititems(visit)
    return found
