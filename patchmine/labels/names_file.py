"""names.json in an index: the names that a person gave, and labels that were computed again later.

`{"format": 1, "given": {"blocks.6:33": "koi"}, "auto": {"job": DIGEST, "from": "classes", ..., "layers":
{"blocks.6": {"label": ["fish", null, ...], "auroc": [0.98, null, ...], "hits": [19, null, ...], ...}}}}`: the columns
of `store.label_columns`, with words instead of rows and null instead of NaN. Rebuilding the index leaves the file
alone: it keeps given names of units that no longer exist, and labels of another job are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import StoreError
from patchmine.labels.names import misfit, spelled
from patchmine.labels.of_index import Found, UnitLabels
from patchmine.store.checks import check_label_facts
from patchmine.store.label_columns import LabelColumns
from patchmine.store.reading import NAMES, Store
from patchmine.system.printable import printable
from patchmine.system.regular_files import withheld
from patchmine.system.untrusted_json import TEXT, Misfit, Part, parse, read_bounded
from patchmine.units import Unit

FORMAT = 1

BYTES = 32 << 20
"""Maximum size of a names.json, in bytes."""

WORDS = ("label", "common")
"""The columns that hold words instead of numbers."""

_HIGHEST = 1e9


@dataclass(frozen=True)
class NamesFile:
    """The content: `given`, names by `LAYER:CHANNEL`, and `auto`, labels that were computed again, or None."""

    given: dict[str, str] = field(default_factory=dict)
    auto: dict[str, Any] | None = None

    @classmethod
    def read(cls, directory: Path) -> NamesFile:
        """The content of an index's names.json; empty without one. Raises StoreError if the file is invalid."""
        file = directory / NAMES
        try:
            document = parse(read_bounded(file, BYTES))
            document.whole("format", FORMAT, FORMAT)
            given = _checked_names(document.part("given"))
            auto = document.part("auto").data if document.given("auto") else None
            return cls(given, auto)
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise withheld(file, error) or error from None
        except Misfit as error:
            raise StoreError(f"{file} is damaged or from another version: {error}; repair or delete it") from None

    def write(self, directory: Path) -> None:
        """Write names.json atomically. Raises OSError."""
        from patchmine.system.atomic import write_atomically

        document = {"format": FORMAT, "given": dict(sorted(self.given.items())), "auto": self.auto}
        write_atomically(directory / NAMES, [json.dumps(document, indent=1).encode() + b"\n"])

    def with_labels(self, store: Store, found: Found) -> NamesFile:
        """The same content with the labels that were computed again for that index."""
        words = [*found.words.values(), None]

        def column(name: str, values: NDArray[Any]) -> list[Any]:
            if name in WORDS:
                return [words[row] for row in values]
            return [None if np.isnan(value) else value for value in values.tolist()]

        layers = {
            layer: {name: column(name, values) for name, values in vars(columns).items()}
            for layer, columns in found.layers.items()
        }
        return replace(self, auto={"job": store.manifest["job_digest"], **found.about, "layers": layers})

    def names(self, channels: Mapping[str, int]) -> dict[Unit, str]:
        """The given names of units that exist."""
        units = {_unit(word): name for word, name in self.given.items()}
        return {unit: name for unit, name in units.items() if unit.channel < channels.get(unit.layer, 0)}

    def labels(self, store: Store) -> UnitLabels | None:
        """The labels that were computed again; None if there are none or they are of another job.

        Raises StoreError if they are invalid.
        """
        if self.auto is None or self.auto.get("job") != store.manifest["job_digest"]:
            return None
        try:
            return _checked_labels(Part(self.auto, "auto"), store)
        except Misfit as error:
            raise StoreError(f"{store.directory / NAMES} is damaged: {error}; repair or delete it") from None


def name_units(directory: Path, layers: Mapping[str, Sequence[str]]) -> None:
    """Name the units of whole layers of an index, by channel, except those that a person has named. Raises OSError.

    A name is spelled as labels are. One that is taken, or would mean another channel, is `NAME_CHANNEL`.
    """
    before = NamesFile.read(directory)
    given: dict[str, str] = {}
    for layer, names in layers.items():
        taken: set[str] = set()
        for channel, name in enumerate(map(spelled, names)):
            number = name.rpartition("_")[2]
            free = name not in taken and misfit(name) is None and not (number.isdigit() and int(number) != channel)
            taken.add(name)
            given[f"{layer}:{channel}"] = name if free else f"{name}_{channel}"
    if given.keys() - before.given.keys():
        replace(before, given=given | before.given).write(directory)


def _unit(word: str) -> Unit:
    layer, _, channel = word.rpartition(":")
    return Unit(layer, int(channel))


def _checked_names(part: Part) -> dict[str, str]:
    for word in part.data:
        layer, _, channel = word.rpartition(":")
        if not layer or printable(word) != word or not (channel.isascii() and channel.isdigit() and len(channel) < 10):
            raise Misfit(f"given: {word!r} is not LAYER:CHANNEL")
        why = misfit(part.text(word))
        if why is not None:
            raise Misfit(f"given: {part.text(word)!r} is not a valid name: {why}")
    return dict(part.data)


def _checked_labels(auto: Part, store: Store) -> UnitLabels:
    check_label_facts(auto)
    if "file" in auto.data:
        auto.text("file")
    layers = auto.part("layers")
    rows: dict[str, int] = {}
    columns = {}
    for layer, units in store.channels.items():
        of_layer = layers.part(layer) if layers.data else Part({"label": [None] * units, "auroc": [None] * units})
        columns[layer] = _checked_columns(of_layer, units, rows)
    for layer, found in columns.items():
        wrong = found.misfit(len(rows))
        if wrong is not None:
            raise Misfit(f"auto.layers.{layer}.{wrong[0]}: {wrong[1]}")
    about = {key: value for key, value in auto.data.items() if key not in ("job", "layers")}
    words = list(rows)
    return UnitLabels(store.channels, columns.__getitem__, lambda: words, about)


def _checked_columns(part: Part, units: int, rows: dict[str, int]) -> LabelColumns:
    """The columns of one layer; `rows` collects the words."""

    def numbers(name: str) -> NDArray[Any]:
        values = part.data.get(name)
        if not isinstance(values, list) or len(values) != units:
            raise Misfit(f"{part.place}.{name}: it does not have {units} values")
        if name in WORDS:
            return np.array([_row(value, rows) for value in values], np.int32)
        if not all(value is None or (type(value) in (float, int) and abs(value) < _HIGHEST) for value in values):
            raise Misfit(f"{part.place}.{name}: a value is not a number")
        kind = np.int32 if name == "of" else np.float32
        return np.array([(0 if name == "of" else np.nan) if value is None else value for value in values], kind)

    if "hits" not in part.data:
        return LabelColumns.by_first_rule(numbers("label"), numbers("auroc"))
    return LabelColumns(**{column.name: numbers(column.name) for column in fields(LabelColumns)})


def _row(word: Any, rows: dict[str, int]) -> int:
    if word is None:
        return -1
    if not isinstance(word, str) or not 0 < len(word) <= TEXT:
        raise Misfit("auto: a label is not a word")
    return rows.setdefault(word, len(rows))
