"""The labels of an index: computed from its table when it is published or relabeled, and read layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchmine.labels.support import Support
from patchmine.ranking import Float32
from patchmine.store.label_columns import LabelColumns
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


def naming(about: Mapping[str, Any], channels: Mapping[str, int]) -> dict[str, Any] | None:
    """How many units have a label and what would name more; None without labels by the present rule.

    `about` are the facts about labels, `channels` the units of each layer. `more` is None if every unit has a label.
    """
    if "named" not in about:
        return None
    named = [
        {"layer": layer, "units": units, "named": min(units, int(about["named"].get(layer, 0)))}
        for layer, units in channels.items()
    ]
    more = "more photographs per class would name more"
    if about.get("classes", 0) < 2:
        more = "photographs of a second class are needed for names"
    done = all(layer["named"] == layer["units"] for layer in named)
    return {
        "layers": named,
        "tried": about.get("tried", 0),
        "needed": about.get("needed", 0),
        "more": None if done else more,
    }


def naming_text(about: Mapping[str, Any], channels: Mapping[str, int]) -> str | None:
    """`naming` in a line: `7% of bn2.drop; 104 labels tried (8 photographs each needed); ...`; None without labels."""
    facts = naming(about, channels)
    if facts is None:
        old = "by the rule of an older patchmine; label anew by today's with: patchmine name --auto"
        return old if "alpha" in about else None
    shares = [f"{_percent(layer['named'], layer['units'])} of {layer['layer']}" for layer in facts["layers"]]
    tried = f"{facts['tried']} labels tried ({facts['needed']} photographs each needed)"
    return "; ".join([", ".join(shares), tried, *([facts["more"]] if facts["more"] else ())])


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return "<1%" if 0 < share < 0.5 else f"{share:.0f}%"


class Found(NamedTuple):
    """The labels of a whole index: `words` by key, in the order of the rows that the columns of `layers` name, and the
    facts `about` them."""

    words: dict[str, str]
    layers: dict[str, LabelColumns]
    about: dict[str, Any]


def of_store(store: Store, classes: Sequence[str | None] | None = None) -> Found:
    """Compute the labels of all units by the rule of `labels.evidence`.

    `classes` are those of the photographs, in the order of their ids. By default they are the store's own classes, or
    if it has none, the network's predictions.
    """
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
    return _computed(store, classes, origin)


def _computed(store: Store, classes: Sequence[str | None], origin: str) -> Found:
    from patchmine.labels import evidence  # not needed to read labels
    from patchmine.labels.candidates import Labels
    from patchmine.labels.wordnet import word

    known = sorted({name for name in classes if name is not None})
    row = {name: number for number, name in enumerate(known)}
    codes = np.array([-1 if name is None else row[name] for name in classes], np.int64)
    labels = Labels.of_classes(known)
    found = {layer: evidence.label_units(_blocks(store, layer), codes, labels) for layer in store.channels}
    keys = sorted(
        {labels.keys[label] for layer in found.values() for label in set(layer.label.tolist()) - {-1}}
        | {known[code] for layer in found.values() for code in set(layer.common.tolist()) - {-1}}
    )
    rows = {key: number for number, key in enumerate(keys)}
    of_label = np.array([*(rows.get(key, -1) for key in labels.keys), -1], np.int32)
    of_class = np.array([*(rows.get(key, -1) for key in known), -1], np.int32)
    columns = {
        layer: LabelColumns(**{**vars(one), "label": of_label[one.label], "common": of_class[one.common]})
        for layer, one in found.items()
    }
    trial = evidence.Trial.of(labels, np.bincount(codes[codes >= 0], minlength=len(known)).astype(np.int64))
    named = {layer: int((one.label >= 0).sum()) for layer, one in columns.items()}
    about = {
        "from": origin,
        "rule": evidence.RULE,
        "classes": len(known),
        "photographs": trial.count,
        "tried": len(trial.rows),
        "needed": trial.least,
        "alpha": evidence.ALPHA,
        "units": sum(named.values()),
        "named": named,
    }
    return Found({key: word(key) for key in keys}, columns, about)


def _blocks(store: Store, layer: str) -> Iterator[Float32]:
    """The table in blocks of units (images, units of the block)."""
    value, _ = store.table_on_disk(layer)
    chunks = max(1, BLOCK_BYTES // (4 * _CHUNK_UNITS * max(store.images, 1)))
    for start in range(0, store.channels[layer], chunks * _CHUNK_UNITS):
        yield value[:, start : start + chunks * _CHUNK_UNITS]


class UnitLabels(Mapping[Unit, str]):
    """A mapping from units to labels. A layer is read when one of its units is first looked up.

    `of_layer` reads a layer, and `words` the words of the labels; `about` says where the labels come from.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        of_layer: Callable[[str], LabelColumns],
        words: Callable[[], Sequence[str]],
        about: Mapping[str, Any],
    ) -> None:
        self._channels, self._of_layer, self._words = channels, of_layer, words
        self._layers: dict[str, LabelColumns] = {}
        self.about = dict(about)

    @classmethod
    def stored(cls, store: Store) -> UnitLabels:
        """The labels in activations.h5; an index from an older patchmine has none."""
        return cls(
            store.channels, store.labels, lambda: store.label_names, store.manifest.get("labels", {"from": "none"})
        )

    def _layer(self, layer: str) -> LabelColumns:
        if layer not in self._layers:
            self._layers[layer] = self._of_layer(layer)
        return self._layers[layer]

    def __getitem__(self, unit: Unit) -> str:
        row = int(self._layer(unit.layer).label[unit.channel])
        if row < 0:
            raise KeyError(unit)
        return self._words()[row]

    def __iter__(self) -> Iterator[Unit]:
        for layer in self._channels:
            yield from (Unit(layer, int(channel)) for channel in np.flatnonzero(self._layer(layer).label >= 0))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def support(self, unit: Unit) -> Support:
        """The label of the unit and how far it holds."""
        columns = self._layer(unit.layer)

        def word(rows: NDArray[np.int32]) -> str | None:
            row = int(rows[unit.channel])
            return None if row < 0 else self._words()[row]

        def number(values: Float32) -> float | None:
            value = float(values[unit.channel])
            return None if np.isnan(value) else value

        return Support(
            label=word(columns.label),
            auroc=number(columns.auroc),
            hits=number(columns.hits),
            of=int(columns.of[unit.channel]) or None,
            lift=number(columns.lift),
            r=number(columns.r),
            common=word(columns.common),
            common_hits=number(columns.common_hits),
            predicted=self.about["from"] == "predictions",
        )
