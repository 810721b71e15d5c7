"""Synthetic images of a unit compared with its real patches: how strong, how near, and along the same path?

The last question is about something that a picture can hide (Geirhos et al. 2023, "Don't trust your eyes"): a network
may respond to a synthetic image through other channels than to photographs. The comparison takes the activations of all
channels of the layer before, averaged over the cells of the image or patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from patchmine.fields.cropping import Cropping
from patchmine.fields.field import ReceptiveField, cells_between
from patchmine.kept import findings
from patchmine.networks.calls import without_tokens
from patchmine.networks.session import with_own_settings
from patchmine.questions.similar import Wish, nearest_patches
from patchmine.ranking import Float32
from patchmine.reading.answers import Answer, Patches, counted
from patchmine.reading.notebook import png_html
from patchmine.reading.opened import OpenIndex, OpenUnit
from patchmine.reading.patch import Patch
from patchmine.reading.tables import Columns
from patchmine.store.patches_faiss import normalized
from patchmine.store.statistics import QUANTILES
from patchmine.synthesis.keeping import SyntheticImage
from patchmine.synthesis.library import images_of
from patchmine.synthesis.recipe import BESIDE, Recipe
from patchmine.system.printable import printable
from patchmine.system.progress import Progress
from patchmine.units import Box, Position

if TYPE_CHECKING:
    from torch import Tensor

    from patchmine.networks.taps import Tap

AGAINST = 25
"""The number of best patches that a synthetic image is compared with."""

HIGH = 0.999
"""The quantile of the photographs' activations that a comparison names."""

FEW = 100
"""Photographs below which that quantile is the maximum, so that it says nothing."""


@dataclass(frozen=True)
class Evidence:
    """How the synthetic images drive the unit, by the cosines of the activations in the layer before.

    `synthetic` are the mean cosines of each image with the real patches, `real` of each patch with the others.
    """

    layer: str
    synthetic: NDArray[np.float64]
    real: NDArray[np.float64]

    @property
    def other(self) -> bool:
        """Whether the images are less similar to the real patches than any of those is to the others."""
        return bool(self.synthetic.mean() < self.real.min())


@dataclass(frozen=True, repr=False)
class Comparison(Answer):
    """Synthetic images of a unit, compared with its patches.

    `values` are the unit's activations on the images, as the network gives them now: at the image's position, or the
    largest anywhere under the channel objective. `best` and `high` are the largest over the photographs and the
    quantile HIGH (None without a table). `nearest` are the AGAINST kept patches of the layer that are nearest to the
    first image, none if no channel of the layer responds to it, `similarities` their cosines; `shared` of the unit's
    `against` best are among them. `path` is None for the first layer, and with fewer than three patches.
    """

    columns: ClassVar[Columns] = Patches.columns
    header: ClassVar[Sequence[str]] = Patches.header

    unit: OpenUnit
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
    path: Evidence | None

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

    def facts(self) -> list[str]:
        """The numbers of a comparison, a sentence each."""
        values = ", ".join(f"{value:.3g}" for value in self.values)
        few = self.high is None or len(self.unit.index) < FEW
        high = "" if few else f", and {self.high:.3g} is the {HIGH:.1%} quantile of all photographs"
        texts = [
            f"Activation {values} on the synthetic image{'s' * (len(self.values) > 1)}; {self.best:.3g} on the best "
            f"photograph{high}.",
        ]
        if self.nearest:
            texts.append(
                f"Of the unit's {self.against} best patches, {self.shared} are among the {len(self.nearest)} kept "
                f"patches of the layer that are nearest to the first synthetic image (by the cosine of the "
                f"activations of all channels there: {self.similarities[0]:.2f} to {self.similarities[-1]:.2f})."
            )
        else:
            texts.append(
                "No channel of the layer responds to the first synthetic image at its position, so no patch is near."
            )
        if self.path is not None:
            path = self.path
            texts.append(
                f"The layer before ({path.layer}): mean cosine of the synthetic images with the {self.against} best "
                f"patches {path.synthetic.mean():.2f}; of those with one another {path.real.mean():.2f}, "
                f"the least {path.real.min():.2f}."
            )
        return texts

    def warnings(self) -> list[str]:
        """Reasons not to take the synthetic image for what the unit detects in photographs."""
        texts = []
        if self.path is not None and self.path.other:
            texts.append(
                "Another path: in the layer before, the synthetic image is less similar to the best patches than any "
                "of them is to the others, so it drives the unit in a way that photographs do not."
            )
        if self.images[0].recipe.objective != "negative" and max(self.values) < self.best:
            texts.append("Weak: the best photograph drives the unit harder than any of the synthetic images.")
        if any(image.stopped is not None for image in self.images):
            texts.append("Stopped: the activation was no longer finite; the image shown is the last good one.")
        return texts

    def rows(self) -> list[dict[str, Any]]:
        """The unit's real patches, as `top --csv` writes them."""
        return self.patches.rows()

    def shown(self) -> list[tuple[object, ...]]:
        return self.patches.shown()

    def __repr__(self) -> str:
        title = f"{counted(len(self.images), 'synthetic image', 'synthetic images')} of {self.unit.unit}"
        return "\n".join(map(printable, (title, *self.warnings(), *self.facts())))

    def _repr_html_(self) -> str:
        """The synthetic images, the warnings and facts, the real patches."""
        from html import escape

        texts = "".join(f"<p>{escape(printable(text))}</p>" for text in (*self.warnings(), *self.facts()))
        images = "".join(png_html(image.image()) for image in self.images)
        return f"<div>{images}</div>{texts}{self.patches._repr_html_()}"


@with_own_settings
def compare(
    unit: OpenUnit,
    recipe: Recipe,
    *,
    k: int = 9,
    cropping: Cropping | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Make the synthetic images, or read the cached ones, and compare them with the unit's patches.

    The index keeps what was found of images by the recipe BESIDE.

    Raises what `library.one`, `Index.photograph` and `IndexedUnit.top` raise.
    """
    index = unit.index
    wanted = cropping or Cropping("auto")
    patches = unit.top(k, crop=wanted.crop, share=wanted.share)
    cropping = patches.cropping
    index.network()
    images = images_of(index, unit.unit, recipe, progress=progress)
    top = unit.top(AGAINST)
    before = _before(index, unit.unit.layer)
    eyes = _Eyes(index, unit.unit.layer, before, cropping)
    seen = [eyes.of_image(image) for image in images]
    path = None
    if before is not None and len(top) > 2:
        real = np.stack([eyes.of_patch(patch) for patch in top])
        path = _path(before, np.stack([one.before for one in seen]), real)
    nearest: Patches = Patches([])
    similarities: list[float] = []
    if normalized(seen[0].vector[None]).any():
        wish = Wish(AGAINST, several=True, cropping=cropping)
        nearest, similarities = nearest_patches(index, unit.unit.layer, seen[0].vector, wish, lambda _: None)
    places = {(patch.image_id, patch.position) for patch in nearest}
    quantiles = index.stats(unit.unit.layer).get("quantiles")
    comparison = Comparison(
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
    if recipe.settled() == BESIDE.settled():
        found = findings.Finding(comparison.warnings(), [("", text) for text in comparison.facts()])
        findings.write(index, unit.unit, findings.COMPARE, found)
    return comparison


def _before(index: OpenIndex[Any], layer: str) -> str | None:
    """The layer before this one in the index: the last one that is not another part of the same output."""
    layers = list(index.layers)
    others = [one for one in layers[: layers.index(layer)] if without_tokens(one) != without_tokens(layer)]
    return others[-1] if others else None


def _path(layer: str, images: Float32, patches: Float32) -> Evidence:
    synthetic, real = _directions(images), _directions(patches)
    own = real @ real.T
    others = (own.sum(1) - own.diagonal()) / (len(real) - 1)
    return Evidence(layer, (synthetic @ real.T).mean(1), others)


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
    """The network of an index, looked at in a layer and in the one before."""

    def __init__(self, index: OpenIndex[Any], layer: str, before: str | None, cropping: Cropping) -> None:
        self.index, self.network, self.layer, self.cropping = index, index.network(), layer, cropping
        self.before = before or layer
        self._seen: dict[tuple[int, int], tuple[tuple[Tap, ...], dict[str, ReceptiveField]]] = {}

    def of_image(self, image: SyntheticImage) -> _Seen:
        import torch

        from patchmine.photographs.decode import normalized
        from patchmine.synthesis.movements import centered

        pixels = torch.from_numpy(image.picture.copy()).permute(2, 0, 1)[None]
        found, vectors = self._maps(centered(normalized(pixels, self.network.preprocessing), image.canvas))
        own = found[self.layer]
        at = image.canvas.position
        assert at is not None
        fields, box = self._surveyed(image.canvas.size)[1], image.canvas.picture
        if not image.recipe.one_position:
            place = int(np.argmax(own[image.unit.channel]))
            at = Position(*divmod(place, own.shape[2]))
            box = self.cropping.box(fields[self.layer], image.unit.channel, at)
        value = float(own[image.unit.channel, at.y, at.x])
        return _Seen(
            value, vectors[self.layer][:, at.y, at.x], _mean_within(found[self.before], fields[self.before], box)
        )

    def of_patch(self, patch: Patch) -> Float32:
        """The mean response of the layer before within a patch (channels,)."""
        from patchmine.photographs.decode import normalized, prepare

        pixels = prepare(patch.photograph(), self.network.preprocessing).tensor
        found, _ = self._maps(normalized(pixels[None], self.network.preprocessing))
        own, before = (self.index.field(layer, patch.image_id) for layer in (self.layer, self.before))
        return _mean_within(found[self.before], before, self.cropping.box(own, patch.unit.channel, patch.position))

    def _maps(self, inputs: Tensor) -> Iterator[dict[str, Float32]]:
        """Maps and vectors of each layer."""
        from patchmine.networks.taps import maps_and_vectors

        taps, _ = self._surveyed((inputs.shape[2], inputs.shape[3]))
        for found in maps_and_vectors(self.network.module, inputs, taps):
            yield {layer: output[0].float().numpy() for layer, output in found.items()}

    def _surveyed(self, size: tuple[int, int]) -> tuple[tuple[Tap, ...], dict[str, ReceptiveField]]:
        """Taps and fields for inputs of (height, width); checked against the index, once a size."""
        from patchmine.questions.look import surveyed

        if size not in self._seen:
            layers = list(dict.fromkeys((self.before, self.layer)))
            self._seen[size] = surveyed(self.index, self.network, layers, size)
        return self._seen[size]


def _mean_within(maps: Float32, field: ReceptiveField, box: Box) -> Float32:
    """The mean (channels,) over the cells whose field's center lies in the box (input pixels), or the one nearest."""
    ys, xs = field.centers()
    rows, cols = cells_between(ys, box.top, box.bottom), cells_between(xs, box.left, box.right)
    found: Float32 = maps[:, rows][:, :, cols].mean((1, 2))
    return found


__all__ = ["AGAINST", "Comparison", "Evidence", "compare"]
