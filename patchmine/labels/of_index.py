"""The labels of an index: computed from its table when it is published or relabeled, and read layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32
from patchmine.store.reading import Store
from patchmine.system.printable import printable
from patchmine.units import Unit

BLOCK_BYTES = 64 << 20
"""Maximum bytes of activations in memory at once, except that a block has at least one chunk of columns."""

_CHUNK_UNITS = 16

SAYS = {
    "classes": "by the classes of the photographs",
    "predictions": "by the network's own predictions, because the source has no classes",
    "none": "none, because no photograph has a class or the index has no table (--no-table)",
}
"""Where labels come from: the manifest's word, and the text that is printed."""


def said(about: Mapping[str, Any]) -> str:
    """The text that says where labels come from, for `UnitLabels.about`."""
    return f"by the classes in {printable(about['file'])}" if about.get("file") else SAYS[about["from"]]


@dataclass(frozen=True)
class Found:
    """The labels of a whole index: `words` by key, keys and AUROCs (units,) by layer, and the facts `about` them."""

    words: dict[str, str]
    layers: dict[str, tuple[list[str | None], Float32]]
    about: dict[str, Any]


def of_store(store: Store, classes: Sequence[str | None] | None = None) -> Found:
    """Compute the labels of all units by the rule of `labels.evidence`.

    `classes` are those of the photographs, in the order of their ids. By default they are the store's own classes, or
    if it has none, the network's predictions.
    """
    from patchmine.labels.evidence import ALPHA, Labels, label_units  # not needed to read labels
    from patchmine.labels.wordnet import word

    if not store.has_table:
        return Found({}, {}, {"from": "none"})
    origin = "classes"
    if classes is None:
        records = store.records()
        classes = [record.class_name for record in records]
        if not any(classes):
            classes, origin = [record.prediction for record in records], "predictions"
    if not any(classes):
        return Found({}, {}, {"from": "none"})
    known = sorted({name for name in classes if name is not None})
    row = {name: number for number, name in enumerate(known)}
    codes = np.array([-1 if name is None else row[name] for name in classes], np.int64)
    labels = Labels.of_classes(known)
    layers: dict[str, tuple[list[str | None], Float32]] = {}
    tried = 0
    for layer in store.channels:
        found = label_units(_blocks(store, layer), codes, labels)
        layers[layer] = ([found.keys[label] if label >= 0 else None for label in found.label], found.auroc)
        tried = len(found.keys)
    used = {key for keys, _ in layers.values() for key in keys if key is not None}
    named = sum(key is not None for keys, _ in layers.values() for key in keys)
    about = {"from": origin, "classes": len(known), "tried": tried, "alpha": ALPHA, "units": named}
    return Found({key: word(key) for key in used}, layers, about)


def _blocks(store: Store, layer: str) -> Iterator[Float32]:
    """The table in blocks of units (images, units of the block)."""
    value, _ = store.table_on_disk(layer)
    chunks = max(1, BLOCK_BYTES // (4 * _CHUNK_UNITS * max(store.images, 1)))
    for start in range(0, store.channels[layer], chunks * _CHUNK_UNITS):
        yield value[:, start : start + chunks * _CHUNK_UNITS]


Areas = tuple[NDArray[np.int32], Float32]
"""The row of the label's word and the AUROC of each unit of a layer, both (units,); -1 and NaN for none."""


class UnitLabels(Mapping[Unit, str]):
    """A mapping from units to labels. A layer is read when one of its units is first looked up.

    `of_layer` reads a layer, and `words` the words of the labels; `about` says where the labels come from.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        of_layer: Callable[[str], Areas],
        words: Callable[[], Sequence[str]],
        about: Mapping[str, Any],
    ) -> None:
        self._channels, self._of_layer, self._words = channels, of_layer, words
        self._layers: dict[str, Areas] = {}
        self.about = dict(about)

    @classmethod
    def stored(cls, store: Store) -> UnitLabels:
        """The labels in activations.h5; an index from an older patchmine has none."""
        return cls(
            store.channels, store.labels, lambda: store.label_names, store.manifest.get("labels", {"from": "none"})
        )

    @classmethod
    def computed(cls, store: Store, found: Found) -> UnitLabels:
        """The labels in `found`, which were computed again."""
        words = sorted(set(found.words.values()))
        row: dict[str | None, int] = {key: words.index(word) for key, word in found.words.items()} | {None: -1}

        def of_layer(layer: str) -> Areas:
            keys, auroc = found.layers[layer]
            return np.array([row[key] for key in keys], np.int32), auroc

        return cls(store.channels, of_layer, lambda: words, found.about)

    def _layer(self, layer: str) -> Areas:
        if layer not in self._layers:
            self._layers[layer] = self._of_layer(layer)
        return self._layers[layer]

    def __getitem__(self, unit: Unit) -> str:
        row = int(self._layer(unit.layer)[0][unit.channel])
        if row < 0:
            raise KeyError(unit)
        return self._words()[row]

    def __iter__(self) -> Iterator[Unit]:
        for layer in self._channels:
            yield from (Unit(layer, int(channel)) for channel in np.flatnonzero(self._layer(layer)[0] >= 0))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def auroc(self, unit: Unit) -> float | None:
        """The AUROC of the unit's label; None without a label."""
        area = float(self._layer(unit.layer)[1][unit.channel])
        return None if np.isnan(area) else area
