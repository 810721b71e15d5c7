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

import numpy as np
from numpy.typing import NDArray

from patchmine.buckets.copies import bring
from patchmine.defaults import CLASSES_OF, RULES
from patchmine.errors import StoreError, UnreadableError
from patchmine.ranking import Float32
from patchmine.store.hdf5 import Datasets
from patchmine.system.atomic import whole_file
from patchmine.system.untrusted_json import TEXT, Misfit, Part, parse

FILE = "relevance.h5"

OFF = 0.1
"""A layer's relevance is refused if, in the median photograph, it sums to less than 1 - OFF or more than 1 + OFF of the
relevance that started."""

_ABOUT_BYTES = 16 << 20
_FAR = 1e30


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
    """What a relevance table is of: the index by the digest of its job and photographs, and how relevance was made."""

    index: str
    photographs: str
    class_of: str
    rule: str
    batch: int
    version: int

    @property
    def decision(self) -> str:
        """What the relevance is to, in words."""
        return _DECISIONS[self.class_of]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_part(cls, part: Part) -> Origin:
        """Raises Misfit."""
        return cls(
            part.text("index"),
            part.text("photographs"),
            part.word("class_of", CLASSES_OF),
            part.word("rule", RULES),
            part.whole("batch", 1, 1 << 20),
            part.whole("version", 1, 1 << 20),
        )


class Relevances:
    """The relevance that an index keeps; every dataset is checked before it is read."""

    def __init__(self, datasets: Datasets, origin: Origin, layers: Sequence[Conservation], images: int) -> None:
        self._datasets, self._images = datasets, images
        self.origin, self.layers = origin, tuple(layers)

    def close(self) -> None:
        self._datasets.close()

    def column(self, layer: str, channel: int, units: int, score: str) -> tuple[Float32, NDArray[np.integer]]:
        """The score of one of a layer's units in every photograph, float32 (images,), and the place y * grid width + x
        of its largest relevance, (images,). NaN where a photograph could not be asked.

        `sum` and `max` are over the positions; `-normed` divides by the sum of their magnitudes over all units of the
        layer in that photograph. Raises StoreError for a damaged file.
        """
        what, _, normed = score.partition("-")
        shape = (self._images, units)
        values: Float32 = self._data(layer, what, ["f4"], shape)[:, channel]
        positions = self._data(layer, "position", ["u2", "u4"], shape)[:, channel]
        if normed:
            total = self._data(layer, f"{what}_total", ["f4"], (self._images,))[:]
            values = np.divide(values, total, out=np.zeros_like(values), where=total != 0)
        return values, positions

    def _data(self, layer: str, name: str, dtypes: Sequence[str], shape: tuple[int, ...]) -> Any:
        return self._datasets.data("layers", *layer.split("/"), name, dtypes=dtypes, shape=shape)


def read(directory: Path, job: str, images: int) -> Relevances | None:
    """The relevance of the index with this job; None where it keeps none.

    Raises StoreError for a damaged file, UnreadableError for one that the system withholds.
    """
    file = directory / FILE
    bring(file)
    if not file.exists():
        return None
    try:
        found = Datasets(file)
        about = parse(found.label("about", _ABOUT_BYTES).encode())
        origin = Origin.of_part(about.part("origin"))
        layers = [_conservation(part) for part in about.parts("layers")]
    except UnreadableError:
        raise
    except (OSError, StoreError, Misfit):
        raise StoreError(
            f"{file} is damaged or from another version: compute it again with the command that built the index and "
            "--relevance"
        ) from None
    if origin.index != job:
        found.close()
        return None
    return Relevances(found, origin, layers, images)


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
    from patchmine.store.writing import Slabs, table_dataset, written

    about = {"origin": origin.as_dict(), "layers": [layer.conservation.as_dict() for layer in layers]}
    with whole_file(directory / FILE) as making, written(making, "w") as h5:
        h5.attrs["about"] = json.dumps(about)
        for name, column in images.items():
            h5.create_dataset(f"images/{name}", data=column)
        for layer in (layer for layer in layers if layer.conservation.refused is None):
            group = h5.create_group(f"layers/{layer.conservation.layer}")
            slabs = {
                name: Slabs(table_dataset(group, name, dtype, count, layer.units), slice(0, layer.units))
                for name, dtype in (("sum", np.float32), ("max", np.float32), ("position", layer.cells))
            }
            totals: dict[str, list[NDArray[Any]]] = {"sum_total": [], "max_total": [], "conserved": []}
            for tables in layer.tables():
                for name, slab in slabs.items():
                    slab.add(tables[name])
                for name in ("sum", "max"):
                    totals[f"{name}_total"].append(np.abs(tables[name]).sum(1, dtype=np.float64).astype(np.float32))
                totals["conserved"].append(tables["conserved"])
            for slab in slabs.values():
                slab.close()
            for name, parts in totals.items():
                group.create_dataset(name, data=np.concatenate(parts))
