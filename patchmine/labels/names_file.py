"""names.json in an index: the names that a person gave, and labels that were computed again later.

`{"format": 1, "given": {"blocks.6:33": "koi"}, "auto": {"job": DIGEST, "from": "classes", ..., "layers":
{"blocks.6": {"label": ["fish", null, ...], "auroc": [0.98, null, ...]}}}}`. Rebuilding the index leaves the file alone:
it keeps given names of units that no longer exist, and labels of another job are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from patchmine.errors import StoreError
from patchmine.labels.names import misfit
from patchmine.labels.of_index import Found, UnitLabels
from patchmine.store.checks import LABELS_FROM
from patchmine.store.reading import NAMES, Store
from patchmine.system.printable import printable
from patchmine.system.untrusted_json import Misfit, Part, parse, read_bounded
from patchmine.units import Unit

FORMAT = 1

BYTES = 32 << 20
"""Maximum size of a names.json, in bytes."""


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
        except Misfit as error:
            raise StoreError(f"{file} is damaged or of another version: {error}; repair or delete it") from None

    def write(self, directory: Path) -> None:
        """Write names.json atomically. Raises OSError."""
        from patchmine.system.atomic import write_atomically

        document = {"format": FORMAT, "given": dict(sorted(self.given.items())), "auto": self.auto}
        write_atomically(directory / NAMES, [json.dumps(document, indent=1).encode() + b"\n"])

    def with_labels(self, store: Store, found: Found) -> NamesFile:
        """The same content with the labels that were computed again for that index."""
        layers = {
            layer: {
                "label": [None if key is None else found.words[key] for key in keys],
                "auroc": [None if np.isnan(area) else float(area) for area in auroc],
            }
            for layer, (keys, auroc) in found.layers.items()
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
    auto.word("from", LABELS_FROM)
    if "file" in auto.data:
        auto.text("file")
    layers = auto.part("layers")
    rows: dict[str, int] = {}
    areas = {}
    for layer, units in store.channels.items():
        of_layer = layers.part(layer) if layers.data else Part({"label": [None] * units, "auroc": [None] * units})
        found = [_checked_label(of_layer.data.get("label"), of_layer.data.get("auroc"), unit) for unit in range(units)]
        label = [-1 if word is None else rows.setdefault(word, len(rows)) for word, _ in found]
        areas[layer] = (np.array(label, np.int32), np.array([area for _, area in found], np.float32))
    about = {key: value for key, value in auto.data.items() if key not in ("job", "layers")}
    words = list(rows)
    return UnitLabels(store.channels, areas.__getitem__, lambda: words, about)


def _checked_label(words: Any, areas: Any, unit: int) -> tuple[str | None, float]:
    if not isinstance(words, list) or not isinstance(areas, list) or not unit < min(len(words), len(areas)):
        raise Misfit("auto: not every unit has a label and an area")
    word, area = words[unit], areas[unit]
    if word is None and area is None:
        return None, float("nan")
    sound = isinstance(word, str) and 0 < len(word) <= 4096 and isinstance(area, float | int) and 0 <= area <= 1
    if not sound or isinstance(area, bool):
        raise Misfit(f"auto: unit {unit} has an invalid label or area")
    return word, float(area)
