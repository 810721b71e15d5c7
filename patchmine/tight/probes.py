"""Inputs made of a photograph, a box and a background, and what a unit does on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from patchmine.executors import Executor
from patchmine.units import Box


@dataclass(frozen=True)
class Spot:
    """The cell whose activation is read: `place` is y * grid width + x."""

    channel: int
    place: int


@dataclass(frozen=True)
class Probe:
    """One input and the cell to read on it: `inside` within the box, `outside` around it.

    Both are float32 (3, height, width), normalized, on the executor's device; None is gray. Where an activation of low
    precision will do, it need not be `exact`.
    """

    spot: Spot
    outside: Tensor | None
    inside: Tensor | None = None
    box: Box | None = None
    exact: bool = True


class Prober:
    """Computes probes with executors that tap one layer, in batches of a fixed size.

    `exact` computes in float32; what `rough` builds, if it is given, on the same device, faster and in a lower
    precision. It is built when it is first needed, beside the exact probes that every search begins with.
    `compute` can be called from several threads at once; each gives its own `batch`, float32 (N, 3, height, width).
    """

    def __init__(
        self, exact: Executor, rough: Callable[[], Executor] | None, batch_size: int, size: tuple[int, int]
    ) -> None:
        self.exact, self.batch_size, self.size = exact, batch_size, size
        self.has_rough = rough is not None
        self._build_rough, self._rough, self._building = rough, exact, Lock()

    def batch(self) -> Tensor:
        return torch.zeros(self.batch_size, 3, *self.size, device=self.exact.device)

    def compute(self, probes: Sequence[Probe], batch: Tensor) -> list[float]:
        """The activations, in the order of the probes: at most a batch of them, all of them exact or none."""
        executor = self.exact if probes[0].exact else self._of_low_precision()
        with torch.inference_mode():
            for row, probe in zip(batch, probes, strict=False):
                _compose(row, probe)
        channels = np.array([probe.spot.channel for probe in probes], np.int64)
        places = np.array([probe.spot.place for probe in probes], np.int64)
        values: list[float] = executor.values(batch, channels, places).astype(np.float64).tolist()
        return values

    def _of_low_precision(self) -> Executor:
        """The executor for probes that need not be exact."""
        with self._building:
            if self._build_rough is not None:
                self._rough, self._build_rough = self._build_rough(), None
        return self._rough


def _compose(row: Tensor, probe: Probe) -> None:
    if probe.outside is None:
        row.zero_()
    else:
        row.copy_(probe.outside)
    if probe.box is not None:
        box = (slice(None), slice(probe.box.top, probe.box.bottom), slice(probe.box.left, probe.box.right))
        row[box] = 0.0 if probe.inside is None else probe.inside[box]
