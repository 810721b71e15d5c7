"""The one internal form of every set of directions: what a sparse autoencoder's encoder, a probe or a CAV computes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchmine.system import digests

Norm = Literal["none", "layer_norm", "constant_norm"]
Activation = Literal["linear", "relu", "topk", "topk_relu", "threshold", "gated"]

BLOCK = 1 << 22
"""Values of latents at once in float32: 16 MB, whatever the numbers of latents, places and photographs are."""

_EPSILON = 1e-5  # of `layer_norm` in Prisma and SAELens, added to the standard deviation


@dataclass(frozen=True, eq=False, kw_only=True)
class Readout:
    """z = activation(((norm(x) - center) * scale) @ weight + bias), at each place of a layer. All tensors are float32.

    `weight` (width, units), `bias` (units,), `center` (width,) or None for zero. `norm` acts on each vector x (width,):
    `layer_norm` is (x - mean) / (std + 1e-5), `constant_norm` is x * sqrt(width) / |x|. The activations:

    - `linear` and `relu`;
    - `topk` keeps the k highest of all units of a place and sets the others to 0; `topk_relu` rectifies as well;
    - `threshold` keeps what is above `threshold` (units,), and sets the rest to 0;
    - `gated` (gated autoencoders): relu(pre * gain + offset) where pre is above 0, else 0; both are (units,).
    """

    weight: Tensor
    bias: Tensor
    center: Tensor | None = None
    scale: float = 1.0
    norm: Norm = "none"
    activation: Activation = "linear"
    k: int = 0
    threshold: Tensor | None = None
    gain: Tensor | None = None
    offset: Tensor | None = None

    @property
    def width(self) -> int:
        """The number of channels of the layer."""
        return self.weight.shape[0]

    @property
    def units(self) -> int:
        return self.weight.shape[1]

    @property
    def digest(self) -> str:
        """A digest of everything that the latents depend on."""
        digest = hashlib.blake2b(digest_size=digests.DIGEST_BYTES)
        for name, value in (*self.settings().items(), *self.tensors().items()):
            digest.update(f"{name} {value if not isinstance(value, Tensor) else tuple(value.shape)}\n".encode())
            if isinstance(value, Tensor):
                digest.update(value.contiguous().numpy().data)
        return digest.hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def settings(self) -> dict[str, str]:
        """The other fields by name, as texts."""
        return {"scale": repr(float(self.scale)), "norm": self.norm, "activation": self.activation, "k": str(self.k)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, str]) -> Readout:
        """The readout that `tensors` and `settings` describe. Raises ValueError for anything else."""
        names = {field.name for field in fields(cls)} - {"scale", "norm", "activation", "k"}
        known: dict[str, Any] = {name: tensor.float() for name, tensor in tensors.items() if name in names}
        if not {"weight", "bias"} <= known.keys() or settings.keys() < {"scale", "norm", "activation", "k"}:
            raise ValueError("it lacks a part of a readout")
        if settings["norm"] not in get_args(Norm) or settings["activation"] not in get_args(Activation):
            raise ValueError("it names an unknown norm or activation")
        others: dict[str, Any] = {name: settings[name] for name in ("norm", "activation")}
        found = cls(**known, **others, scale=float(settings["scale"]), k=int(settings["k"]))
        found.check()
        return found

    def check(self) -> None:
        """Raises ValueError for tensors that do not fit each other, or hold NaN or infinity."""
        width, units = self.weight.shape
        shapes = {"bias": units, "threshold": units, "gain": units, "offset": units, "center": width}
        for name, tensor in self.tensors().items():
            if name in shapes and tuple(tensor.shape) != (shapes[name],):
                raise ValueError(f"its {name} has shape {tuple(tensor.shape)}, not ({shapes[name]},)")
            if name != "threshold" and not bool(tensor.isfinite().all()):
                bad = int((~tensor.isfinite()).sum())
                raise ValueError(f"its {name} holds {bad} value{'s' * (bad != 1)} that {_ARE[bad == 1]} not finite")
        if self.threshold is not None and bool(self.threshold.isnan().any()):
            raise ValueError("its threshold holds NaN")
        if self.activation.startswith("topk") and not 0 < self.k <= units:
            raise ValueError(f"it keeps the {self.k} highest of {units} units")

    def __deepcopy__(self, memo: dict[int, Any]) -> Readout:
        """Itself: copies of a network share it, because nothing changes it."""
        return self

    def maps(self, grid: Tensor) -> Tensor:
        """The units' maps (N, units, height, width) for those of the layer (N, width, height, width of the grid)."""
        images, _, height, width = grid.shape
        return self._latents(_side_by_side(grid.flatten(2))).unflatten(1, (images, height, width)).transpose(0, 1)

    def cells(self, vectors: Tensor) -> Tensor:
        """The units (n, units) for vectors of the layer (n, width)."""
        return self._latents(vectors.T).T

    def strongest(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Each unit's maximum over the places of maps (N, width, height, width of the grid), and the first place of it.

        float32 and int64, both (N, units). No more than BLOCK latents are in memory at once.
        """
        flat = grid.flatten(2)
        images, _, places = flat.shape
        value = flat.new_full((images, self.units), -torch.inf, dtype=torch.float32)
        place = torch.zeros((images, self.units), dtype=torch.int64, device=flat.device)
        for some, first, stop in _blocks(images, places, self.units):
            latents = self._latents(_side_by_side(flat[some, :, first:stop]))
            highest, where = _highest(latents.unflatten(1, (-1, stop - first)))
            if first == 0:
                value[some], place[some] = highest.T, where.T
            else:  # of equal maxima the first counts, and NaN is above everything
                better = (value[some] < highest.T) | (highest.T.isnan() & ~value[some].isnan())
                value[some] = torch.where(better, highest.T, value[some])
                place[some] = torch.where(better, where.T + first, place[some])
        return value, place

    def on(self, device: torch.device) -> Readout:
        """The readout on a device."""
        if self.weight.device == device:
            return self
        there = _elsewhere.setdefault(self, {})
        if device not in there:
            moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self.tensors().items()}
            there[device] = replace(self, **moved)
        return there[device]

    def _latents(self, x: Tensor) -> Tensor:
        """The units (units, vectors) for vectors (width, vectors)."""
        own = self.on(x.device)
        with torch.autocast(x.device.type, enabled=False):
            x = normed(x.float(), own.norm)
            if own.center is not None:
                x = x - own.center[:, None]
            if own.scale != 1:
                x = x * own.scale
            return own._activated(own.weight.T.matmul(x).add_(own.bias[:, None]))

    def _activated(self, pre: Tensor) -> Tensor:
        match self.activation:
            case "linear":
                return pre
            case "relu":
                return pre.relu_()
            case "threshold":
                assert self.threshold is not None
                return pre.masked_fill_(pre <= self.threshold[:, None], 0)  # NaN stays
            case "gated":
                assert self.gain is not None and self.offset is not None
                return (pre * self.gain[:, None] + self.offset[:, None]).relu() * (pre > 0)
        # torch finds the highest of contiguous numbers, several times as fast as of those in a column.
        least = pre.detach().T.contiguous().topk(self.k, dim=1, sorted=False).values.amin(1)
        kept = pre.masked_fill_(pre < least, 0)
        return kept.relu_() if self.activation == "topk_relu" else kept


def normed(x: Tensor, norm: Norm) -> Tensor:
    """Vectors (width, vectors), each normalized in that way."""
    if norm == "layer_norm":
        x = x - x.mean(0)
        return x / (x.std(0) + _EPSILON)
    return x if norm == "none" else x * (len(x) ** 0.5 / x.norm(dim=0))


def _side_by_side(flat: Tensor) -> Tensor:
    """The vectors (width, N * places) of maps (N, width, places): one product over all is faster than one for each."""
    return flat.transpose(0, 1).flatten(1)


_ARE = ("are", "is")
_elsewhere: WeakKeyDictionary[Readout, dict[torch.device, Readout]] = WeakKeyDictionary()


def _blocks(images: int, places: int, units: int) -> Iterator[tuple[slice, int, int]]:
    """Blocks of photographs and, where one photograph is too much, of its places."""
    many = max(1, BLOCK // (units * places))
    step = places if units * places <= BLOCK else max(1, BLOCK // units)
    for image in range(0, images, many):
        for first in range(0, places, step):
            yield slice(image, image + many), first, min(first + step, places)


def _highest(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum and its first place, both (units, N), of latents (units, N, places)."""
    if latents.device.type != "cpu":
        highest = latents.max(dim=2)
        return highest.values, highest.indices
    # NumPy searches contiguous rows with vector instructions, three times as fast as torch.
    rows: NDArray[np.float32] = latents.contiguous().numpy()
    where = rows.argmax(2)
    return torch.from_numpy(np.take_along_axis(rows, where[..., None], 2)[..., 0]), torch.from_numpy(where)
