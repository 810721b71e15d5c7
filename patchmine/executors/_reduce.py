"""Reduces a layer's output for a batch to the maximum and its place per unit, and the vectors that may rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from patchmine.executors import Bound, Reduced
from patchmine.networks.taps import Tap
from patchmine.ranking import Float32, Int64

if TYPE_CHECKING:
    from patchmine.readouts import Readout

HALF_MAX = float(torch.finfo(torch.float16).max)


def reduce(maps: Tensor, images: Int64, bound: Bound, readout: Readout | None = None) -> Reduced:
    """Reduce maps (N, channels, grid height, grid width) on any device, for images of the ids (N,).

    `maps` are the layer's own, as of `Layout.vectors_of`; `readout` reads the units of a virtual layer from them. The
    result shares no memory with `maps`. It has the vectors at the winning places of the units whose value beats their
    bound; the others can no longer rank.
    """
    flat = maps.float().flatten(2)
    if readout is None:
        value, position = _strongest(flat)
    else:
        value, position = (part.cpu().numpy() for part in readout.strongest(maps))
    row, place = _beating(value, position, images, bound, flat.shape[2])
    vectors = _vectors(flat, torch.from_numpy(row), torch.from_numpy(place)).cpu().numpy()
    return Reduced(value=value, position=position, row=row, place=place, vectors=np.ascontiguousarray(vectors))


def cells(tap: Tap, maps: Tensor, channels: Int64, places: Int64) -> Float32:
    """One cell for each of the first images, float32 (n,), of a layer whose own maps these are: `Executor.values`."""
    rows = np.arange(len(channels))
    row, channel, place = (torch.from_numpy(numbers).to(maps.device) for numbers in (rows, channels, places))
    found: Float32 = tap.layout.cells(maps, row, channel, place).float().cpu().numpy()
    return found


@dataclass
class Reducing:
    """A layer that is reduced on a GPU without waiting: each step is queued, and its copies to the host arrive when the
    GPU reaches it.

    `maps` stay on the device until their vectors are taken. They are a copy, because the next layer may overwrite the
    output in place.
    """

    maps: Tensor
    value: Tensor
    position: Tensor
    row: Int64
    place: Int64
    vectors: Tensor

    @classmethod
    def queued(cls, maps: Tensor, readout: Readout | None = None) -> Reducing:
        """Queue the maximum and its place of maps (N, channels, grid height, grid width), as for `reduce`."""
        flat = maps.flatten(2).clone()
        value, position = flat.max(dim=2) if readout is None else readout.strongest(maps)
        none = np.zeros(0, np.int64)
        return cls(flat, _to_host(value.float()), _to_host(position), none, none, flat)

    def queue_vectors(self, images: Int64, bound: Bound) -> None:
        """Queue the vectors that may rank. The maximum must have arrived."""
        cells = self.maps.shape[2]
        self.row, self.place = _beating(self.value.numpy(), self.position.numpy(), images, bound, cells)
        row, place = (_to_device(numbers, self.maps.device) for numbers in (self.row, self.place))
        self.vectors = _to_host(_vectors(self.maps, row, place))

    def reduced(self) -> Reduced:
        """The result. The vectors must have arrived. It is copied, because pinned memory is scarce."""
        value, position, vectors = (part.numpy().copy() for part in (self.value, self.position, self.vectors))
        return Reduced(value=value, position=position, row=self.row, place=self.place, vectors=vectors)


def _to_host(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, filled only when the device's queue reaches it."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def _to_device(numbers: Int64, device: torch.device) -> Tensor:
    return torch.from_numpy(numbers).pin_memory().to(device, non_blocking=True)


def _beating(value: Float32, position: Int64, images: Int64, bound: Bound, cells: int) -> tuple[Int64, Int64]:
    """Row in the batch and place of the patches whose unit beats its bound, each once."""
    beats = (value > bound[0]) | ((value == bound[0]) & (images[:, None] < bound[1]))
    row, unit = np.nonzero(beats & np.isfinite(value))
    row, place = np.divmod(np.unique(row * cells + position[row, unit]), cells)
    return row, place


def _strongest(flat: Tensor) -> tuple[Float32, Int64]:
    """Maximum and place of each row of (N, channels, cells). Of equal values the first counts."""
    if flat.device.type == "cpu" and flat.is_contiguous():
        # NumPy searches contiguous rows with vector instructions, three times as fast as torch.
        rows = flat.numpy()
        position = rows.argmax(2)
        return np.take_along_axis(rows, position[..., None], 2)[..., 0], position
    found, places = flat.max(dim=2)
    return found.cpu().numpy(), places.cpu().numpy()


def _vectors(flat: Tensor, row: Tensor, place: Tensor) -> Tensor:
    """float16 (patches, channels) of (N, channels, cells), on its device."""
    return flat[row.to(flat.device), :, place.to(flat.device)].clamp(-HALF_MAX, HALF_MAX).half()
