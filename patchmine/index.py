"""The public index: an opened one that answers every question. This is what `patchmine.Index` is.

Each question is a module of its own below this one and takes an opened index; it is imported when it is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmine import defaults
from patchmine.buckets.copies import deliver, naming
from patchmine.errors import RequestError, StoreError
from patchmine.fields.cropping import Cropping
from patchmine.kept.in_bucket import here
from patchmine.reading.answers import Patches, Units
from patchmine.reading.opened import OpenIndex, OpenUnit
from patchmine.reading.patch import Patch
from patchmine.system.progress import Silent
from patchmine.units import Box, Unit

if TYPE_CHECKING:
    from patchmine.between.comparison import Between
    from patchmine.kept.tight_crops import Seat, TightCrop
    from patchmine.probe.probing import Probe
    from patchmine.questions.fires import Fires
    from patchmine.questions.project import Projector
    from patchmine.questions.similar import Similar
    from patchmine.relevance.building import Built
    from patchmine.scores._whole import Scores
    from patchmine.sheets.drawn import Comparison
    from patchmine.synthesis.keeping import SyntheticImage
    from patchmine.system.progress import Progress


ENVIRONMENT = "PATCHMINE_INDEX"


@naming()
def open_index(path: str | Path | None = None, source: str | Path | None = None) -> Index:
    """Open a finished index for reading.

    `path` may be the URL of a bucket. It defaults to the environment's PATCHMINE_INDEX, else to the only `*.patchmine`
    in the working directory. `source` is where the photographs are now, if they have moved since. Raises StoreError if
    that index does not exist, or it is unfinished or damaged.
    """
    return Index(find_index(path), source)


def find_index(path: str | Path | None = None) -> Path:
    """The index directory that `path` means; see `open_index`."""
    path = path or os.environ.get(ENVIRONMENT)
    if path:
        return here(path)
    found = sorted(Path().glob("*.patchmine"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise StoreError(
            "no *.patchmine in this folder: name an index with -i DIR, or build one with: patchmine index FOLDER"
        )
    raise StoreError(f"several indexes here: choose one with -i {' or -i '.join(map(str, found[:5]))}")


class IndexedUnit(OpenUnit):
    """A unit of an index: its name, its numbers, its patches, and the questions about it."""

    def synthesize(
        self,
        objective: str = "neuron",
        *,
        start: int | None = None,
        model: str | None = None,
        weights: str | Path | None = None,
        **settings: Any,
    ) -> list[SyntheticImage]:
        """Images that drive the unit as hard as possible: made, or read where the index already holds them.

        `settings` are fields of `synthesis.recipe.Recipe`: method, steps, seed, size, images and so on. With `start`, a
        rank, the ascent starts in that patch instead of in noise. `model` and `weights` are as for `Index.fires`.
        Raises UnitError for a dead unit and what `synthesis.library.synthesized` raises.
        """
        from patchmine.synthesis.library import images_of
        from patchmine.synthesis.recipe import Recipe

        self.index.use(model, weights)
        return images_of(self.index, self.unit, Recipe(objective, **settings), start=start)

    def compare(
        self,
        k: int = 9,
        objective: str = "neuron",
        *,
        crop: str = "auto",
        share: float | None = None,
        model: str | None = None,
        weights: str | Path | None = None,
        **settings: Any,
    ) -> Comparison:
        """Synthetic images beside the unit's k best patches, in numbers; `.figure()` draws them.

        `settings` are as for `synthesize`. Raises RequestError for an unknown crop, an invalid share or setting,
        UnitError for a dead unit, and PhotographError if a photograph is gone.
        """
        from patchmine.sheets.drawn import compare
        from patchmine.synthesis.recipe import Recipe, beside

        self.index.use(model, weights)
        recipe = Recipe(objective, **{"images": beside(objective), **settings})
        return compare(self, recipe, k=k, cropping=Cropping(crop, share))

    def probe(
        self,
        k: int = defaults.K,
        *,
        crop: str = "auto",
        share: float | None = None,
        seed: int = 0,
        model: str | None = None,
        weights: str | Path | None = None,
    ) -> Probe:
        """Whether color or shape drives the unit: what remains of its activation when its k best patches are changed.

        `model` and `weights` are as for `Index.fires`. Raises RequestError for an unknown crop, UnitError for a dead
        unit, and PhotographError if no photograph can be read.
        """
        if k < 1:
            raise RequestError(f"-k must be at least 1, not {k}")
        from patchmine.probe.probing import probe

        self.index.use(model, weights)
        return probe(self, k=k, cropping=Cropping(crop, share), seed=seed)


class Index(OpenIndex[IndexedUnit]):
    """A finished index. Units come from `unit()` and `units()`, photographs from the source it was built from."""

    def unit(self, unit: str | Unit, layer: str | None = None) -> IndexedUnit:
        """The unit of that name: `blocks.6:33`, `blocks.6_33`, `fish_33`, or a given name. Raises UnitError."""
        return IndexedUnit(self, self.resolved(unit, layer))

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
        share: float | None = None,
        model: str | None = None,
        weights: str | Path | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> Similar[IndexedUnit]:
        """The k patches nearest to the best patch of a unit, or to a photograph or a box in it (source pixels).

        At most one patch of each photograph, unless `several`. For a unit also the k units that correlate with it most.
        `note` receives remarks, such as why no units are compared. `model` and `weights` are as for `fires`.

        Raises RequestError unless exactly one of unit and image is given, and for a box outside the photograph;
        UnitError for an unknown unit or layer; SourceError for a photograph that cannot be read.
        """
        if (unit is None) == (image is None):
            raise RequestError("give exactly one of --unit U and --image FILE")
        if layer is not None:
            self.check_layer(layer)
        from patchmine.questions.similar import Wish, similar_to_photograph, similar_to_unit

        wish = Wish(k, several, Cropping(crop, share))
        if unit is not None:
            if box is not None:
                raise RequestError("--box selects a part of --image FILE, not of a unit: give only one of them")
            return similar_to_unit(self.unit(unit, layer), wish, note)
        assert image is not None
        self.use(model, weights)
        return similar_to_photograph(self, image, wish, note, box, layer)

    def fires(
        self,
        image: str | Path,
        *,
        layer: str | None = None,
        k: int = defaults.K,
        crop: str = "rf",
        share: float | None = None,
        model: str | None = None,
        weights: str | Path | None = None,
    ) -> Fires[IndexedUnit]:
        """The k units whose response to a photograph is strongest compared with the photographs of the index.

        `image` is a file, or a photograph of the index by its path there. The network is loaded at the first call and
        remembered; `model` repeats the index's own `--model` where that is a file of code, which runs only then, and
        `weights` is the file of weights if it has moved.

        Raises SourceError for a photograph that cannot be read, UnitError for an unknown layer, RequestError for an
        unknown crop, StoreError for an index without a table, ModelError where the network cannot be loaded.
        """
        if layer is not None:
            self.check_layer(layer)
        from patchmine.questions.fires import fires

        self.use(model, weights)
        return fires(self, image, layer=layer, k=k, cropping=Cropping(crop, share))

    def scores(self, layer: str | None = None, progress: Progress | None = None) -> Scores:
        """How one-minded each unit is, of all layers or of one: MonoScore, C2, MIS and others.

        `.of(unit)` of the result has those of one unit. They are computed once and kept in the index, if it can be
        written. Raises UnitError for an unknown layer.
        """
        if layer is not None:
            self.check_layer(layer)
        from patchmine.scores._whole import scores_of

        return scores_of(self, list(self.layers) if layer is None else [layer], progress)

    def between(
        self,
        other: OpenIndex[Any],
        *,
        unit: str | Unit | None = None,
        layer: str | None = None,
        k: int = defaults.K,
    ) -> Between:
        """What became of the units of this index in another one of the same photographs, such as a later checkpoint.

        Of all units, of those of a layer, or of one. Rankings are compared down to rank k, and all activations on the
        photographs that both have. Raises UnitError for an unknown unit or layer, RequestError if the indexes share
        fewer than half of the photographs of the smaller one.
        """
        if layer is not None:
            self.check_layer(layer)
        from patchmine.between.comparison import between

        meant = None if unit is None else self.resolved(unit, layer)
        return between(self, other, unit=meant, layer=layer, k=k)

    def tighten(
        self,
        units: Sequence[str | Unit] | None = None,
        *,
        layer: str | None = None,
        k: int = defaults.TIGHT_K,
        pick: str = defaults.PICKS[0],
        share: float = defaults.TIGHT_SHARE,
        workers: int | None = None,
        model: str | None = None,
        weights: str | Path | None = None,
    ) -> Iterator[tuple[IndexedUnit, dict[Seat, TightCrop | None]]]:
        """Find and keep the tight crops of the k patches that `pick` chooses, unit by unit; kept ones are not sought.

        `units` are all of the layer, or of the index, by default. Raises UnitError for an unknown unit or layer,
        RequestError for an invalid share, StoreError if the crops cannot be kept, and what `tight.tightening.tightened`
        raises.
        """
        self.use(model, weights)
        Cropping("tight", share)
        named = self.units(layer) if units is None else [self.unit(unit, layer) for unit in units]
        run = defaults.Run() if workers is None else defaults.Run(workers=workers)
        with self.watching() as progress:
            from patchmine.reading.cropped import seat_of
            from patchmine.tight.tightening import tightened

            seats = {unit.unit: [seat_of(patch) for patch in unit.top(k, pick)] for unit in named}
            for unit, crops in tightened(self, seats, share, progress, run, must_keep=True):
                yield self.unit(unit), crops

    def tight(self, units: Sequence[OpenUnit], k: int, share: float | None = None) -> None:
        """Find the tight crops of the k best patches of these units at once: much faster than unit by unit."""
        from patchmine.reading.cropped import find, seat_of

        find(self, [seat_of(patch) for unit in units for patch in unit.top(k)], Cropping("tight", share).retained)

    def relevance(
        self,
        class_of: str = defaults.CLASSES_OF[0],
        rule: str = "auto",
        *,
        run: defaults.Run | None = None,
        model: str | None = None,
        weights: str | Path | None = None,
    ) -> Built:
        """Add the relevance of every unit in every photograph, which `top(by="relevance")` ranks, unless it is there.

        `class_of` is the class that it begins at: the `predicted` one, or the photograph's `label`. `rule` is `plus`,
        `gradient` or `auto`, as for `patchmine index`. Relevance to another class, or by another rule, is replaced. An
        interrupted call keeps its finished shards.

        Raises RequestError for an unknown word, a class that the network lacks, and a network of which no layer
        conserves relevance; StoreError if the index cannot be written; and what `relevance.building.built` raises.
        """
        defaults.check({"class_of": class_of, "rule": rule})
        self.use(model, weights)
        with self.watching() as progress:
            from patchmine.mining.workspace import Workspace
            from patchmine.relevance.building import built

            space = Workspace(self.directory)
            with space.taken():
                try:
                    found = built(self, class_of, rule, run or defaults.Run(), progress)
                except OSError as error:
                    raise space.unwritable(error) from error
        if all(figures.refused for figures in found.layers):
            figures = "; ".join(f"{one.layer}: {one.text}" for one in found.layers)
            remedy = "index other layers" if found.origin.rule == "plus" else "use --rule plus"
            raise RequestError(f"no layer of {self.name} conserves relevance ({figures[:300]}): {remedy}")
        return found

    def embed(
        self, k: int = defaults.K, *, workers: int | None = None, progress: Progress | None = None
    ) -> tuple[int, int]:
        """Put pictures of the k best patches of each unit into the index, so that sheets need no photographs.

        Returns how many of these photographs the index has pictures of, and their bytes. A photograph that cannot be
        read is reported and left out. Raises StoreError if the index cannot be written, SourceError if the source has
        disappeared.
        """
        from patchmine.reading.embedding import embed

        return embed(self, k, defaults.Run().workers if workers is None else workers, progress or Silent())

    def export(
        self,
        kind: str,
        out: str | Path,
        *,
        units: Sequence[str | Unit] = (),
        layers: Sequence[str] = (),
        force: bool = False,
        progress: Progress | None = None,
        **asked: Any,
    ) -> str:
        """Write the patches of these units, of all units of these layers, or of all, in the format of another tool.

        `kind` is the word of `patchmine export`, `out` the file or folder to make, and `asked` are fields of
        `exports.Asked`: k, picks, crop, share, seed, pool, strict, workers. Returns what was written, in words. Raises
        what `exports.Order` raises.
        """
        from patchmine.exports import Asked, Order

        order = Order(kind, Path(out), Asked(**asked), force)
        return order.carry_out(self, list(map(str, units)), layers, progress)

    def deliver(self) -> None:
        """Put what was kept in the index since it was opened into its bucket, if it lies in one.

        The command line does so by itself. Raises StoreError if the bucket cannot be written.
        """
        deliver(self.directory)

    def projector(
        self,
        method: str,
        *,
        model: str | None = None,
        weights: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Projector:
        """A function of a patch that projects the unit's activation back into the input: `questions.project`.

        `method` is one of `defaults.PROJECTIONS`. Raises RequestError for another, and where captum is not installed.
        """
        from patchmine.questions.project import Projector

        self.use(model, weights)
        return Projector(self, method, progress)


__all__ = ["Cropping", "Index", "IndexedUnit", "Patch", "Patches", "Units", "find_index", "open_index"]
