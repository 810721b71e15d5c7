"""Batches computed by torch on an NVIDIA GPU: one thread queues work at a time, and none waits while it does."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.backends import cudnn

from patchmine.decode import normalised
from patchmine.executors import Bound, Reduced
from patchmine.folding import folded
from patchmine.network import Network, Tap, last_call, run_until, tapped
from patchmine.ranking import Int64
from patchmine.reduction import Reducing

_IN_FLIGHT = 3
"""Batches whose maps are on the GPU at once: one computes, one waits for it, of one the vectors are fetched."""


class GpuExecutor:
    """Runs the network up to its last tapped layer; pixels in, and what is kept of them out, through pinned memory.

    `run` is called from many threads, each with a batch of its own. Queuing a batch takes a small part of the time that
    computing it takes, so threads queue one after the other, and the GPU always has the next batch at hand. A batch is
    waited for twice: for the maxima, since which vectors are wanted follows from them, and for the vectors.
    """

    def __init__(self, network: Network, taps: tuple[Tap, ...], device: torch.device, precision: torch.dtype) -> None:
        module = copy.deepcopy(folded(network.module, taps, network.blank()))  # the original stays where it is
        self.module = module.to(device).to(memory_format=torch.channels_last)
        self.taps, self.device, self.precision = taps, device, precision
        self.preprocessing = network.preprocessing
        self.queuing = threading.Lock()
        self.in_flight = threading.BoundedSemaphore(_IN_FLIGHT)

    def run(self, pixels: Tensor, images: Int64, bounds: Mapping[str, Bound]) -> dict[str, Reduced]:
        pinned = pixels.pin_memory()
        with self.in_flight, torch.inference_mode():
            layers: dict[str, Reducing] = {}
            with self._queue():
                batch = normalised(pinned.to(self.device, non_blocking=True), self.preprocessing)
                self.forward(batch.contiguous(memory_format=torch.channels_last), self._taps(layers))
            with self._queue():
                for name, layer in layers.items():
                    layer.queue_vectors(images, bounds[name])
            return {name: layer.reduced() for name, layer in layers.items()}

    def forward(self, batch: Tensor, taps: Mapping[str, Callable[[Tensor], None]]) -> None:
        """Queue one pass, float32 (N, 3, height, width) on the device. `cudnn` computes as precisely as it is asked to:
        its default is TF32, which keeps 10 bits of a float32's 23."""
        exact = cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        half = torch.autocast("cuda", self.precision, enabled=self.precision is not torch.float32)
        with exact, half, tapped(self.module, taps):
            run_until(self.module, batch, self.taps[-1].layer, self.taps[-1].calls)

    def _taps(self, layers: dict[str, Reducing]) -> dict[str, Callable[[Tensor], None]]:
        """Taps that put the reduction of each layer, under way, into `layers`."""

        def tap(tap: Tap) -> Callable[[Tensor], None]:
            return last_call(tap, lambda out: layers.__setitem__(tap.layer, Reducing.queued(tap.layout.grid_of(out))))

        return {each.layer: tap(each) for each in self.taps}

    @contextmanager
    def _queue(self) -> Iterator[None]:
        """Alone with the queue inside; afterwards the GPU is done with what was queued. Waiting takes no core."""
        arrived = torch.cuda.Event(blocking=True)
        with self.queuing:
            yield
            arrived.record(torch.cuda.current_stream(self.device))
        arrived.synchronize()
