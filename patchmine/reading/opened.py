"""The opened index: its names, photographs, receptive fields, numbers and top patches. It knows no question.

Needs neither torch nor the network, until `network()` loads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from patchmine import defaults
from patchmine.buckets.copies import named
from patchmine.errors import PhotographError, RequestError, SourceError, StoreError, UnitError, nearest
from patchmine.fields.cropping import Cropping
from patchmine.fields.field import FieldsBySize, ReceptiveField
from patchmine.kept import embedded
from patchmine.kept.tight_crops import Seat, TightCrop, TightCrops, network_key
from patchmine.labels.imagenet import class_label
from patchmine.labels.names import Names, spelled
from patchmine.labels.names_file import NamesFile
from patchmine.labels.of_index import UnitLabels
from patchmine.photographs.placement import Placement, Preprocessing
from patchmine.reading.answers import Patches, TightPatches, Units
from patchmine.reading.asked import AskedNetwork, Loading, Watching
from patchmine.reading.cropped import crop_of, cropped, tightness
from patchmine.reading.patch import Patch
from patchmine.store.job import Job
from patchmine.store.reading import Store
from patchmine.system import digests
from patchmine.units import Unit

if TYPE_CHECKING:
    from patchmine.labels.support import Support
    from patchmine.networks.network import Network
    from patchmine.reading.picks import Alike
    from patchmine.reading.statistics import Statistics
    from patchmine.sources import Source
    from patchmine.system.progress import Progress

U = TypeVar("U", bound="OpenUnit", covariant=True)


class OpenIndex(Generic[U]):
    """A finished index, opened for reading. U is what `unit` makes: the one place where units of an index are made.

    Raises StoreError where there is no index, or it is unfinished or damaged.
    """

    def __init__(self, directory: Path, source: str | Path | None = None) -> None:
        """`source` is where the photographs are now, if they have moved since."""
        self.directory = directory
        self.store = Store(directory)
        self._source = source
        self.preprocessing = Preprocessing.from_dict(self.manifest["job"]["preprocessing"])
        self._fields: dict[str, FieldsBySize] = {}
        self._stats: dict[str, dict[str, Any]] = {}
        self.tight_found: dict[tuple[Seat, float], TightCrop | None] = {}  # in this process, by share
        self._asked = AskedNetwork(self.job, directory)

    def __repr__(self) -> str:
        return f"<patchmine.Index {str(self.directory)!r}: {len(self)} photographs, {sum(self.layers.values())} units>"

    def __len__(self) -> int:
        return self.store.images

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(self.store.manifest)

    @property
    def job(self) -> Job:
        """The job of the index: the network, its layers, the preparation of photographs."""
        return Job.from_dict(self.store.manifest["job"])

    @property
    def name(self) -> str:
        """The name of the index in the command line's JSON."""
        return named(str(self.directory))

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
        """The labels of units, as last computed for this index."""
        anew = self.names_file.labels(self.store)
        return UnitLabels.stored(self.store) if anew is None else anew

    @cached_property
    def names(self) -> Names:
        return Names(self.layers, self.labels, self.names_file.names(self.layers))

    @cached_property
    def source(self) -> Source:
        """The source of the photographs. Raises SourceError, which says what to type, if it has disappeared."""
        from patchmine.sources import open_source

        if self._source is not None:
            return open_source(str(self._source))
        try:
            return open_source(self.manifest["job"]["source"])
        except SourceError as error:
            gone, _, _ = str(error).partition("; ")  # without a guess at what lies beside it
            raise SourceError(f"{gone}; if the photographs have moved, add --source FOLDER") from None

    def unit(self, unit: str | Unit, layer: str | None = None) -> U:
        """The unit of that name: `blocks.6:33`, `blocks.6_33`, `fish_33`, or a given name. Raises UnitError."""
        return cast(U, OpenUnit(self, self.resolved(unit, layer)))

    def resolved(self, unit: str | Unit, layer: str | None = None) -> Unit:
        """The unit that a name means. Raises UnitError for a name or unit that the index does not have."""
        if isinstance(unit, Unit) and layer is None and unit.channel in range(self.layers.get(unit.layer, 0)):
            return unit
        return self.names.resolve(str(unit), layer)

    def units(self, layer: str | None = None, match: str | None = None, label: str | None = None) -> Units[U]:
        """All units, or those of one layer, in the order of the network.

        `match` is a shell pattern over names and `LAYER:CHANNEL`, `label` one over labels, as they are or as names
        spell them. Raises UnitError for an unknown layer.
        """
        if layer is not None:
            self.check_layer(layer)
        return Units(self._units(layer, match, label), self)

    def _units(self, layer: str | None, match: str | None, label: str | None) -> Iterator[U]:
        for name, channels in self.layers.items():
            if layer in (None, name):
                for channel in range(channels):
                    found = self.unit(Unit(name, channel))
                    if (match is None or fnmatchcase(found.name, match) or fnmatchcase(str(found.unit), match)) and (
                        label is None or found.labeled(label)
                    ):
                        yield found

    def check_layer(self, layer: str) -> None:
        """Raises UnitError for a layer that the index does not have."""
        if layer not in self.layers:
            raise UnitError(f"the index has no layer {layer!r}{nearest(layer, self.layers)}")

    def use(
        self,
        model: str | None = None,
        weights: str | Path | None = None,
        loading: Loading | None = None,
        watching: Watching | None = None,
    ) -> None:
        """Remember how the user names the network, as for `models.load_for_index`; None keeps the earlier name.

        Nothing is loaded yet. `loading` makes a context in which `network` imports torch and loads, `watching` one that
        shows the progress of tight crops.
        """
        self._asked.use(model, weights, loading, watching)

    def share_network(self, other: OpenIndex[Any]) -> None:
        """Use the network that another opening of the same index names, and has perhaps loaded."""
        self._asked = other._asked

    def watching(self) -> AbstractContextManager[Progress]:
        """A context that shows the progress of work on this index."""
        return self._asked.watching()

    def network(self) -> Network:
        """The network of the index, prepared as it was when the index was built; loaded once and remembered.

        Raises ModelError and StoreError as `models.load_for_index` does; what the user named then is forgotten.
        """
        return self._asked.load()

    @cached_property
    def tight_crops(self) -> TightCrops:
        """The tight crops that the index keeps for its network."""
        return TightCrops(self.directory, network_key(self.job))

    def fields(self, layer: str) -> FieldsBySize:
        """The receptive fields of a layer for every input size; read once."""
        if layer not in self._fields:
            self._fields[layer] = self.store.fields(layer)
        return self._fields[layer]

    def field(self, layer: str, image: int | None = None) -> ReceptiveField:
        """The receptive field of a layer, at the input size of one photograph, or else at the nominal size."""
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

    def path(self, image: int) -> str:
        """The photograph's path in the source."""
        return self.store.image(image).path

    def digest(self, image: int) -> str:
        """The digest of the photograph's bytes."""
        return self.store.image(image).digest

    def placement(self, image: int) -> Placement:
        """How that photograph lies in the input."""
        return self.preprocessing.place(*self.store.image(image).size)

    def photograph(self, image: int) -> bytes:
        """The encoded bytes of a photograph: exactly those that were indexed, wherever its path leads.

        Raises PhotographError if the photograph is gone or has changed, SourceError if the source has disappeared.
        """
        from patchmine.sources import read

        record = self.store.image(image)
        data = read(self.source, record.path, record.digest)
        if digests.of_bytes(data) != record.digest:
            raise PhotographError("has changed since it was indexed: bring it back, or index again with --fresh")
        return data

    @cached_property
    def alike(self) -> Alike:
        """Recognizes photographs of the index that are nearly the same; it remembers those it has compared."""
        from patchmine.reading.picks import Alike

        return Alike(self.store, self.photograph)

    def settled(self, unit: Unit, cropping: Cropping) -> Cropping:
        """The cropping with `auto` decided for a unit of the index. Raises RequestError as `Cropping.settled` does."""
        return cropping.settled(self.field(unit.layer), unit.channel)

    def patch(
        self, unit: Unit, rank: int, value: float, image: int, place: int, cropping: Cropping | None = None
    ) -> Patch:
        """The patch for one cell of the table: `place` is y * grid width + x. The cropping must be settled."""
        record = self.store.image(image)
        field = self.field(unit.layer, image)
        return Patch.at(
            self.store.place(unit.layer, place, field.grid),
            unit=unit,
            rank=rank,
            value=value,
            image=record.path,
            image_id=image,
            class_name=None if record.class_name is None else class_label(record.class_name),
            cropping=cropping or Cropping(),
            field=field,
            placement=self.preprocessing.place(*record.size),
            read=lambda: self.photograph(image),
            embedded=lambda: embedded.read(self.directory, record.digest),
            tighten=lambda: crop_of(self, Seat(unit, image, place)),
        )


@dataclass(frozen=True)
class OpenUnit:
    """A unit of an opened index: its name, its numbers, its patches."""

    index: OpenIndex[Any]
    unit: Unit

    @property
    def name(self) -> str:
        return self.index.names.name(self.unit)

    @property
    def label(self) -> str | None:
        return self.index.names.label(self.unit)

    @property
    def support(self) -> Support:
        """How far the label holds, in numbers."""
        return self.index.labels.support(self.unit)

    @property
    def auroc(self) -> float | None:
        """How well the label's photographs are separated from all others; None without a label."""
        return self.support.auroc

    @property
    def evidence(self) -> str:
        """What stands beside the name: `canine 19 of top 25 (5.8x chance)`, or why there is no label; may be empty."""
        return str(self.support)

    def labeled(self, pattern: str) -> bool:
        """Whether the label fits a shell pattern, as it is or as names spell it."""
        label = self.label
        return label is not None and (fnmatchcase(label, pattern) or fnmatchcase(spelled(label), pattern))

    @property
    def statistics(self) -> Statistics:
        from patchmine.reading.statistics import Statistics  # not for every cold query

        return Statistics.of(self.index.stats(self.unit.layer), self.unit.channel)

    def top(
        self,
        k: int = defaults.K,
        pick: str = "top",
        crop: str = "rf",
        seed: int = 0,
        share: float | None = None,
        *,
        of_class: str | None = None,
        not_class: str | None = None,
        diverse: bool = False,
        by: str = "activation",
        score: str = "sum",
    ) -> Patches:
        """The k patches that `pick` chooses, best first; fewer when there are fewer photographs.

        `top` are the highest activations, `bottom` the lowest, `random` a seeded sample without regard to them,
        `quantile:Q` those around the quantile Q (0 to 1) of the unit's activations and `spectrum` k over their whole
        range, at equal distances in rank, both in descending order. `facets` groups the kept top patches by the cosine
        of their activation vectors and gives the middle of each of k groups.

        `of_class` and `not_class` restrict the photographs to those of a class, or of all below a WordNet noun, or to
        the others. With `diverse` no photograph is nearly the same as one before it (`likeness`), and none of its class
        where classes are known. `by` relevance ranks photographs by how much the unit contributes to the network's
        decision there: `score` is one of `defaults.SCORES`.

        `crop` decides what a patch's `box` holds: `rf` the receptive field, outside of which nothing can change the
        value; `erf` the effective one, which holds `share` (default 0.95) of the gradient's energy; `image` all that
        the network saw; `tight` the smallest box that alone brings back `share` (default 0.8) of the activation, found
        with the network where the index does not keep it; `auto` is `rf` while that covers less than half of the input,
        `erf` beyond, and `tight` for the patches whose tight crop the index keeps.

        Raises RequestError for another pick, crop, class or score, StoreError when the index has no relevance, or no
        table and the kept top-k cannot answer.
        """
        if k < 1:
            raise RequestError(f"-k must be at least 1, not {k}")
        cropping = Cropping(crop, share)
        meant = self.index.settled(self.unit, cropping)
        plain = (pick, of_class, not_class, diverse, by, score) == ("top", None, None, False, "activation", "sum")
        found = self.index.store.best(self.unit.layer, self.unit.channel, k) if plain else None
        if found is None:
            from patchmine.reading.picks import Wish, picked  # not for every cold query
            from patchmine.relevance.kept import column

            wish = Wish(k, pick, seed, of_class, not_class, diverse)
            scores = column(self.index, self.unit, by, score)
            found = picked(self.index.store, self.unit, wish, self.index.alike, scores)
        values, images, places = found
        self.index.store.fetch(images.tolist())
        patches = [
            self.index.patch(self.unit, rank, value, image, place, meant)
            for rank, (value, image, place) in enumerate(
                zip(values.tolist(), images.tolist(), places.tolist(), strict=True), 1
            )
        ]
        patches, meant = cropped(self.index, patches, cropping, meant)
        kind = TightPatches if meant.crop == "tight" else Patches
        return kind(patches, self.index, unit=self.unit, cropping=meant, pick=pick, by=by, score=score)

    def as_dict(self) -> dict[str, Any]:
        """The unit as `top --json` names it."""
        return {"layer": self.unit.layer, "channel": self.unit.channel, "name": self.name, "label": self.label}

    def summary(self) -> dict[str, Any]:
        """The unit as `units --json` lists it."""
        from patchmine.reading.tokens import TokenFacts

        numbers = self.statistics
        tokens = TokenFacts.of(self.index.store, self.index.field(self.unit.layer), self.unit)
        return {
            **self.as_dict(),
            **self.support.numbers(),
            "max": numbers.maximum if numbers.finite else None,
            "mean": numbers.mean if numbers.finite else None,
            "positive": numbers.positive if numbers.finite else None,
            "tied": numbers.tied,
            "marks": [*numbers.marks, *tokens.marks],
            **tokens.numbers(),
            **tightness(self.index, self.unit),
        }

    def _repr_html_(self) -> str:
        from patchmine.reading.notebook import unit_html

        return unit_html(self.name, self.unit, self.evidence, self.top(9)._repr_html_())


__all__ = ["OpenIndex", "OpenUnit"]
