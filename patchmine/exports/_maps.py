"""Photographs of an index through its network, batch by batch, for kinds that need more than the table of maxima."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.backends import cudnn
from torch.nn.functional import interpolate

from patchmine import executors
from patchmine.errors import PhotographError
from patchmine.networks.folding import channels_last, deep_copy, folded
from patchmine.networks.taps import maps
from patchmine.photographs.decode import normalized, prepare
from patchmine.questions.look import surveyed
from patchmine.ranking import Int64
from patchmine.reading.opened import OpenIndex

BATCH = 16
"""Photographs in a batch."""

SIDE = 224
"""The side in pixels of the pictures that other tools expect."""


@dataclass(frozen=True)
class Batch:
    """Photographs of one input size: their ids (N,), pixels uint8 (N, 3, height, width), and the maps of each layer,
    float32 (N, channels, grid height, grid width) on the CPU."""

    images: Int64
    pixels: Tensor
    maps: Mapping[str, Tensor]


def batches(index: OpenIndex[Any], images: Iterable[int], layers: Sequence[str], workers: int) -> Iterator[Batch]:
    """These photographs through the network up to the last of the layers, decoded ahead by `workers` threads.

    Raises PhotographError, which names it, for a photograph that is gone or has changed, SourceError if the source has
    disappeared, StoreError if a layer is not as the index has it, and what `OpenIndex.network` raises.
    """
    network = index.network()
    device = torch.device(executors.kind(executors.DEFAULT).default_device())
    taps, _ = surveyed(index, network, layers, network.preprocessing.crop)
    module = folded(network.module, taps, network.blank())
    module = channels_last(module if device.type == "cpu" else deep_copy(module).to(device))
    for ids, pixels in _alike(index, images, workers):
        of_size, _ = surveyed(index, network, layers, (pixels.shape[2], pixels.shape[3]))
        inputs = normalized(pixels.to(device), index.preprocessing).contiguous(memory_format=torch.channels_last)
        with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):  # as the executors do
            found = maps(module, inputs, of_size)
        yield Batch(ids, pixels, {layer: output.float().cpu() for layer, output in found.items()})


def square(pixels: Tensor) -> Tensor:
    """Pixels uint8 (N, 3, height, width) as pictures of SIDE x SIDE."""
    if pixels.shape[2:] == (SIDE, SIDE):
        return pixels
    return interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)


def _alike(index: OpenIndex[Any], images: Iterable[int], workers: int) -> Iterator[tuple[Int64, Tensor]]:
    """Ids and pixels of batches of photographs with one input size."""
    held: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for image, pixels in _decoded(index, images, workers):
        batch = held.setdefault(tuple(pixels.shape), [])
        batch.append((image, pixels))
        if len(batch) == BATCH:
            yield _stacked(held.pop(tuple(pixels.shape)))
    yield from map(_stacked, held.values())


def _decoded(index: OpenIndex[Any], images: Iterable[int], workers: int) -> Iterator[tuple[int, Tensor]]:
    """Each photograph as the network takes it, in order; some are decoded ahead, so that memory is bounded."""

    def decoded(image: int) -> Tensor:
        try:
            return prepare(index.photograph(image), index.preprocessing).tensor
        except PhotographError as error:
            raise PhotographError(f"{index.path(image)!r}: {error}; this export needs it") from None

    left = iter(images)
    running: deque[tuple[int, Future[Tensor]]] = deque()
    pool = ThreadPoolExecutor(workers, "decode")
    try:
        while True:
            for image in islice(left, 2 * BATCH - len(running)):
                running.append((image, pool.submit(decoded, image)))
            if not running:
                return
            image, future = running.popleft()
            yield image, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _stacked(batch: Sequence[tuple[int, Tensor]]) -> tuple[Int64, Tensor]:
    ids, pixels = zip(*batch, strict=True)
    return np.array(ids, np.int64), torch.stack(pixels)
