"""How a batch is computed. A module in this folder is a kind: it has

- `HELP`: one line;
- `missing() -> str | None`: why it is not to be had here and what to type, or None;
- `version() -> str`: what computes, for the job;
- `default_device() -> str`: where, if nobody says;
- `build(network, taps, setting, lanes) -> Executor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.cuda import OutOfMemoryError

from patchmine.errors import RequestError, nearest
from patchmine.networks.network import Network, Tap
from patchmine.ranking import Float32, Int64

Bound = tuple[Float32, Int64]
"""Value and image of each unit's last place so far, both (units,)."""


PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Setting:
    """How to compute; all of it can change the last bit of a value, so all of it is part of the job.

    `threads` are those of one batch: the oneDNN kernels that torch picks depend on their number.
    """

    device: str
    precision: str
    batch_size: int
    threads: int


@dataclass(frozen=True)
class Reduced:
    """What one batch leaves of one layer.

    `value` float32 and `position` int64, both (images, units): the maximum over the grid and the first place that
    holds it, y * grid width + x. `vectors` float16 (patches, units): the layer's output at the distinct places
    (`row` in the batch, `place`), both int64 (patches,), whose unit beat its bound.
    """

    value: Float32
    position: Int64
    row: Int64
    place: Int64
    vectors: NDArray[np.float16]


class Executor(Protocol):
    """Computes batches; `run` may be called from several threads at once."""

    def run(self, pixels: Tensor, images: Int64, bounds: Mapping[str, Bound]) -> dict[str, Reduced]:
        """Compute a batch: pixels uint8 (N, 3, height, width), images the ids (N,), a bound for each layer."""
        ...


def out_of_memory(error: BaseException) -> bool:
    """torch raises a class of its own for a GPU, and a bare RuntimeError for the CPU."""
    return isinstance(error, OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def kinds() -> dict[str, ModuleType]:
    """Every kind in this folder, by the name of its file."""
    names = [found.name for found in iter_modules(__path__) if found.name[0] != "_"]
    return {name: import_module(f"{__name__}.{name}") for name in names}


def kind(name: str) -> ModuleType:
    """The kind of that name. Raises RequestError where there is none, or what it needs is not installed."""
    known = kinds()
    if name not in known:
        raise RequestError(f"there is no executor {name!r}{nearest(name, known)}")
    why = known[name].missing()
    if why:
        raise RequestError(f"--executor {name} is not to be had here: {why}")
    return known[name]


def build(name: str, network: Network, taps: tuple[Tap, ...], setting: Setting, lanes: int) -> Executor:
    """An executor of that kind, good for `lanes` batches at once.

    Raises RequestError for a kind, device or precision that is not to be had.
    """
    if setting.precision not in PRECISIONS:
        raise RequestError(f"there is no precision {setting.precision!r}{nearest(setting.precision, PRECISIONS)}")
    executor: Executor = kind(name).build(network, taps, setting, lanes)
    return executor
