"""Names of units: the name of each unit, and the unit that a word means."""

from __future__ import annotations

import re
from collections.abc import Mapping

from patchmine.errors import UnitError, nearest
from patchmine.system.printable import printable
from patchmine.units import Unit

UNNAMED = "unit"
"""Takes the place of the label in the name of a unit without one: `unit_412`."""

LONGEST = 100
"""Maximum length of a given name, in characters."""

_UNFIT = re.compile(r"[^\w.-]+")

_LABEL_CHANNEL = re.compile(r"(?P<label>.+)_(?P<channel>\d+)")


def spelled(label: str) -> str:
    """The label as spelled in names: `great_white_shark`, or `crane_wading_bird` for `crane (wading bird)`."""
    return _UNFIT.sub("_", label).strip("_") or UNNAMED


def misfit(name: str) -> str | None:
    """Why a name is invalid, as a clause for an error message; None if it is valid."""
    if not 0 < len(name) <= LONGEST or name != name.strip():
        return f"it must have 1 to {LONGEST} characters and no blank at either end"
    if printable(name) != name:
        return "it contains control characters"
    if ":" in name or "/" in name or name.startswith("-"):
        return "it must not contain ':' or '/', or start with '-'"
    return "a bare number means a channel" if name.isdigit() else None


class Names:
    """The names of all units of an index: from their labels, or given by a person.

    `channels` maps each layer to its number of channels, in the order of the network. `labels` maps units to
    labels, in plain words; a unit without one is `unit_CHANNEL`. `given` maps units to the names that a person gave.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        labels: Mapping[Unit, str] | None = None,
        given: Mapping[Unit, str] | None = None,
    ) -> None:
        self.channels = dict(channels)
        self.labels: Mapping[Unit, str] = {} if labels is None else labels
        self.given = dict(given or {})

    def label(self, unit: Unit) -> str | None:
        return self.labels.get(unit)

    def name(self, unit: Unit) -> str:
        """The name that a person gave, or else the one from the label, such as `fish_412`."""
        return self.given.get(unit) or self.by_label(unit)

    def by_label(self, unit: Unit) -> str:
        """The name from the label, such as `fish_412`. It stays valid for a unit with a given name."""
        return f"{self._word(unit)}_{unit.channel}"

    def _word(self, unit: Unit) -> str:
        label = self.labels.get(unit)
        return UNNAMED if label is None else spelled(label)

    def check(self, unit: Unit, name: str) -> None:
        """Raises UnitError, with the reason, if the unit cannot have that name."""
        why = misfit(name)
        if why is not None:
            raise UnitError(f"{name!r} is not a valid name: {why}")
        match = _LABEL_CHANNEL.fullmatch(name)
        if match and (int(match["channel"]) != unit.channel or match["label"] in self.channels.keys() - {unit.layer}):
            word = match["label"]
            raise UnitError(
                f"{name!r} would mean channel {match['channel']} of a layer: "
                + (f"name {unit} {word} or {word}_{unit.channel}" if word not in self.channels else "choose another")
            )
        for other, taken in self.given.items():
            if taken == name and other.layer == unit.layer and other != unit:
                raise UnitError(
                    f"{other} already has the name {name!r}: choose another, or run patchmine name {other} --remove"
                )

    def resolve(self, text: str, layer: str | None = None) -> Unit:
        """The unit that `LAYER:CHANNEL`, `LAYER_CHANNEL`, `LAYER:NAME` or a name means.

        `layer` restricts the search. Raises UnitError for a word that means no unit, or several, which it lists.
        """
        if layer is not None and layer not in self.channels:
            raise UnitError(f"the index has no layer {layer!r}{nearest(layer, self.channels)}")
        before, colon, after = text.rpartition(":")
        if colon:
            return self._in_layer(text, before, after, layer)
        found = self._by_layer_prefix(text, layer) or self._by_name(text, [layer] if layer else list(self.channels))
        if not found:
            raise UnitError(f"unknown unit {text!r}{self._hint(text)}")
        if len(found) > 1:
            shown = ", ".join(map(str, found[:6])) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
            raise UnitError(f"{text!r} could mean {shown}: write one of these, or add --layer")
        return found[0]

    def _in_layer(self, text: str, layer: str, word: str, restricted: str | None) -> Unit:
        if layer not in self.channels:
            raise UnitError(f"unknown layer {layer!r} in unit {text!r}{nearest(layer, self.channels)}")
        if restricted not in (None, layer):
            raise UnitError(f"unit {text!r} is not in --layer {restricted}: leave --layer out")
        if not (word.isascii() and word.isdigit()):
            found = self._by_name(word, [layer])
            if not found:
                raise UnitError(f"layer {layer} has no unit {word!r}{self._hint(word)}")
            return found[0]
        unit = Unit(layer, int(word))
        if unit.channel >= self.channels[layer]:
            raise UnitError(f"unknown unit {text!r}: layer {layer} has channels 0 to {self.channels[layer] - 1}")
        return unit

    def _by_layer_prefix(self, text: str, layer: str | None) -> list[Unit]:
        """Resolve `blocks.6_33`. The longest matching layer name wins, since layer names may themselves end in `_3`."""
        match = _LABEL_CHANNEL.fullmatch(text)
        if not match or match["label"] not in self.channels or layer not in (None, match["label"]):
            return []
        return [self._in_layer(text, match["label"], match["channel"], None)]

    def _by_name(self, text: str, layers: list[str]) -> list[Unit]:
        given = [unit for unit, name in self.given.items() if name == text and unit.layer in layers]
        if given:
            return given
        match = _LABEL_CHANNEL.fullmatch(text)
        if not match:
            return []
        candidates = [Unit(layer, int(match["channel"])) for layer in layers]
        return [
            unit
            for unit in candidates
            if unit.channel < self.channels[unit.layer] and self._word(unit) == match["label"]
        ]

    def _hint(self, text: str) -> str:
        """The nearest known words: names with the same channel, given names, or canonical units."""
        digits = re.search(r"(\d+)\D*$", text)
        known = list(self.given.values())
        if digits:
            channel = int(digits[1])
            same = [Unit(layer, channel) for layer, count in self.channels.items() if channel < count]
            known += [str(unit) for unit in same] + [self.name(unit) for unit in same]
            word = text.rpartition(":")[2][: -len(digits[0])].strip("_")
            known += [self.by_label(unit) for unit, label in self.labels.items() if spelled(label) == word]
        if known:
            return nearest(text, known)
        ranges = ", ".join(f"{layer}:0..{count - 1}" for layer, count in self.channels.items())
        return f"; known: {ranges}"
