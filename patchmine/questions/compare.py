"""Synthetic images of a unit against its real patches, in numbers: how strong, how near, and along the same path?

The last asks for what a picture can hide (Geirhos et al. 2023, "Don't trust your eyes"): a network may answer a
synthetic image through other channels than photographs. What all channels of the layer before do in the picture, on
average over its cells, is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.questions.similar import Wish, nearest_patches
from patchmine.ranking import Float32
from patchmine.reading.opened import Cropping, Index, IndexedUnit, Patches, shown
from patchmine.store.reading import QUANTILES
from patchmine.synthesis import library
from patchmine.synthesis.library import SyntheticImage
from patchmine.synthesis.recipe import Recipe
from patchmine.system.progress import Progress
from patchmine.units import Box, Patch, Position

if TYPE_CHECKING:
    from torch import Tensor

    from patchmine.fields.field import ReceptiveField
    from patchmine.networks.network import Network, Tap

AGAINST = 25
"""The unit's best patches that a synthetic image is compared with."""

HIGH = 0.999


@dataclass(frozen=True)
class Path:
    """How the synthetic images drive the unit, by the cosines of what the layer before does.

    `synthetic` are the mean cosines of each image with the real patches, `real` of each patch with the others.
    """

    layer: str
    synthetic: NDArray[np.float64]
    real: NDArray[np.float64]

    @property
    def other(self) -> bool:
        """Whether the images are less like the real patches than any of those is like the others."""
        return bool(self.synthetic.mean() < self.real.min())


@dataclass(frozen=True)
class Comparison:
    """Synthetic images of a unit and what they have to do with its patches.

    `values` are the unit's activations on the images, as the network gives them now: at the image's position, or the
    largest anywhere under the channel objective. `best` and `high` are the largest over the photographs and the
    quantile HIGH (None without a table). `nearest` are the AGAINST kept patches of the layer that are nearest to the
    first image, none where nothing in the layer answers it, `similarities` their cosines; `shared` of the unit's
    `against` best are among them. `path` is None where there is no layer before, or too few patches.
    """

    unit: IndexedUnit
    images: list[SyntheticImage]
    patches: Patches
    cropping: Cropping
    values: list[float]
    best: float
    high: float | None
    nearest: Patches
    similarities: list[float]
    shared: int
    against: int
    path: Path | None

    def as_dict(self) -> dict[str, Any]:
        """The document of `compare --json`."""
        path = self.path
        return {
            "index": self.unit.index.name,
            "unit": self.unit.as_dict(),
            "recipe": self.images[0].recipe.as_dict(),
            "images": [{**i.as_dict(), "activation": v} for i, v in zip(self.images, self.values, strict=True)],
            "patches": [patch.as_dict() for patch in self.patches],
            "best": self.best,
            "quantile_0.999": self.high,
            "nearest": [
                {**patch.as_dict(), "layer": patch.unit.layer, "similarity": round(similarity, 6)}
                for patch, similarity in zip(self.nearest, self.similarities, strict=True)
            ],
            "top": self.against,
            "top_among_nearest": self.shared,
            "path": None
            if path is None
            else {
                "layer": path.layer,
                "synthetic": round(float(path.synthetic.mean()), 6),
                "real": round(float(path.real.mean()), 6),
                "least_real": round(float(path.real.min()), 6),
                "other": path.other,
            },
        }


def compare(
    unit: IndexedUnit,
    recipe: Recipe,
    load: Callable[[], Network],
    *,
    k: int = 9,
    crop: str = "auto",
    share: float = defaults.SHARE,
    progress: Progress | None = None,
) -> Comparison:
    """Make the synthetic images, or take those that are kept, and compare them with the unit's patches.

    Raises what `library.one`, `Index.photograph` and `IndexedUnit.top` raise.
    """
    index = unit.index
    cropping = Cropping(index.crop(unit.unit, crop), share)
    patches = unit.top(k, crop=cropping.crop, share=share)
    network = load()
    images = library.one(index, unit.unit, recipe, lambda: network, progress=progress)
    top = unit.top(AGAINST)
    before = _before(index, unit.unit.layer)
    eyes = _Eyes(index, network, unit.unit.layer, before, cropping)
    seen = [eyes.of_image(image) for image in images]
    path = None
    if before is not None and len(top) > 2:
        real = np.stack([eyes.of_patch(patch) for patch in top])
        path = _path(before, np.stack([one.before for one in seen]), real)
    nearest: Patches = Patches([])
    similarities: list[float] = []
    if np.isfinite(seen[0].vector).all() and seen[0].vector.any():
        wish = Wish(AGAINST, several=True, crop=cropping.crop, share=share)
        nearest, similarities = nearest_patches(index, unit.unit.layer, seen[0].vector, wish, lambda _: None)
    places = {(patch.image_id, patch.position) for patch in nearest}
    quantiles = index.stats(unit.unit.layer).get("quantiles")
    return Comparison(
        unit=unit,
        images=images,
        patches=patches,
        cropping=cropping,
        values=[one.value for one in seen],
        best=unit.statistics.maximum,
        high=None if quantiles is None else float(quantiles[unit.unit.channel, QUANTILES.index(HIGH)]),
        nearest=nearest,
        similarities=similarities,
        shared=sum((patch.image_id, patch.position) in places for patch in top),
        against=len(top),
        path=path,
    )


def _before(index: Index, layer: str) -> str | None:
    """The layer that the index has before this one."""
    layers = list(index.layers)
    number = layers.index(layer)
    return layers[number - 1] if number else None


def _path(layer: str, images: Float32, patches: Float32) -> Path:
    synthetic, real = _directions(images), _directions(patches)
    own = real @ real.T
    others = (own.sum(1) - own.diagonal()) / (len(real) - 1)
    return Path(layer, (synthetic @ real.T).mean(1), others)


def _directions(vectors: Float32) -> NDArray[np.float64]:
    found = np.nan_to_num(vectors).astype(np.float64)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-30)


@dataclass(frozen=True)
class _Seen:
    """A synthetic image in the network: its value, all channels at its place, and the layer before in the picture."""

    value: float
    vector: Float32
    before: Float32


class _Eyes:
    """The network, looked at in a layer and in the one before."""

    def __init__(self, index: Index, network: Network, layer: str, before: str | None, cropping: Cropping) -> None:
        self.index, self.network, self.layer, self.cropping = index, network, layer, cropping
        self.before = before or layer
        self._taps: dict[tuple[int, ...], tuple[Tap, ...]] = {}

    def of_image(self, image: SyntheticImage) -> _Seen:
        import torch

        from patchmine.photographs.decode import normalised
        from patchmine.synthesis.movements import centred

        pixels = torch.from_numpy(image.picture.copy()).permute(2, 0, 1)[None]
        maps = self._maps(centred(normalised(pixels, self.network.preprocessing), image.canvas))
        own = maps[self.layer]
        at = image.canvas.position
        assert at is not None
        fields, box = self._fields(image.canvas.size), image.canvas.picture
        if not image.recipe.one_position:
            place = int(np.argmax(own[image.unit.channel]))
            at = Position(*divmod(place, own.shape[2]))
            box = self._shown(fields[self.layer], image.unit.channel, at)
        value = float(own[image.unit.channel, at.y, at.x])
        return _Seen(value, own[:, at.y, at.x], _mean_within(maps[self.before], fields[self.before], box))

    def of_patch(self, patch: Patch) -> Float32:
        """What the layer before does in a patch."""
        from patchmine.photographs.decode import normalised, prepare

        pixels = prepare(self.index.photograph(patch.image_id), self.network.preprocessing).tensor
        maps = self._maps(normalised(pixels[None], self.network.preprocessing))
        own, before = (self.index.field(layer, patch.image_id) for layer in (self.layer, self.before))
        return _mean_within(maps[self.before], before, self._shown(own, patch.unit.channel, patch.position))

    def _shown(self, field: ReceptiveField, channel: int, position: Position) -> Box:
        return shown(field, channel, position, self.cropping.crop, self.cropping.share)

    def _maps(self, inputs: Tensor) -> dict[str, Float32]:
        import torch

        from patchmine.networks.network import last_call, run_until, survey, tapped

        layers = list(dict.fromkeys((self.before, self.layer)))
        size = tuple(inputs.shape)
        if size not in self._taps:
            self._taps[size] = survey(self.network.module, torch.zeros_like(inputs), layers)
        taps = self._taps[size]
        maps: dict[str, Float32] = {}

        def keep(tap: Tap, output: Tensor) -> None:
            maps[tap.layer] = tap.layout.grid_of(output)[0].float().clone().numpy()

        wanted = {tap.layer: last_call(tap, partial(keep, tap)) for tap in taps}
        with torch.inference_mode(), tapped(self.network.module, wanted):
            run_until(self.network.module, inputs, taps[-1].layer, taps[-1].calls)
        return maps

    def _fields(self, size: tuple[int, int]) -> dict[str, ReceptiveField]:
        from patchmine.fields.exact import receptive_fields

        layers: Sequence[str] = (self.layer, self.before)
        if size == self.index.field(self.layer).input:
            return {layer: self.index.field(layer) for layer in layers}
        return receptive_fields(self.network.module, size, layers, field=self.index.job.field)  # type: ignore[arg-type]


def _mean_within(maps: Float32, field: ReceptiveField, box: Box) -> Float32:
    """The mean (channels,) over the cells whose field's centre lies in the box (input pixels), or the one nearest."""
    ys = np.array([field.centre(0, Position(row, 0))[0] for row in range(field.grid[0])])
    xs = np.array([field.centre(0, Position(0, col))[1] for col in range(field.grid[1])])
    rows = np.flatnonzero((box.top <= ys) & (ys < box.bottom))
    cols = np.flatnonzero((box.left <= xs) & (xs < box.right))
    if not len(rows):
        rows = np.array([np.abs(ys - (box.top + box.bottom - 1) / 2).argmin()])
    if not len(cols):
        cols = np.array([np.abs(xs - (box.left + box.right - 1) / 2).argmin()])
    found: Float32 = maps[:, rows][:, :, cols].mean((1, 2))
    return found


__all__ = ["AGAINST", "Comparison", "Path", "compare"]
