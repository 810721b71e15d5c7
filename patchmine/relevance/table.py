"""relevance.h5 of an index: the relevance of every unit in every photograph, and how well each layer conserves it.

The file belongs to the index with the job that it names, and counts as none in another. It is written under another
name and renamed. Standard library, numpy and h5py only: `top --by relevance` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from patchmine.buckets.copies import bring
from patchmine.defaults import CLASSES_OF, RULES
from patchmine.errors import StoreError, UnreadableError
from patchmine.ranking import Float32
from patchmine.store.hdf5 import Datasets, dataset_digests
from patchmine.system import digests
from patchmine.system.atomic import whole_file
from patchmine.system.untrusted_json import TEXT, Misfit, Part, parse

FILE = "relevance.h5"

PER_UNIT = ("sum", "max", "position")
PER_IMAGE = ("conserved", "placed")
"""The tables of a layer, (images, units), and its columns, (images,)."""

COLUMNS = ("output", "start", "digest")
"""The columns of all photographs: the output that relevance began at, its value, and the photograph's digest."""

OFF = 0.1
"""A layer's relevance is refused if, in the median photograph, it sums to less than 1 - OFF or more than 1 + OFF of the
relevance that started."""

_ABOUT_BYTES = 16 << 20
_FAR = 1e30
_MANY = 1 << 40


@dataclass(frozen=True)
class Conservation:
    """How much of the relevance that started arrived at a layer: the sum over the layer's whole output, divided by the
    start, in the median photograph and in the one that is farthest from 1. All are None where none arrived.

    `placed` is the median of what lies on the grid: not on a class token, which has no position. `bypassed`: a path
    leads around the layer, so it does not hold all of the relevance and need not sum to 1.
    """

    layer: str
    median: float | None
    worst: float | None
    placed: float | None
    bypassed: bool = False

    @classmethod
    def of(cls, layer: str, conserved: Float32, placed: Float32, bypassed: bool) -> Conservation:
        """`conserved` and `placed` are float32 (images,), NaN where a photograph could not be asked."""
        finite = np.isfinite(conserved)
        if not finite.any():
            return cls(layer, None, None, None, bypassed)
        conserved, placed = conserved[finite], placed[finite]
        worst = conserved[np.abs(conserved - 1).argmax()]
        return cls(layer, float(np.median(conserved)), float(worst), float(np.median(placed)), bypassed)

    @property
    def refused(self) -> str | None:
        """Why the layer's relevance is not kept; None if it is."""
        if self.median is None:
            return "no output depends on it, or none is a finite number"
        if not self.bypassed and abs(self.median - 1) > OFF:
            return f"the median may differ from 1 by at most {OFF}"
        return "none of it has a position" if self.placed == 0 else None

    @property
    def text(self) -> str:
        """The figures, in words."""
        if self.median is None or self.worst is None or self.placed is None:
            return "no relevance arrives"
        figures = f"median {self.median:.4f}, worst photograph {self.worst:.4f}"
        if abs(self.median - self.placed) > 5e-5:
            figures += f", {self.placed:.4f} on positions"
        return f"{figures} (a path leads around it)" if self.bypassed else figures

    def as_dict(self) -> dict[str, Any]:
        """The layer as `info --json` lists it."""
        figures = None if self.median is None else {"median": self.median, "worst": self.worst}
        kept = self.refused is None
        return {
            "layer": self.layer,
            "conservation": figures,
            "placed": self.placed,
            "bypassed": self.bypassed,
            "kept": kept,
        }


_DECISIONS = {"predicted": "the predicted class", "label": "the photograph's own class"}


@dataclass(frozen=True)
class Origin:
    """What a relevance table is of: the index by the digest of its job and photographs, the network by a digest of all
    that relevance depends on besides the photograph, and how relevance was made."""

    index: str
    photographs: str
    network: str
    class_of: str
    rule: str
    batch: int
    version: int

    @property
    def decision(self) -> str:
        """What the relevance is to, in words."""
        return _DECISIONS[self.class_of]

    @property
    def how(self) -> tuple[Any, ...]:
        """All but the photographs: relevance that agrees in this belongs into one table."""
        return self.network, self.class_of, self.rule, self.batch, self.version

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_part(cls, part: Part) -> Origin:
        """Raises Misfit."""
        return cls(
            part.text("index"),
            part.text("photographs"),
            part.text("network"),
            part.word("class_of", CLASSES_OF),
            part.word("rule", RULES),
            part.whole("batch", 1, 1 << 20),
            part.whole("version", 1, 1 << 20),
        )


class Relevances:
    """The relevance in one file; every dataset is checked before it is read."""

    def __init__(self, datasets: Datasets, origin: Origin, layers: Sequence[Conservation], checksum: str) -> None:
        self._datasets, self._sum = datasets, checksum
        self.origin, self.layers = origin, tuple(layers)
        self._count = len(datasets.data("images", "output", dtypes=["i4"], shape=(None,), many=_MANY))

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        self._datasets.close()

    @property
    def shape(self) -> dict[str, tuple[int, type[np.unsignedinteger[Any]]]]:
        """Units and type of the positions of each layer."""
        tables = {figures.layer: self.of_layer(figures.layer, "position") for figures in self.layers}
        return {layer: (data.shape[1], data.dtype.type) for layer, data in tables.items()}

    def images(self, name: str) -> NDArray[Any]:
        """A column of all photographs, (images,)."""
        kinds = {"output": "i4", "start": "f4", "digest": "S32"}
        column: NDArray[Any] = self._datasets.data("images", name, dtypes=[kinds[name]], shape=(self._count,))[:]
        return column

    def of_layer(self, layer: str, name: str, units: int | None = None) -> Any:
        """A dataset of a layer: (images, units), or (images,). Raises StoreError for a damaged one."""
        shape = (self._count, units) if name in PER_UNIT else (self._count,)
        dtypes = ["u2", "u4"] if name == "position" else ["f4"]
        return self._datasets.data("layers", *layer.split("/"), name, dtypes=dtypes, shape=shape, many=_MANY)

    def column(self, layer: str, channel: int, units: int, score: str) -> tuple[Float32, NDArray[np.integer]]:
        """The score of one of a layer's units in every photograph, float32 (images,), and the place y * grid width + x
        of its largest relevance, (images,). NaN where a photograph could not be asked.

        `sum` and `max` are over the positions; `-normed` divides by the sum of their magnitudes over all units of the
        layer in that photograph. Raises StoreError for a damaged file.
        """
        what, _, normed = score.partition("-")
        values: Float32 = self.of_layer(layer, what, units)[:, channel]
        positions = self.of_layer(layer, "position", units)[:, channel]
        if normed:
            total = self.of_layer(layer, f"{what}_total")[:]
            values = np.divide(values, total, out=np.zeros_like(values), where=total != 0)
        return values, positions

    def changed(self) -> bool:
        """Whether the datasets are not those that were written, or cannot be read."""
        try:
            return digests.of_json(dataset_digests(self._datasets.file)) != self._sum
        except StoreError:
            return True


def opened(directory: Path) -> Relevances | None:
    """The relevance in this directory, of whatever index; None where there is none.

    Raises StoreError for a damaged file, UnreadableError for one that the system withholds.
    """
    file = directory / FILE
    bring(file)
    if not file.exists():
        return None
    try:
        found = Datasets(file)
        about = parse(found.label("about", _ABOUT_BYTES).encode())
        layers = [_conservation(part) for part in about.parts("layers")]
        return Relevances(found, Origin.of_part(about.part("origin")), layers, found.label("sum", _ABOUT_BYTES))
    except UnreadableError:
        raise
    except (OSError, StoreError, Misfit):
        raise StoreError(f"{file} is damaged or from another version") from None


def read(directory: Path, job: str, images: int) -> Relevances | None:
    """The relevance of the index with this job; None where it keeps none.

    Raises StoreError for a damaged file and one of another index, UnreadableError for one that the system withholds.
    """
    found = opened(directory)
    if found is not None and (found.origin.index != job or len(found) != images):
        found.close()
        raise StoreError(f"{directory / FILE} is of other photographs than the index")
    return found


def _conservation(part: Part) -> Conservation:
    layer, bypassed = part.text("layer", TEXT), part.truth("bypassed")
    if not part.given("conservation"):
        return Conservation(layer, None, None, None, bypassed)
    figures = part.part("conservation")
    median, worst = (figures.number(name, -_FAR, _FAR) for name in ("median", "worst"))
    return Conservation(layer, median, worst, part.number("placed", -_FAR, _FAR), bypassed)


def lines(origin: Origin, layers: Sequence[Conservation]) -> list[str]:
    """How each layer conserves the relevance, for a person."""
    rule = "activation times gradient" if origin.rule == "gradient" else "the z+ rule"
    texts = [f"relevance to {origin.decision}, by {rule}; what arrives of it at each layer:"]
    for figures in layers:
        refused = "" if figures.refused is None else f"; not kept: {figures.refused}"
        texts.append(f"  {figures.layer}: {figures.text}{refused}")
    return texts


@dataclass(frozen=True)
class Layer:
    """A layer to write: its figures, and its tables shard by shard by name, (images of the shard, units) each."""

    conservation: Conservation
    units: int
    cells: type[np.unsignedinteger[Any]]
    tables: Callable[[], Iterable[Mapping[str, NDArray[Any]]]]


def write(
    directory: Path, origin: Origin, layers: Sequence[Layer], images: Mapping[str, NDArray[Any]], count: int
) -> None:
    """Replace the index's relevance. `images` are columns (count,) of all photographs. Raises OSError."""
    from patchmine.store.writing import written

    about = {"origin": origin.as_dict(), "layers": [layer.conservation.as_dict() for layer in layers]}
    with whole_file(directory / FILE) as making:
        with written(making, "w") as h5:
            _fill(h5, layers, images, count)
        sums = dataset_digests(making)
        with written(making, "r+") as h5:
            h5.attrs.update({"about": json.dumps(about), "sum": digests.of_json(sums)})


def _fill(h5: h5py.File, layers: Sequence[Layer], images: Mapping[str, NDArray[Any]], count: int) -> None:
    from patchmine.store.writing import Slabs, table_dataset

    for name, column in images.items():
        h5.create_dataset(f"images/{name}", data=column)
    for layer in layers:
        group = h5.create_group(f"layers/{layer.conservation.layer}")
        slabs = {
            name: Slabs(table_dataset(group, name, dtype, count, layer.units), slice(0, layer.units))
            for name, dtype in (("sum", np.float32), ("max", np.float32), ("position", layer.cells))
        }
        totals: dict[str, list[NDArray[Any]]] = {"sum_total": [], "max_total": [], "conserved": [], "placed": []}
        for tables in layer.tables():
            for name, slab in slabs.items():
                slab.add(tables[name])
            for name in ("sum", "max"):
                totals[f"{name}_total"].append(np.abs(tables[name]).sum(1, dtype=np.float64).astype(np.float32))
            for name in PER_IMAGE:
                totals[name].append(tables[name])
        for slab in slabs.values():
            slab.close()
        for name, parts in totals.items():
            group.create_dataset(name, data=np.concatenate(parts))
