"""The mean amplitude spectrum of an index's own photographs, the constraint of the method `maco`.

Measured on first use and cached in the index. A damaged file is measured again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchmine.buckets.copies import bring
from patchmine.errors import PhotographError, SourceError
from patchmine.photographs.decode import prepare
from patchmine.reading.opened import OpenIndex
from patchmine.store import reading as store
from patchmine.synthesis.parametrization import spectrum_of
from patchmine.system import digests
from patchmine.system.atomic import write_atomically
from patchmine.system.untrusted_json import Misfit, read_bounded

PHOTOGRAPHS = 512
"""The most photographs that are measured, evenly spread over the index."""

FILE = "spectrum.f32"
_DIGEST = 2 * digests.DIGEST_BYTES


def of_index(index: OpenIndex[Any], note: Callable[[str], None] = lambda _: None) -> Tensor:
    """The spectrum, float32 (3, height, width // 2 + 1), in the form of `spectrum_of`, for inputs of the index's size.

    Read from `synthetic/spectrum.f32`, or measured and cached there: 32 characters that identify the index's
    photographs, then the numbers, little-endian. Raises SourceError if no photograph can be read.
    """
    size = _size(index)
    shape = (3, size[0], size[1] // 2 + 1)
    file = index.directory / store.SYNTHETIC / FILE
    bring(file)
    name = digests.of_json([index.manifest["job_digest"], len(index), *size]).encode()
    found = _stored(file, name, shape)
    if found is None:
        note(f"measuring the amplitude spectrum of {min(PHOTOGRAPHS, len(index))} photographs")
        found = measured(index, size)
        try:
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, [name, found.astype("<f4").tobytes()])
        except OSError as error:
            note(f"the spectrum cannot be kept in {str(file)!r} ({error.strerror}): it is measured again next time")
    return torch.from_numpy(found)


def measured(index: OpenIndex[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """The mean amplitude of each coefficient over up to PHOTOGRAPHS photographs of the index."""
    preprocessing = replace(index.preprocessing, view="crop")
    chosen = np.unique(np.linspace(0, len(index) - 1, min(PHOTOGRAPHS, len(index))).round().astype(int)).tolist()

    def amplitudes(image: int) -> Tensor | str:
        try:
            pixels = prepare(index.photograph(image), preprocessing).tensor
        except PhotographError as error:
            return str(error)
        return spectrum_of(pixels[:, : size[0], : size[1]].to(torch.float32) / 255).abs().double()

    total, count, why = torch.zeros(()).double(), 0, ""
    with ThreadPoolExecutor() as pool:
        for found in pool.map(amplitudes, chosen):
            if isinstance(found, str):
                why = found
            else:
                total, count = total + found, count + 1
    if not count:
        raise SourceError(f"no photograph of {index.name} can be read ({why}), so their spectrum cannot be measured")
    mean: NDArray[np.float32] = (total / count).float().numpy()
    return mean


def _size(index: OpenIndex[Any]) -> tuple[int, int]:
    """The input size with an even width: an odd width would lack the highest frequency."""
    height, width = index.preprocessing.crop
    return height, width // 2 * 2


def _stored(file: Path, name: bytes, shape: tuple[int, int, int]) -> NDArray[np.float32] | None:
    most = _DIGEST + 4 * shape[0] * shape[1] * shape[2]
    try:
        data = read_bounded(file, most)
    except (OSError, Misfit):
        return None
    if len(data) != most or data[:_DIGEST] != name:
        return None
    found = np.frombuffer(data, "<f4", offset=_DIGEST).reshape(shape).astype(np.float32)
    return found if np.isfinite(found).all() and (found >= 0).all() else None
