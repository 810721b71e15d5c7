"""What units are called, and which unit a word means."""

from __future__ import annotations

import re
from collections.abc import Mapping

from patchmine.errors import UnitError, nearest
from patchmine.system.printable import printable
from patchmine.units import Unit

UNNAMED = "unit"
"""The label of a unit that separates nothing: `unit_412`."""

LONGEST = 100
"""The longest name that a person can give, in characters."""

_UNFIT = re.compile(r"[^\w.-]+")

_LABEL_CHANNEL = re.compile(r"(?P<label>.+)_(?P<channel>\d+)")


def spelled(label: str) -> str:
    """The label as names have it: `great_white_shark`, `crane_wading_bird` for `crane (wading bird)`."""
    return _UNFIT.sub("_", label).strip("_") or UNNAMED


def misfit(name: str) -> str | None:
    """Why nothing can be called that, in a clause; None where it can."""
    if not 0 < len(name) <= LONGEST or name != name.strip():
        return f"a name has 1 to {LONGEST} characters and neither begins nor ends with a blank"
    if printable(name) != name:
        return "a name has no control characters"
    if ":" in name or "/" in name or name.startswith("-"):
        return "a name has no ':' and no '/', and does not begin with '-'"
    return "a number alone is a channel" if name.isdigit() else None


class Names:
    """The names of all units of an index: labels by channel, and those that a person gave.

    `channels` maps each layer to its number of channels, in the order of the network. `labels` maps units to
    labels, in plain words; a unit without one is `unit_CHANNEL`. `given` maps units to a person's names.
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
        """`fish_412`, or what a person called it."""
        return self.given.get(unit) or self.by_label(unit)

    def by_label(self, unit: Unit) -> str:
        """What it is called where nobody has given it a name; understood also where somebody has."""
        return f"{self._word(unit)}_{unit.channel}"

    def _word(self, unit: Unit) -> str:
        label = self.labels.get(unit)
        return UNNAMED if label is None else spelled(label)

    def check(self, unit: Unit, name: str) -> None:
        """Whether a unit can be called that. Raises UnitError saying what else it would mean."""
        why = misfit(name)
        if why is not None:
            raise UnitError(f"{name!r} is no name: {why}")
        match = _LABEL_CHANNEL.fullmatch(name)
        if match and (int(match["channel"]) != unit.channel or match["label"] in self.channels.keys() - {unit.layer}):
            word = match["label"]
            raise UnitError(
                f"{name!r} would be read as channel {match['channel']} of a layer: "
                + (f"call {unit} {word} or {word}_{unit.channel}" if word not in self.channels else "choose another")
            )
        for other, taken in self.given.items():
            if taken == name and other.layer == unit.layer and other != unit:
                raise UnitError(
                    f"{other} is called {name!r} already: choose another, or: patchmine name {other} --remove"
                )

    def resolve(self, text: str, layer: str | None = None) -> Unit:
        """The unit that `LAYER:CHANNEL`, `LAYER_CHANNEL`, `LAYER:NAME` or a name means.

        `layer` restricts the search. Raises UnitError for a word that means no unit or several, naming them.
        """
        if layer is not None and layer not in self.channels:
            raise UnitError(f"the index has no layer {layer!r}{nearest(layer, self.channels)}")
        before, colon, after = text.rpartition(":")
        if colon:
            return self._in_layer(text, before, after, layer)
        found = self._by_layer_prefix(text, layer) or self._by_name(text, [layer] if layer else list(self.channels))
        if not found:
            raise UnitError(f"there is no unit {text!r}{self._hint(text)}")
        if len(found) > 1:
            shown = ", ".join(map(str, found[:6])) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
            raise UnitError(f"{text!r} could be {shown}: write one of these, or add --layer")
        return found[0]

    def _in_layer(self, text: str, layer: str, word: str, restricted: str | None) -> Unit:
        if layer not in self.channels:
            raise UnitError(
                f"there is no layer {layer!r} in the index, for unit {text!r}{nearest(layer, self.channels)}"
            )
        if restricted not in (None, layer):
            raise UnitError(f"unit {text!r} is not in --layer {restricted}: leave --layer out")
        if not (word.isascii() and word.isdigit()):
            found = self._by_name(word, [layer])
            if not found:
                raise UnitError(f"layer {layer} has no unit {word!r}{self._hint(word)}")
            return found[0]
        unit = Unit(layer, int(word))
        if unit.channel >= self.channels[layer]:
            raise UnitError(f"layer {layer} has channels 0 to {self.channels[layer] - 1}, so there is no {text!r}")
        return unit

    def _by_layer_prefix(self, text: str, layer: str | None) -> list[Unit]:
        """`blocks.6_33`; the longest layer name that fits wins, since layer names may end in `_3` themselves."""
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
