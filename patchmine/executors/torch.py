"""Batches computed by torch itself, on any device that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from patchmine.decode import normalised
from patchmine.errors import RequestError
from patchmine.executors import Bound, Executor, Reduced, Setting
from patchmine.network import Network, Tap, last_call, run_until, tapped
from patchmine.ranking import Int64

HELP = "torch: PyTorch on the CPU or a GPU"

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HALF_MAX = float(torch.finfo(torch.float16).max)


def build(network: Network, taps: tuple[Tap, ...], setting: Setting) -> Executor:
    if setting.precision not in PRECISIONS:
        raise RequestError(f"there is no precision {setting.precision!r}: choose from {', '.join(PRECISIONS)}")
    try:
        device = torch.device(setting.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(
            f"device {setting.device!r} cannot be used here ({str(error).splitlines()[0]}); leave --device out for "
            f"{default_device()!r}"
        ) from None
    return TorchExecutor(network, taps, device, PRECISIONS[setting.precision])


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class TorchExecutor:
    """Runs the network up to its last tapped layer and reduces each layer's output as soon as it appears."""

    def __init__(self, network: Network, taps: tuple[Tap, ...], device: torch.device, precision: torch.dtype) -> None:
        self.module = network.module.to(device).to(memory_format=torch.channels_last)
        self.taps = taps
        self.device = device
        self.precision = precision
        self.preprocessing = network.preprocessing

    def run(self, pixels: Tensor, images: Int64, bounds: Mapping[str, Bound]) -> dict[str, Reduced]:
        reduced: dict[str, Reduced] = {}
        ids = torch.from_numpy(images).to(self.device)
        with torch.inference_mode(), self._cast():
            batch = normalised(pixels.to(self.device), self.preprocessing)
            batch = batch.contiguous(memory_format=torch.channels_last)
            with tapped(self.module, {t.layer: self._reduce(t, ids, bounds[t.layer], reduced) for t in self.taps}):
                run_until(self.module, batch, self.taps[-1].layer, self.taps[-1].calls)
        return reduced

    def _cast(self) -> AbstractContextManager[object]:
        if self.precision is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def _reduce(self, tap: Tap, ids: Tensor, bound: Bound, reduced: dict[str, Reduced]) -> Callable[[Tensor], None]:
        """A tap that puts the layer's reduction into `reduced`."""
        bound_value = torch.from_numpy(bound[0]).to(self.device)
        bound_image = torch.from_numpy(bound[1]).to(self.device)

        def see(output: Tensor) -> None:
            maps = tap.layout.grid_of(output).float().flatten(2)
            value, position = maps.max(dim=2)  # the first of equals, as the contract demands
            beats = (value > bound_value) | ((value == bound_value) & (ids[:, None] < bound_image))
            row, unit = torch.nonzero(beats & torch.isfinite(value), as_tuple=True)
            places = torch.unique(row * maps.shape[2] + position[row, unit])
            row, place = places // maps.shape[2], places % maps.shape[2]
            vectors = maps[row, :, place].clamp(-HALF_MAX, HALF_MAX).half()
            reduced[tap.layer] = Reduced(
                value=value.cpu().numpy(),
                position=position.cpu().numpy(),
                row=row.cpu().numpy(),
                place=place.cpu().numpy(),
                vectors=np.ascontiguousarray(vectors.cpu().numpy()),
            )

        return last_call(tap, see)
