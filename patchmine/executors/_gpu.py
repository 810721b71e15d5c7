"""Computes batches with torch on an NVIDIA GPU. One thread queues all work and does not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from weakref import finalize

import torch
from torch import Tensor
from torch.backends import cudnn

from patchmine.executors import Bound, Reduced
from patchmine.executors._reduce import Reducing, cells
from patchmine.networks.folding import channels_last, deep_copy, folded
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap, at_call, run_until, tapped
from patchmine.photographs.decode import normalized
from patchmine.ranking import Float32, Int64

IN_FLIGHT = 3
"""The number of batches on the GPU at once: one is computed, one waits, and one has its vectors copied back."""


@cache
def queuing() -> ThreadPoolExecutor:
    """The thread that queues. torch stores cuDNN's plans per thread, and planning a network takes seconds, so a single
    thread does it once."""
    return ThreadPoolExecutor(1, "gpu")


class GpuExecutor:
    """Runs the network up to its last tapped layer. Pixels and results travel through pinned memory.

    `run` is called from many threads, each with its own batch. Queuing a batch takes far less time than computing it,
    so the GPU always has the next batch ready. A caller waits twice: for the maxima, which decide what vectors to copy,
    and for the vectors.
    """

    def __init__(self, network: Network, taps: tuple[Tap, ...], device: torch.device, precision: torch.dtype) -> None:
        module = deep_copy(folded(network.module, taps, network.blank()))  # the original stays on its device
        self.module = channels_last(module.to(device))
        self.taps, self.device, self.precision = taps, device, precision
        self.preprocessing = network.preprocessing
        self.in_flight = threading.BoundedSemaphore(IN_FLIGHT)

    def reads(self, memory: Tensor) -> None:
        """Let the device copy from this memory directly, as from pinned memory, as long as it is there."""
        cuda, start = torch.cuda.cudart(), memory.data_ptr()
        if int(cuda.cudaHostRegister(start, memory.nbytes, 0)) == 0:
            finalize(memory, cuda.cudaHostUnregister, start)

    def run(self, pixels: Tensor, images: Int64, bounds: Mapping[str, Bound]) -> dict[str, Reduced]:
        pinned = pixels.pin_memory()

        def maxima(layers: dict[str, Reducing]) -> None:
            batch = normalized(pinned.to(self.device, non_blocking=True), self.preprocessing)
            self.forward(batch.contiguous(memory_format=torch.channels_last), self._taps(layers))

        def vectors(layers: dict[str, Reducing]) -> None:
            for name, layer in layers.items():
                layer.queue_vectors(images, bounds[name])

        with self.in_flight:
            layers: dict[str, Reducing] = {}
            self._wait_for(maxima, layers)
            self._wait_for(vectors, layers)
            return {name: layer.reduced() for name, layer in layers.items()}

    def values(self, inputs: Tensor, channels: Int64, places: Int64) -> Float32:
        last = self.taps[-1]

        def compute() -> Float32:
            found: list[Float32] = []
            with torch.cuda.device(self.device), torch.inference_mode():
                tap = at_call(
                    last, lambda out: found.append(cells(last, last.layout.vectors_of(out), channels, places))
                )
                self.forward(inputs.contiguous(memory_format=torch.channels_last), {last.layer: tap})
            return found[0]

        return queuing().submit(compute).result()

    def forward(self, batch: Tensor, taps: Mapping[str, Callable[[Tensor], None]]) -> None:
        """Queue one pass, float32 (N, 3, height, width) on the device, and return before it is done.

        Call it in the thread of `queuing`. Convolutions use the requested precision, not cuDNN's default TF32, which
        has 10 of float32's 23 bits.
        """
        exact = cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        half = torch.autocast("cuda", self.precision, enabled=self.precision is not torch.float32)
        with exact, half, tapped(self.module, taps):
            run_until(self.module, batch, self.taps[-1].layer, self.taps[-1].call)

    def _taps(self, layers: dict[str, Reducing]) -> dict[str, Callable[[Tensor], None]]:
        """Taps that put the queued reduction of each layer into `layers`."""

        def queued(tap: Tap, out: Tensor) -> Reducing:
            return Reducing.queued(tap.layout.vectors_of(out), tap.layout.readout)

        def tap(tap: Tap) -> Callable[[Tensor], None]:
            return at_call(tap, lambda out: layers.__setitem__(tap.layer, queued(tap, out)))

        return {each.layer: tap(each) for each in self.taps}

    def _wait_for(self, work: Callable[[dict[str, Reducing]], None], layers: dict[str, Reducing]) -> None:
        """Queue `work` on the layers and wait, without using a core, until the GPU has finished it."""

        def queue() -> torch.cuda.Event:
            with torch.cuda.device(self.device), torch.inference_mode():
                work(layers)
                arrived = torch.cuda.Event(blocking=True)
                arrived.record()
            return arrived

        queuing().submit(queue).result().synchronize()
