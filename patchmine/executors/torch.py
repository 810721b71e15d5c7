"""Computes batches with torch, on any device that torch supports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue

import torch
from torch import Tensor, nn

from patchmine.errors import RequestError
from patchmine.executors import Bound, Executor, Reduced, Setting
from patchmine.executors._gpu import GpuExecutor
from patchmine.executors._reduce import cells, reduce
from patchmine.networks.folding import channels_last, deep_copy, folded, replica
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap, at_call, run_until, tapped
from patchmine.photographs.decode import normalized
from patchmine.ranking import Float32, Int64
from patchmine.system import allocator

HELP = "torch: PyTorch on the CPU or a GPU"
RANK = 10
READY = True

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def missing() -> str | None:
    return None


def version() -> str:
    return f"torch {torch.__version__}"


def build(network: Network, taps: tuple[Tap, ...], setting: Setting, lanes: int) -> Executor:
    try:
        device = torch.device(setting.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(
            f"device {setting.device!r} is not available here ({str(error).splitlines()[0]}); leave --device out for "
            f"{default_device()!r}"
        ) from None
    if device.type == "cuda":
        return GpuExecutor(network, taps, device, _TYPES[setting.precision])
    if device.type == "cpu":
        allocator.keep_blocks()
    return TorchExecutor(network, taps, device, _TYPES[setting.precision], 1 if device.type != "cpu" else lanes)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def fits(network: Network, device: str, precision: str) -> bool:  # noqa: ARG001
    return True


def settings(device: str, workers: int) -> list[tuple[int, int]]:
    """One thread per batch avoids waiting between threads; all threads on one batch use less memory."""
    if device != "cpu":
        return [(128, 1), (256, 1), (64, 1)]
    alone = [(16, 1), (32, 1)]
    return [*alone, (32, workers)] if workers > 1 else alone


class TorchExecutor:
    """Runs the network up to its last tapped layer and reduces each layer's output as soon as it appears.

    Each lane has its own replica of the network, with shared weights: hooks belong to a module, and the hooks of one
    batch must not see another's outputs.
    """

    def __init__(
        self, network: Network, taps: tuple[Tap, ...], device: torch.device, precision: torch.dtype, lanes: int
    ) -> None:
        module = folded(network.module, taps, network.blank())
        if device.type != "cpu":
            module = deep_copy(module).to(device)  # the original stays on its device
        channels_last(module)
        self.replicas: SimpleQueue[nn.Module] = SimpleQueue()
        for _ in range(lanes):
            self.replicas.put(replica(module))
        self.taps = taps
        self.device = device
        self.precision = precision
        self.preprocessing = network.preprocessing

    def run(self, pixels: Tensor, images: Int64, bounds: Mapping[str, Bound]) -> dict[str, Reduced]:
        reduced: dict[str, Reduced] = {}
        module = self.replicas.get()
        try:
            with torch.inference_mode(), self._cast():
                batch = normalized(pixels.to(self.device), self.preprocessing).contiguous(
                    memory_format=torch.channels_last
                )
                with tapped(module, {t.layer: self._tap(t, images, bounds[t.layer], reduced) for t in self.taps}):
                    run_until(module, batch, self.taps[-1].layer, self.taps[-1].call)
        finally:
            self.replicas.put(module)
        return reduced

    def values(self, inputs: Tensor, channels: Int64, places: Int64) -> Float32:
        found: list[Float32] = []
        last = self.taps[-1]
        module = self.replicas.get()
        try:
            with (
                torch.inference_mode(),
                self._cast(),
                tapped(
                    module,
                    {
                        last.layer: at_call(
                            last, lambda out: found.append(cells(last, last.layout.vectors_of(out), channels, places))
                        )
                    },
                ),
            ):
                run_until(module, inputs.contiguous(memory_format=torch.channels_last), last.layer, last.call)
        finally:
            self.replicas.put(module)
        return found[0]

    def _cast(self) -> AbstractContextManager[object]:
        if self.precision is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def _tap(self, tap: Tap, images: Int64, bound: Bound, reduced: dict[str, Reduced]) -> Callable[[Tensor], None]:
        """A tap that puts the layer's reduction into `reduced`."""

        def see(output: Tensor) -> None:
            reduced[tap.layer] = reduce(tap.layout.vectors_of(output), images, bound, tap.layout.readout)

        return at_call(tap, see)
