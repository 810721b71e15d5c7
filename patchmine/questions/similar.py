"""Patches and units that are similar to the network: by the cosine of patch vectors, by the correlation of units.

A patch's vector (hypercolumn) holds the activations of all channels of its layer at its position; in a virtual layer
those of the layer that it is read from. Only the kept patches of all units are compared: the positions at which a
photograph is among the best of some unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import numpy as np
from numpy.typing import NDArray

from patchmine import defaults
from patchmine.errors import RequestError, StoreError
from patchmine.fields.cropping import Cropping
from patchmine.fields.field import ReceptiveField
from patchmine.photographs.placement import Placement
from patchmine.ranking import CELLS, Float32, Int64, TopK
from patchmine.reading.answers import PATCH, SHOWN, UNIT, Answer, Patches, counted, listed
from patchmine.reading.cropped import cropped
from patchmine.reading.opened import OpenIndex, OpenUnit, U
from patchmine.reading.patch import Patch
from patchmine.reading.statistics import left_out
from patchmine.reading.tables import Columns
from patchmine.sparse import blocks
from patchmine.store import neighbors
from patchmine.store.patches_faiss import normalized
from patchmine.system import digests
from patchmine.system.printable import printable
from patchmine.units import Box, Position, Unit

if TYPE_CHECKING:
    from patchmine.questions.look import Sight

Note = Callable[[str], None]

_ROWS = 4096  # of the table in memory at once: the rows of a chunk
_MOST = 8192  # candidates whose vectors are read: beyond that they are practically equal


@dataclass(frozen=True)
class Similar(Answer, Generic[U]):
    """The most similar patches, nearest first; they are the rows of the answer.

    `query` describes the question, as in the JSON. `patches` are ranked by `similarities`, the cosines; each is
    named by the unit among whose best it ranks highest, and has that unit's value. `units` have their correlations;
    the list is empty for a photograph and without a table. `sight` is the photograph in question, if there is one.
    """

    columns: ClassVar[Columns] = {**PATCH, **UNIT, "similarity": float}
    header: ClassVar[Sequence[str]] = ("rank", "cosine", "class", "y,x", "box", "image")

    index: OpenIndex[U]
    query: dict[str, Any]
    layer: str
    patches: Patches
    similarities: list[float]
    units: list[tuple[U, float]]
    asked: Patch
    sight: Sight | None = None

    def as_dict(self) -> dict[str, Any]:
        """The document of `similar --json`."""
        patches = [
            {**patch_as_dict(self.index, patch), "similarity": rounded}
            for patch, rounded in zip(self.patches, self._rounded(), strict=True)
        ]
        units = [{**unit.as_dict(), "similarity": round(similarity, 6)} for unit, similarity in self.units]
        about = self.index.labels.about
        return {"index": self.index.name, "query": self.query, "labels": about, "patches": patches, "units": units}

    def rows(self) -> list[dict[str, Any]]:
        return [
            {**row, "similarity": rounded} for row, rounded in zip(self.patches.rows(), self._rounded(), strict=True)
        ]

    def _rounded(self) -> list[float]:
        return [round(similarity, 6) for similarity in self.similarities]

    @property
    def asked_for(self) -> str:
        """The unit's name, or the photograph's path."""
        return str(self.query["unit"]["name"] if "unit" in self.query else self.query["image"])

    def shown(self) -> list[tuple[object, ...]]:
        """The patches as tables for a person show them, under `header`."""
        return [
            (
                patch.rank,
                f"{similarity:.4f}",
                patch.class_name,
                f"{patch.position.y},{patch.position.x}",
                ",".join(map(str, patch.box.as_tuple())),
                patch.image,
            )
            for patch, similarity in zip(self.patches, self.similarities, strict=True)
        ]

    def __repr__(self) -> str:
        title = f"{counted(len(self.patches), 'patch', 'patches')} nearest to {self.asked_for} in {self.layer}"
        return listed(printable(title), self.shown()[:SHOWN], self.header, len(self.patches))

    def _repr_html_(self) -> str:
        return self.patches._repr_html_()


def patch_as_dict(index: OpenIndex[Any], patch: Patch) -> dict[str, Any]:
    """A patch as in `top --json`, with the unit that it belongs to."""
    return {**patch.as_dict(), **index.unit(patch.unit).as_dict()}


@dataclass(frozen=True)
class Wish:
    """How many patches are asked for and what they show; `several` of one photograph, or only its nearest one."""

    k: int = defaults.K
    several: bool = False
    cropping: Cropping = field(default_factory=Cropping)

    def __post_init__(self) -> None:
        if self.k < 1:
            raise RequestError(f"-k must be at least 1, not {self.k}")


def similar_to_unit(unit: OpenUnit, wish: Wish, note: Note) -> Similar[Any]:
    """The patches nearest to the unit's best one, which is the first of them, and the units that correlate with it.

    Raises StoreError for a unit without patches.
    """
    index, layer = unit.index, unit.unit.layer
    best = unit.top(1, crop=wish.cropping.crop, share=wish.cropping.share)
    if not best:
        raise StoreError(f"{left_out(index.store, index.name, unit.unit)}: try another unit")
    kept, images, places = index.store.vectors(layer)
    pair = best[0].image_id * CELLS + index.store.top(layer, unit.unit.channel)[2][0]
    row = int(np.searchsorted(images * CELLS + places, pair))
    if row == len(images) or (images[row], places[row]) != (pair // CELLS, pair % CELLS):
        raise StoreError(f"{index.name} holds no vector of the best patch of {unit.unit}; build it again with --fresh")
    patches, similarities = nearest_patches(index, layer, kept[row].astype(np.float32), wish, note)
    query = {"unit": unit.as_dict(), "layer": layer, "patch": best[0].as_dict()}
    return Similar(index, query, layer, patches, similarities, correlated(unit, wish.k, note), best[0])


def similar_to_photograph(
    index: OpenIndex[U],
    file: str | Path,
    wish: Wish,
    note: Note,
    box: Box | None = None,
    layer: str | None = None,
    data: bytes | None = None,
) -> Similar[U]:
    """The patches nearest to a photograph, or to a box in it (source pixels), in a layer.

    The default is the last layer, and for a box the one whose effective field is nearest to the box's size, which a
    note names. `file` and `data` are as for `look.look`.

    The vector of a box is the mean over the positions whose field's center lies in it, or else the position nearest to
    its middle. The vector of a whole photograph is taken where the layer responds most: where the sum of its positive
    activations is largest. For a photograph of the index only positions with a kept vector count, so that it finds
    itself.

    Raises what `look.look` raises, and UnitError for an unknown layer.
    """
    from patchmine.questions.look import look

    def choose(placement: Placement) -> list[str]:
        if layer is not None or box is None:
            return [layer or list(index.layers)[-1]]
        return [_fitting(index, box, placement, note)]

    if layer is not None:
        index.check_layer(layer)
    sight = look(index, file, choose, box, data)
    (chosen,) = sight.maps
    maps, vectors = sight.maps[chosen], sight.vectors[chosen]
    positions = [_strongest(index, sight, chosen, note)] if box is None else sight.positions_in(chosen, box)
    vector = np.stack([vectors[:, at.y, at.x] for at in positions]).mean(axis=0, dtype=np.float32)
    patches, similarities = nearest_patches(index, chosen, vector, wish, note)
    query = {
        "image": str(file),
        "box": None if box is None else box.as_dict(),
        "layer": chosen,
        "positions": [{"y": position.y, "x": position.x} for position in positions],
    }
    middle = positions[len(positions) // 2]
    hardest = Unit(chosen, int(np.nan_to_num(maps[:, middle.y, middle.x]).argmax()))
    asked = sight.patch(hardest, 0, middle, index.settled(hardest, wish.cropping))
    ((asked,), _) = cropped(sight.beside(index), [asked], wish.cropping, wish.cropping)
    return Similar(index, query, chosen, patches, similarities, [], asked, sight)


def _fitting(index: OpenIndex[Any], box: Box, placement: Placement, note: Note) -> str:
    """The layer whose effective field is nearest to the box, which is in source pixels, in size.

    Sizes are lengths in input pixels: the side of the effective field, or of the receptive one where no gradient was
    measured, and that of a square of the box's area.
    """
    across, down = (placement.resized[axis] / placement.source[axis] for axis in (0, 1))
    side = (box.width * across * box.height * down) ** 0.5
    sizes = {layer: _side(index.field(layer)) for layer in index.layers}
    chosen = min(sizes, key=lambda layer: abs(sizes[layer] - side))
    note(
        f"compared in {chosen}, whose effective field of {sizes[chosen]} input pixels is nearest to the box's "
        f"{side:.0f}; --layer L compares in another"
    )
    return chosen


def _side(field: ReceptiveField) -> int:
    return field.effective_size(defaults.SHARE) or min(max(field.groups[0].largest), max(field.input))


def _strongest(index: OpenIndex[Any], sight: Sight, layer: str, note: Note) -> Position:
    """Where the layer responds most, among the kept positions if the photograph is in the index."""
    maps = np.nan_to_num(sight.maps[layer])
    response = np.maximum(maps, 0).sum(axis=0, dtype=np.float64).ravel()
    _, images, places = index.store.vectors(layer)
    own = index.store.images_of(digests.of_bytes(sight.data))
    kept = places[np.isin(images, own)]
    kept = kept[kept < len(response)]
    if len(own) and not len(kept):
        note(f"{sight.path} is in {index.name}, and none of its places is among the kept ones of {layer}")
    place = kept[response[kept].argmax()] if len(kept) else response.argmax()
    return Position(*divmod(int(place), maps.shape[2]))


def nearest_patches(
    index: OpenIndex[Any], layer: str, vector: Float32, wish: Wish, note: Note
) -> tuple[Patches, list[float]]:
    """The kept patches of a layer whose vectors are nearest to this one (channels,), with their cosines.

    Raises RequestError for a vector without a direction.
    """
    if not normalized(vector[None]).any():
        raise RequestError(f"no channel of layer {layer} responds there, so nothing is similar: try another --layer")
    stored, images, places = index.store.vectors(layer)
    nearby = neighbors.Neighbors(index.store, note)
    wanted = 4 * wish.k
    while True:
        rows, cosines = nearby.nearest(layer, vector, wanted)
        first = _firsts(rows if wish.several else images[rows])[: wish.k]
        enough = len(first) == wish.k
        bar = cosines[first[-1]] - neighbors.ROUNDING if enough else -np.inf
        if wanted >= len(stored) or (enough and (cosines[-1] < bar or wanted >= _MOST)):
            break
        wanted *= 4
    rows = rows[cosines >= bar]
    similarities = nearby.cosines(layer, vector, rows)
    order = np.lexsort((rows, -similarities))
    order = order[_firsts(rows[order] if wish.several else images[rows[order]])][: wish.k]
    rows = rows[order]
    top = index.store.top_of_all(layer)
    found = [
        _patch(index, layer, top, int(images[row]), int(places[row]), rank, wish) for rank, row in enumerate(rows, 1)
    ]
    shown, cropping = cropped(index, found, wish.cropping, wish.cropping)
    patches = Patches(shown, index, cropping=cropping, pick="similar")
    return patches, similarities[order].astype(float).tolist()


def _firsts(groups: Int64) -> Int64:
    """The index of the first member of each group, in order."""
    return np.sort(np.unique(groups, return_index=True)[1])


def _patch(index: OpenIndex[Any], layer: str, top: TopK, image: int, place: int, rank: int, wish: Wish) -> Patch:
    """The kept position as a patch of the unit among whose best it ranks highest."""
    units, ranks = np.nonzero((top.images == image) & (top.positions == place) & top.filled)
    if not len(units):
        raise StoreError(
            f"{index.name} holds a vector of {layer} that belongs to no patch of any unit: build it again with --fresh"
        )
    first = np.lexsort((units, ranks))[0]
    unit = Unit(layer, int(units[first]))
    value = float(top.values[units[first], ranks[first]])
    return index.patch(unit, rank, value, image, place, index.settled(unit, wish.cropping))


def correlated(unit: OpenUnit, k: int, note: Note = lambda _: None) -> list[tuple[Any, float]]:
    """The k other units of the index whose activations correlate most with this one's over all photographs, best first.

    Pearson's correlation. A photograph on which either is not finite is left out; units that never vary correlate with
    nothing. Without a table the list is empty, and a note says so.
    """
    index, own = unit.index, unit.unit
    if not index.store.has_table:
        note(f"{index.name} was built with --no-table, so units cannot be compared")
        return []
    column = index.store.column(own.layer, own.channel)[0].astype(np.float64)
    found: list[tuple[float, Unit]] = []
    for layer in index.layers:
        similar = _correlations(index, layer, column)
        found += [(float(similar[c]), Unit(layer, c)) for c in np.flatnonzero(np.isfinite(similar)).tolist()]
    order = sorted((-similarity, number) for number, (similarity, _) in enumerate(found))
    ranked = [(index.unit(found[number][1]), found[number][0]) for _, number in order]
    if not ranked:
        note(f"{own} never varies, so no unit correlates with it")
    return [(other, similarity) for other, similarity in ranked if other.unit != own][:k]


def _correlations(index: OpenIndex[Any], layer: str, column: NDArray[np.float64]) -> NDArray[np.float64]:
    """The correlation of each unit of a layer with a column (images,): float64 (units,), NaN if either never varies."""
    found = np.full(index.layers[layer], np.nan)
    for units in blocks(len(found)):
        found[units] = _correlations_of(index, layer, units, column)
    return found


def _correlations_of(
    index: OpenIndex[Any], layer: str, units: slice, column: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`_correlations` of some units of the layer."""
    value, _ = index.store.table_on_disk(layer)
    # Sums of squares of numbers near zero lose nothing to rounding, so subtract the means first.
    middle = index.stats(layer)["mean"][units].astype(np.float64)
    finite = np.isfinite(column)
    column = np.where(finite, column - column[finite].mean() if finite.any() else 0, 0)
    count, other_sum, other_square, own_sum, own_square, product = np.zeros((6, len(middle)))
    for start in range(0, len(index), _ROWS):
        block = value[start : start + _ROWS, units]
        known = np.isfinite(block) & finite[start : start + _ROWS, None]
        if known.all():  # nearly always, and twice as fast
            known = np.ones((len(block), 1))
        else:
            block = np.where(known, block, middle)
        other = block - middle
        own = column[start : start + _ROWS]
        count += known.sum(axis=0)
        other_sum += np.ones(len(other)) @ other
        other_square += np.einsum("ij,ij->j", other, other)
        own_sum += own @ known
        own_square += own**2 @ known
        product += own @ other
    with np.errstate(divide="ignore", invalid="ignore"):
        own_spread, other_spread = own_square - own_sum**2 / count, other_square - other_sum**2 / count
        found: NDArray[np.float64] = (product - own_sum * other_sum / count) / np.sqrt(own_spread * other_spread)
    # The spread of a unit that never varies is pure rounding.
    varies = (own_spread > 1e-12 * own_square) & (other_spread > 1e-12 * other_square)
    return np.where(varies, np.clip(found, -1, 1), np.nan)


__all__ = ["Similar", "Wish", "correlated", "nearest_patches", "similar_to_photograph", "similar_to_unit"]
