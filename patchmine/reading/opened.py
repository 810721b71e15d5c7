"""`Index`: what the reading side calls. Needs neither torch nor the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.errors import PhotographError, RequestError, SourceError, StoreError, UnitError, nearest
from patchmine.fields.field import FieldsBySize, Placement, Preprocessing, ReceptiveField
from patchmine.labels.imagenet import class_label
from patchmine.labels.names import Names, spelled
from patchmine.labels.names_file import NamesFile
from patchmine.labels.of_index import UnitLabels
from patchmine.ranking import CELLS, Float32, Int64
from patchmine.reading.answers import Patches, Units, unit_html
from patchmine.store import reading as store
from patchmine.store.job import Job
from patchmine.system import digests
from patchmine.system.progress import Progress
from patchmine.units import Box, Patch, Position, Unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image as PillowImage

    from patchmine.networks.network import Network
    from patchmine.photographs.likeness import Likeness
    from patchmine.questions.fires import Fires
    from patchmine.questions.project import Projector
    from patchmine.questions.similar import Similar
    from patchmine.reading.picks import Mask
    from patchmine.sources import Source
    from patchmine.synthesis.library import SyntheticImage

ENVIRONMENT = "PATCHMINE_INDEX"
Crop = Literal["rf", "erf", "image"]


def open_index(path: str | Path | None = None, source: str | Path | None = None) -> Index:
    """Open a finished index for reading.

    `path` defaults to the environment's PATCHMINE_INDEX, else to the only `*.patchmine` in the working directory.
    `source` says where the photographs are now, if they have moved since. Raises StoreError when there is no such
    index, or it is unfinished or damaged.
    """
    return Index(find_index(path), source)


def find_index(path: str | Path | None = None) -> Path:
    """Which directory a reading command means when it is given `path`."""
    if path is not None:
        return Path(path)
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT])
    found = sorted(Path().glob("*.patchmine"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise StoreError(
            "there is no *.patchmine in this folder: name an index with -i DIR, "
            "or build one with: patchmine index FOLDER"
        )
    raise StoreError(f"there are several indexes here: choose with -i {' or -i '.join(map(str, found[:5]))}")


@dataclass(frozen=True)
class Statistics:
    """A unit's activations over all photographs. `tied` counts those that hold its very maximum."""

    mean: float
    std: float
    minimum: float
    maximum: float
    positive: float
    tied: int

    @property
    def saturated(self) -> bool:
        return self.tied > store.TIED

    @property
    def dead(self) -> bool:
        """Never above 0, or the same for every photograph."""
        return self.maximum <= 0 or self.maximum == self.minimum

    @property
    def marks(self) -> list[str]:
        """What makes the unit's rankings doubtful."""
        return [mark for mark in ("dead", "saturated") if getattr(self, mark)]


@dataclass(frozen=True)
class Cropping:
    """What a sheet shows of each patch: a crop as `Index.crop` has settled it, and what part of the energy `erf` is."""

    crop: Crop
    share: float = defaults.SHARE


class Index:
    """A finished index. Units come from `unit()` and `units()`, photographs from the source it was built from."""

    def __init__(self, directory: Path, source: str | Path | None = None) -> None:
        self.directory = directory
        self.store = store.Store(directory)
        self._source = source
        self.preprocessing = Preprocessing.from_dict(self.manifest["job"]["preprocessing"])
        self._fields: dict[str, FieldsBySize] = {}
        self._stats: dict[str, dict[str, Any]] = {}
        self._likenesses: dict[int, Likeness | None] = {}

    def __repr__(self) -> str:
        return f"<patchmine.Index {str(self.directory)!r}: {len(self)} photographs, {sum(self.layers.values())} units>"

    def __len__(self) -> int:
        return self.store.images

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(self.store.manifest)

    @property
    def job(self) -> Job:
        """What was computed: the network, its layers, how photographs were prepared."""
        return Job.from_dict(self.store.manifest["job"])

    @property
    def name(self) -> str:
        """What the command line's JSON calls the index."""
        return str(self.directory)

    @property
    def layers(self) -> dict[str, int]:
        """The number of channels of each layer, in the order of the network."""
        return self.store.channels

    @cached_property
    def names_file(self) -> NamesFile:
        """Names given by a person, and labels computed after the index was built."""
        return NamesFile.read(self.directory)

    @cached_property
    def labels(self) -> UnitLabels:
        """What units respond to: as computed last for this index."""
        return self.names_file.labels(self.store) or UnitLabels.stored(self.store)

    @cached_property
    def names(self) -> Names:
        return Names(self.layers, self.labels, self.names_file.names(self.layers))

    @cached_property
    def source(self) -> Source:
        """Where the photographs are. Raises SourceError, saying what to type, when they have gone."""
        from patchmine.sources import open_source

        spec = str(self._source) if self._source is not None else self.manifest["job"]["source"]
        try:
            return open_source(spec)
        except SourceError as error:
            raise SourceError(f"{error}; if the photographs have moved, say where with --source FOLDER") from None

    def unit(self, unit: str | Unit, layer: str | None = None) -> IndexedUnit:
        """The unit of that name (`blocks.6:33`, `blocks.6_33`, `fish_33`, or a given name). Raises UnitError."""
        return IndexedUnit(self, self.names.resolve(str(unit), layer))

    def units(self, layer: str | None = None, match: str | None = None, label: str | None = None) -> Units:
        """All units, of one layer if it is given, whose name or canonical form fits the shell pattern `match`, and
        whose label, as it is or as names spell it, fits the pattern `label`. Raises UnitError for an unknown layer."""
        if layer is not None and layer not in self.layers:
            raise UnitError(f"the index has no layer {layer!r}{nearest(layer, self.layers)}")
        return Units(self._units(layer, match, label))

    def _units(self, layer: str | None, match: str | None, label: str | None) -> Iterator[IndexedUnit]:
        for name, channels in self.layers.items():
            if layer in (None, name):
                for channel in range(channels):
                    found = IndexedUnit(self, Unit(name, channel))
                    if (match is None or fnmatchcase(found.name, match) or fnmatchcase(str(found.unit), match)) and (
                        label is None or found.labelled(label)
                    ):
                        yield found

    def similar(
        self,
        unit: str | Unit | None = None,
        *,
        image: str | Path | None = None,
        box: Box | None = None,
        layer: str | None = None,
        k: int = defaults.K,
        several: bool = False,
        crop: str = "rf",
        share: float = defaults.SHARE,
        model: str | None = None,
        weights: Path | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> Similar:
        """The k patches nearest to the best patch of a unit, or to a photograph or a box in it (source pixels).

        One patch of each photograph, unless `several`. For a unit also the k units that go with it. `note` is told
        what else there is to say; `model` and `weights` are as for `models.load_for_index`. Raises RequestError
        unless it is given exactly one of unit and image, and what `similarity` raises.
        """
        from patchmine.questions.similar import Wish, similar_to_photograph, similar_to_unit

        wish = Wish(k, several, crop, share)
        if (unit is None) == (image is None):
            raise RequestError("similar to what? give either --unit U or --image FILE")
        if unit is not None:
            if box is not None:
                raise RequestError("--box is a part of --image FILE, not of a unit: leave one of them out")
            return similar_to_unit(self.unit(unit, layer), wish, note)
        assert image is not None
        return similar_to_photograph(self, image, self.loader(model, weights), wish, note, box, layer)

    def fires(
        self,
        image: str | Path,
        *,
        layer: str | None = None,
        k: int = defaults.K,
        crop: str = "rf",
        share: float = defaults.SHARE,
        model: str | None = None,
        weights: Path | None = None,
    ) -> Fires:
        """The k units that a photograph drives hardest, measured against the photographs of the index."""
        from patchmine.questions.fires import fires

        return fires(self, image, self.loader(model, weights), layer=layer, k=k, crop=crop, share=share)

    def projector(
        self,
        method: str,
        *,
        model: str | None = None,
        weights: Path | None = None,
        progress: Progress | None = None,
    ) -> Projector:
        """What draws patches of this index back into the input: `deconv`, `guided`, `gradxinput`, `ig` or `occlusion`.

        Loads the network, as `models.load_for_index` does; `model` and `weights` are for it. Raises what `Projector`
        and that raise.
        """
        from patchmine.questions.project import Projector

        return Projector(self, self.loader(model, weights), method, progress)

    def loader(self, model: str | None = None, weights: Path | None = None) -> Callable[[], Network]:
        """A function that loads the network of the index when it is called; as `models.load_for_index`."""

        def load() -> Network:
            from patchmine.models import load_for_index

            return load_for_index(self.job, model, weights)

        return load

    def fields(self, layer: str) -> FieldsBySize:
        """The receptive fields of a layer for every input size; read once."""
        if layer not in self._fields:
            self._fields[layer] = self.store.fields(layer)
        return self._fields[layer]

    def field(self, layer: str, image: int | None = None) -> ReceptiveField:
        """The receptive field of a layer, for the input size of one photograph or else for the nominal one."""
        if image is None or self.preprocessing.view != "whole":
            return self.fields(layer).nominal
        width, height = self.placement(image).input
        try:
            return self.fields(layer).at((height, width))
        except KeyError:
            raise StoreError(
                f"{self.name} has no receptive fields of {layer} for an input of {width}x{height} pixels; "
                "build it again with --fresh"
            ) from None

    def stats(self, layer: str) -> dict[str, Any]:
        """The statistics of a layer, as `Store.stats` gives them; read once."""
        if layer not in self._stats:
            self._stats[layer] = self.store.stats(layer)
        return self._stats[layer]

    def placement(self, image: int) -> Placement:
        """How that photograph lay in the input."""
        return self.preprocessing.place(*self.store.image(image).size)

    def cut(self, patch: Patch) -> PillowImage.Image:
        """The pixels inside the patch's box. Raises PhotographError when the photograph cannot be read."""
        from patchmine.photographs.crops import cut

        return cut(self.photograph(patch.image_id), patch.box)

    def photograph(self, image: int) -> bytes:
        """The encoded bytes of a photograph: those that were indexed and no others, wherever its path leads.

        Everything that shows a photograph of an index reads it here. Raises PhotographError when it has gone or is
        another one, SourceError when the source has gone.
        """
        record = self.store.image(image)
        data = self.source.read(record.path)
        if digests.of_bytes(data) != record.digest:
            raise PhotographError("has changed since it was indexed: bring it back, or index again with --fresh")
        return data

    def alike(self, image: int, others: Sequence[int]) -> bool:
        """Whether a photograph is of the class of one of the others, or nearly the same as one of them.

        One that cannot be read is like no other. What was looked at is remembered.
        """
        record = self.store.image(image)
        if record.class_name is not None and any(record.class_name == self.store.image(o).class_name for o in others):
            return True
        mine = self._likeness(image)
        return mine is not None and any(theirs and mine.nearly(theirs) for theirs in map(self._likeness, others))

    def _likeness(self, image: int) -> Likeness | None:
        from patchmine.photographs.likeness import likeness

        if image not in self._likenesses:
            try:
                self._likenesses[image] = likeness(self.photograph(image))
            except PhotographError:
                self._likenesses[image] = None
        return self._likenesses[image]

    def crop(self, unit: Unit, wanted: str) -> Crop:
        """The crop that is meant: `auto` is `rf` while the receptive field covers less than half of the input, and
        `erf` beyond, where it has been measured. Raises RequestError for a crop that there is not."""
        if wanted not in defaults.CROPS:
            raise RequestError(f"there is no crop {wanted!r}{nearest(wanted, defaults.CROPS)}")
        field = self.field(unit.layer)
        if wanted == "auto":
            height, width = field.input
            whole = field.group(unit.channel).whole(Position(0, 0))
            wanted = "erf" if 2 * whole.area > height * width and field.effective is not None else "rf"
        if wanted == "erf" and field.effective is None:
            raise RequestError(
                f"no gradient came back from layer {unit.layer}, so it has no effective field: use --crop rf"
            )
        return wanted  # type: ignore[return-value]

    def patch(
        self,
        unit: Unit,
        rank: int,
        value: float,
        image: int,
        place: int,
        crop: Crop = "rf",
        share: float = defaults.SHARE,
    ) -> Patch:
        """The patch for one cell of the table: `place` is y * grid width + x."""
        record = self.store.image(image)
        field = self.field(unit.layer, image)
        position = self.store.place(unit.layer, place, field.grid)
        group = field.group(unit.channel)
        placement = self.preprocessing.place(*record.size)
        return Patch(
            unit=unit,
            rank=rank,
            value=value,
            image=record.path,
            image_id=image,
            class_name=None if record.class_name is None else class_label(record.class_name),
            position=position,
            visible=field.visible(unit.channel, position),
            input_box=group.whole(position),
            box=placement.to_source(shown(field, unit.channel, position, crop, share)),
            cutter=self.cut,
        )


@dataclass(frozen=True)
class IndexedUnit:
    """A unit of an index: its name, its numbers, its patches."""

    index: Index
    unit: Unit

    @property
    def name(self) -> str:
        return self.index.names.name(self.unit)

    @property
    def label(self) -> str | None:
        return self.index.names.label(self.unit)

    @property
    def auroc(self) -> float | None:
        """How well the label's photographs are separated from all others; None without a label."""
        return self.index.labels.auroc(self.unit)

    def labelled(self, pattern: str) -> bool:
        """Whether the label fits a shell pattern, as it is or as names spell it."""
        label = self.label
        return label is not None and (fnmatchcase(label, pattern) or fnmatchcase(spelled(label), pattern))

    @property
    def statistics(self) -> Statistics:
        stats, channel = self.index.stats(self.unit.layer), self.unit.channel
        return Statistics(
            **{name: float(stats[name][channel]) for name in ("mean", "std", "minimum", "maximum", "positive")},
            tied=int(stats["tied"][channel]),
        )

    def top(
        self,
        k: int = defaults.K,
        pick: str = "top",
        crop: str = "rf",
        seed: int = 0,
        share: float = defaults.SHARE,
        *,
        of_class: str | None = None,
        not_class: str | None = None,
        diverse: bool = False,
    ) -> Patches:
        """The k patches that `pick` chooses, best first; fewer when there are fewer photographs.

        `top` are the highest activations, `bottom` the lowest, `random` a seeded sample without regard to them,
        `quantile:Q` those around the quantile Q (0 to 1) of the unit's activations and `spectrum` k over their whole
        range, at equal distances in rank, both in descending order. `facets` groups the kept top patches by the cosine
        of their activation vectors and gives the middle of each of k groups.

        `of_class` and `not_class` restrict the photographs to those of a class, or of all below a WordNet noun, or to
        the others. With `diverse` no photograph is nearly the same as one before it (`likeness`), and none of its class
        where classes are known.

        `crop` decides what a patch's `box` holds: `rf` the receptive field, outside of which nothing can change the
        value; `erf` the effective one, which holds `share` of the gradient's energy; `image` all that the network saw;
        `auto` is `rf` while that covers less than half of the input, and `erf` beyond.

        Raises RequestError for another pick, crop or class, StoreError when the index has no table and the kept top-k
        cannot answer.
        """
        if k < 1:
            raise RequestError(f"-k {k} is too few: give 1 or more")
        if not 0 < share <= 1:
            raise RequestError(f"--share {share} is no share: give a number above 0 and up to 1")
        meant = self.index.crop(self.unit, crop)
        among = self._among(of_class, not_class)
        values, images, places = self._picked(k, pick, seed, among, diverse)
        return Patches(
            [
                self.index.patch(self.unit, rank, value, image, place, meant, share)
                for rank, (value, image, place) in enumerate(
                    zip(values.tolist(), images.tolist(), places.tolist(), strict=True), 1
                )
            ],
            self.index,
        )

    def _among(self, of_class: str | None, not_class: str | None) -> Mask | None:
        """Which photographs may answer; None where all may."""
        if of_class is None and not_class is None:
            return None
        from patchmine.labels.matching import classes_meant

        names, codes = self.index.store.class_names, self.index.store.class_codes()
        among = np.ones(len(self.index), np.bool_)
        if of_class is not None:
            among &= (codes >= 0) & np.append(classes_meant(of_class, names), False)[codes]
        if not_class is not None:
            among &= ~((codes >= 0) & np.append(classes_meant(not_class, names, "--not-class"), False)[codes])
        return among

    def _picked(
        self, k: int, pick: str, seed: int, among: Mask | None, diverse: bool
    ) -> tuple[Float32, Int64, NDArray[np.integer]]:
        """Values, images and places of what answers."""
        layer, channel, stored = self.unit.layer, self.unit.channel, self.index.store
        if pick == "facets":
            return self._facets(k, among)
        if pick == "top" and among is None and not diverse:
            values, images, places = stored.top(layer, channel)
            if k <= stored.keep or len(values) < stored.keep:
                return values[:k], images[:k], places[:k]
        from patchmine.reading.picks import distinct, in_order, preferred

        column, positions = stored.column(layer, channel)
        order = preferred(column, k, pick, seed, among)
        chosen = in_order(distinct(order, k, self.index.alike) if diverse else order[:k], column, pick)
        return column[chosen], chosen, positions[chosen].astype(np.int64)

    def _facets(self, k: int, among: Mask | None) -> tuple[Float32, Int64, NDArray[np.integer]]:
        from patchmine.reading.picks import medoids

        layer = self.unit.layer
        values, images, places = self.index.store.top(layer, self.unit.channel)
        if among is not None:
            values, images, places = values[among[images]], images[among[images]], places[among[images]]
        if not len(values):
            return values, images, places
        vectors, of_image, of_place = self.index.store.vectors(layer)
        rows = np.searchsorted(of_image * CELLS + of_place, images * CELLS + places)
        order = np.argsort(rows)
        found = np.empty((len(rows), vectors.shape[1]), np.float32)
        found[order] = vectors[rows[order].tolist()]
        chosen = medoids(found, k)
        return values[chosen], images[chosen], places[chosen]

    def synthesize(
        self,
        objective: str = "neuron",
        *,
        start: int | None = None,
        model: str | None = None,
        weights: Path | None = None,
        **settings: Any,
    ) -> list[SyntheticImage]:
        """The pictures that the unit would like best, made or, where the index keeps them, read.

        `settings` are fields of `recipe.Recipe`: method, steps, seed, size, images... With `start`, a rank, it starts
        in that patch instead of in noise. Raises what `library.one` raises.
        """
        from patchmine.synthesis import library
        from patchmine.synthesis.recipe import Recipe

        recipe = Recipe(objective, **settings)
        return library.one(self.index, self.unit, recipe, self.index.loader(model, weights), start=start)

    def compare(
        self,
        k: int = 9,
        objective: str = "neuron",
        *,
        crop: str = "auto",
        share: float = defaults.SHARE,
        model: str | None = None,
        weights: Path | None = None,
        **settings: Any,
    ) -> Figure:
        """A matplotlib figure of synthetic images beside the unit's k best patches, as `patchmine compare` draws it.

        Each picture has axes of its own, each line is a text of the figure. `settings` are as for `synthesize`; the
        numbers alone are `comparing.compare`.
        """
        from patchmine.questions.compare import compare
        from patchmine.sheets.layouts.compare import compare_page
        from patchmine.sheets.vector import figure_of
        from patchmine.synthesis.recipe import Recipe, beside

        recipe = Recipe(objective, **{"images": beside(objective), **settings})
        load = self.index.loader(model, weights)
        return figure_of(compare_page(compare(self, recipe, load, k=k, crop=crop, share=share)))

    def as_dict(self) -> dict[str, Any]:
        """The unit as `top --json` names it."""
        return {
            "layer": self.unit.layer,
            "channel": self.unit.channel,
            "name": self.name,
            "label": self.label,
        }

    def summary(self) -> dict[str, Any]:
        """The unit as `units --json` lists it."""
        numbers = self.statistics
        return {
            **self.as_dict(),
            "auroc": None if (area := self.auroc) is None else round(area, 6),
            "max": _finite(numbers.maximum),
            "mean": _finite(numbers.mean),
            "positive": numbers.positive,
            "tied": numbers.tied,
            "marks": numbers.marks,
        }

    def _repr_html_(self) -> str:
        return unit_html(self)


def shown(field: ReceptiveField, channel: int, position: Position, crop: Crop, share: float = defaults.SHARE) -> Box:
    """What a crop shows of the input, clipped to it, in input pixels."""
    if crop == "image":
        return Box(0, 0, field.input[1], field.input[0])
    seen = field.group(channel).seen(position)
    effective = field.effective_box(channel, position, share) if crop == "erf" else None
    return seen if effective is None else seen.intersect(effective)


def _finite(number: float) -> float | None:
    """JSON has no infinity."""
    return number if np.isfinite(number) else None


__all__ = ["Cropping", "Index", "IndexedUnit", "Patches", "Statistics", "Units", "find_index", "open_index"]
