"""Computes batches. Every module in this folder is a kind, with

- `HELP`: one line;
- `RANK`: its place among the executors; 0 for the one expected to be fastest;
- `READY`: whether it computes at once, without preparation that takes too long for a short job;
- `missing() -> str | None`: why it is not available here and what to type, or None;
- `version() -> str`: the library and its version, recorded in the job;
- `default_device() -> str`: the device if the user names none;
- `fits(network, device, precision) -> bool`: whether it can run this network; called only if nothing is missing;
- `settings(device, workers) -> list[(batch size, threads)]`: what calibration tries, the expected winner first;
- `build(network, taps, setting, lanes) -> Executor`. Raises RequestError if it does not support the setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch import device as Device
from torch.cuda import OutOfMemoryError

from patchmine.defaults import check
from patchmine.errors import RequestError
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap
from patchmine.plugins import Kinds
from patchmine.ranking import Float32, Int64

Bound = tuple[Float32, Int64]
"""Value and image of the last rank of each unit so far, both (units,)."""

DEFAULT = "torch"
"""The executor that is always available. All others are checked against it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How to compute. Every field can change the last bit of a value, so all are part of the job.

    `threads` is the number for one batch: torch picks its oneDNN kernels by it.
    """

    device: str
    precision: str
    batch_size: int
    threads: int


@dataclass(frozen=True)
class Reduced:
    """The result of one batch for one layer.

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
    """Computes batches on its `device`. Both methods can be called from several threads at once."""

    @property
    def device(self) -> Device: ...

    def run(self, pixels: Tensor, images: Int64, bounds: Mapping[str, Bound]) -> dict[str, Reduced]:
        """Compute a batch: pixels uint8 (N, 3, height, width), image ids (N,), and a bound for each layer."""
        ...

    def values(self, inputs: Tensor, channels: Int64, places: Int64) -> Float32:
        """One cell of the last tap's maps for each input, float32 (n,).

        `inputs` are normalized, float32 (N, 3, height, width) on `device`, N the setting's batch size. The cells are
        those of `channels` and `places` (y * grid width + x), both (n,) for the first n inputs; the others only fill
        the batch.
        """
        ...


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. torch raises OutOfMemoryError on a GPU, but a plain RuntimeError on the CPU."""
    return isinstance(error, OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


class Kind(Protocol):
    """The contract of a module of this package; its docstring explains each part."""

    HELP: str
    RANK: int
    READY: bool

    def missing(self) -> str | None: ...
    def version(self) -> str: ...
    def default_device(self) -> str: ...
    def fits(self, network: Network, device: str, precision: str) -> bool: ...
    def settings(self, device: str, workers: int) -> list[tuple[int, int]]: ...
    def build(self, network: Network, taps: tuple[Tap, ...], setting: Setting, lanes: int) -> Executor: ...


kinds: Kinds[Kind] = Kinds(
    "patchmine.executors",
    needs=("RANK", "READY", "missing", "version", "default_device", "fits", "settings", "build"),
)


def kind(name: str) -> Kind:
    """The kind of that name. Raises RequestError if it is unknown or a package that it needs is not installed."""
    found = kinds.get(name, "--executor")
    why = found.missing()
    if why:
        raise RequestError(f"--executor {name} is not available here: {why}")
    return found


def usable(network: Network, device: str, precision: str) -> list[str]:
    """The executors that are installed and fit, fastest first by expectation."""
    fitting = [
        (found.RANK, name)
        for name in kinds.names
        if (found := kinds.find(name)) and found.missing() is None and found.fits(network, device, precision)
    ]
    return [name for _, name in sorted(fitting)]


def build(name: str, network: Network, taps: tuple[Tap, ...], setting: Setting, lanes: int) -> Executor:
    """An executor of that kind, for `lanes` batches at once.

    Raises RequestError for an unknown kind and for a device or precision that is not available.
    """
    check({"precision": setting.precision})
    return kind(name).build(network, taps, setting, lanes)
