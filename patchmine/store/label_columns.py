"""The labels of a layer's units, as activations.h5 holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32
from patchmine.store.hdf5 import Datasets, refusal

if TYPE_CHECKING:
    import h5py


@dataclass(frozen=True)
class LabelColumns:
    """The labels of a layer, every array (units,).

    `label` int32 is a row of the labels' words, -1 without a label; `auroc`, `hits`, `lift` and `r` float32 are NaN
    then. `of` int32 is the number of strongest photographs that were judged. `common` int32 is the word of the class of
    most of them, or -1, and `common_hits` float32 how many have it. An index labeled by patchmine's first rule has
    `label` and `auroc` alone: the other numbers are NaN, `of` is 0 and `common` is -1.
    """

    label: NDArray[np.int32]
    auroc: Float32
    hits: Float32
    of: NDArray[np.int32]
    lift: Float32
    r: Float32
    common: NDArray[np.int32]
    common_hits: Float32

    @classmethod
    def none(cls, units: int) -> LabelColumns:
        def empty(kind: Any, value: float) -> NDArray[Any]:
            return np.full(units, value, kind)

        numbers = {name: empty(np.float32, np.nan) for name in ("auroc", "hits", "lift", "r", "common_hits")}
        return cls(label=empty(np.int32, -1), of=empty(np.int32, 0), common=empty(np.int32, -1), **numbers)

    @classmethod
    def by_first_rule(cls, label: NDArray[np.int32], auroc: Float32) -> LabelColumns:
        return replace(cls.none(len(label)), label=label, auroc=auroc)

    @classmethod
    def joined(cls, parts: Sequence[LabelColumns]) -> LabelColumns:
        parts = parts or [cls.none(0)]
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def put(self, units: NDArray[np.int64], other: LabelColumns) -> None:
        """Replace the values of some units."""
        for field in fields(self):
            getattr(self, field.name)[units] = getattr(other, field.name)

    def misfit(self, words: int) -> tuple[str, str] | None:
        """The first column with an impossible value and what is wrong with it; None if all are possible."""
        labeled, counted = self.label >= 0, self.common >= 0
        if not _within(self.label, -1, words - 1) or not _within(self.common, -1, words - 1):
            return "label", f"a label is not one of the {words}"
        if (np.isnan(self.auroc) == labeled).any() or not _within(self.auroc, 0, 1):
            return "auroc", "its values are not areas from 0 to 1"
        if not _within(self.of, 0, 1 << 20):
            return "of", "its values are not numbers of photographs"
        old = np.isnan(self.hits).all()
        for name, numbers, given in (
            ("hits", self.hits, labeled & (not old)),
            ("lift", self.lift, labeled & (not old)),
            ("r", self.r, labeled & (not old)),
            ("common_hits", self.common_hits, counted),
        ):
            low, high = (-1, 1.001) if name == "r" else (0, np.inf) if name == "lift" else (0, self.of + 0.001)
            if (np.isnan(numbers) == given).any() or np.isinf(numbers).any() or not _within(numbers, low, high):
                return name, "a value is out of range"
        return None


def _within(numbers: NDArray[Any], low: Any, high: Any) -> bool:
    return not ((numbers < low) | (numbers > high)).any()


_KINDS = {
    "label": "i4",
    "auroc": "f4",
    "hits": "f4",
    "of": "i4",
    "lift": "f4",
    "r": "f4",
    "common": "i4",
    "common_hits": "f4",
}

_MEANINGS = {
    "label": "row of /labels; -1 without a label",
    "hits": "photographs with the label among the strongest; an expected number where there are ties",
    "of": "how many of the strongest photographs were judged",
    "lift": "hits over the number that chance would give",
    "r": "correlation of the label with the squared activation above the mean",
    "common": "row of /labels: the commonest class among the strongest photographs; -1 without one",
}


def read_labels(datasets: Datasets, place: Sequence[str], units: int, words: int) -> LabelColumns:
    """The labels of the layer at that place of the file; `words` is the number of the labels' words.

    Raises StoreError.
    """

    def column(name: str) -> Any:
        return datasets.data(*place, name, dtypes=[_KINDS[name]], shape=(units,))[:]

    if not datasets.has(*place, "label"):
        return LabelColumns.none(units)
    if datasets.has(*place, "hits"):
        found = LabelColumns(**{name: column(name) for name in _KINDS})
    else:
        found = LabelColumns.by_first_rule(column("label"), column("auroc"))
    wrong = found.misfit(words)
    if wrong is not None:
        raise refusal(datasets.file, "/".join((*place[1:], wrong[0])), wrong[1])
    return found


def write_columns(group: h5py.Group, columns: LabelColumns) -> None:
    """Write the labels of a layer into its group."""
    for name in _KINDS:
        group.create_dataset(name, data=getattr(columns, name))
        if name in _MEANINGS:
            group[name].attrs["meaning"] = _MEANINGS[name]
