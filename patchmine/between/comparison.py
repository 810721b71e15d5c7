"""`patchmine between`: what became of each unit of one index in another index of the same photographs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from patchmine import defaults
from patchmine.between.correlation import correlations
from patchmine.between.overlap import PERSISTENCE, overlap
from patchmine.between.partners import CHANCE, Partners, partners
from patchmine.between.shared import Side, sides
from patchmine.errors import RequestError
from patchmine.ranking import Int64
from patchmine.reading.answers import SHOWN, Answer, counted, listed
from patchmine.reading.opened import OpenIndex
from patchmine.reading.statistics import Statistics
from patchmine.reading.tables import Columns
from patchmine.units import Unit

KEPT = 0.5
"""A unit kept its patches if its rankings overlap at least this much."""

ALIKE = 0.5
"""Two units are partners if they correlate at least this much, and more than by chance."""

FATES = {
    "kept": f"its best photographs are still the same (overlap at least {KEPT:g})",
    "moved": "another unit responds to what drove it",
    "split": "two or more units of a layer share what drove it",
    "merged": "one unit took over what drove it and another unit of its layer",
    "changed": "its best photographs are others now, and no other unit took its place",
    "lost": "no unit responds to what drove it, and none has its name",
    "died": "it never fires any more",
    "woke": "it was dead and fires now",
    "dead": "it never fires in either",
}
"""What can become of a unit."""


@dataclass(frozen=True)
class Fate:
    """What became of one unit: a word of FATES.

    `overlap` and `correlation` are those with the unit of the same name, None where the other index has none, or cannot
    tell. `partner` is the unit there that correlates with it most. `others` are the units that it split into, or those
    that it merged with.
    """

    unit: Unit
    name: str
    fate: str
    overlap: float | None
    correlation: float | None
    partner: Partner | None
    others: tuple[Unit, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "channel": self.unit.channel,
            "name": self.name,
            "fate": self.fate,
            "overlap": self.overlap,
            "correlation": self.correlation,
            "partner": None if self.partner is None else self.partner.as_dict(),
            "others": list(map(str, self.others)),
        }


@dataclass(frozen=True)
class Partner:
    """The unit of the other index that correlates with a unit most, and how far the rankings of both overlap."""

    unit: Unit
    name: str
    correlation: float
    overlap: float | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "layer": self.unit.layer,
            "channel": self.unit.channel,
            "name": self.name,
            "correlation": self.correlation,
            "overlap": self.overlap,
        }


@dataclass(frozen=True)
class Between(Answer):
    """The fate of units, layer by layer; `chance` is the correlation that the best partner reaches by chance.

    `shared` is the number of photographs that both indexes have. `lacking` says why there are no correlations.
    """

    columns: ClassVar[Columns] = {
        "layer": str,
        "channel": int,
        "name": str,
        "fate": str,
        "overlap": float,
        "correlation": float,
        "partner": str,
        "partner_correlation": float,
        "partner_overlap": float,
        "others": str,
    }
    header: ClassVar[Sequence[str]] = (
        *("unit", "name", "overlap", "r"),
        *("partner", "partner's r", "partner's overlap", "fate", "others"),
    )

    first: OpenIndex[Any]
    second: OpenIndex[Any]
    k: int
    shared: int
    layers: Mapping[str, Sequence[Fate]]
    chance: Mapping[str, float | None]
    lacking: str | None = None

    @property
    def fates(self) -> list[Fate]:
        return [fate for fates in self.layers.values() for fate in fates]

    def as_dict(self) -> dict[str, Any]:
        """The document of `between --json`."""
        return {
            "a": self.first.name,
            "b": self.second.name,
            "k": self.k,
            "photographs": {"a": len(self.first), "b": len(self.second), "shared": self.shared},
            "lacking": self.lacking,
            "layers": [
                {
                    "layer": layer,
                    "chance": self.chance.get(layer),
                    "fates": dict(Counter(fate.fate for fate in fates)),
                    "units": [fate.as_dict() for fate in fates],
                }
                for layer, fates in self.layers.items()
            ],
        }

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "layer": fate.unit.layer,
                **fate.as_dict(),
                "partner": fate.partner and str(fate.partner.unit),
                "partner_correlation": fate.partner and fate.partner.correlation,
                "partner_overlap": fate.partner and fate.partner.overlap,
                "others": " ".join(map(str, fate.others)),
            }
            for fate in self.fates
        ]

    def shown(self) -> list[tuple[object, ...]]:
        return [
            (
                fate.unit,
                fate.name,
                _short(fate.overlap),
                _short(fate.correlation),
                fate.partner and str(fate.partner.unit),
                fate.partner and _short(fate.partner.correlation),
                fate.partner and _short(fate.partner.overlap),
                fate.fate,
                " ".join(map(str, fate.others)),
            )
            for fate in self.fates
        ]

    def summary(self) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        """The header and the rows of a table of layers: medians, and how many units have each fate."""
        words = [word for word in FATES if any(fate.fate == word for fate in self.fates)]
        rows: list[tuple[object, ...]] = []
        for layer, fates in self.layers.items():
            counts = Counter(fate.fate for fate in fates)
            medians = [
                _short(_median(numbers))
                for numbers in (
                    [fate.overlap for fate in fates],
                    [fate.correlation for fate in fates],
                    [fate.partner.correlation if fate.partner else None for fate in fates],
                    [self.chance.get(layer)],
                )
            ]
            rows.append((layer, len(fates), *medians, *(counts[word] for word in words)))
        return ("layer", "units", "overlap", "r", "partner's r", "by chance", *words), rows

    def __repr__(self) -> str:
        return listed(
            f"{counted(len(self.fates), 'unit', 'units')} of {self.first.name} in {self.second.name}",
            self.shown()[:SHOWN],
            self.header,
            len(self.fates),
        )


def between(
    first: OpenIndex[Any],
    second: OpenIndex[Any],
    *,
    unit: Unit | None = None,
    layer: str | None = None,
    k: int = defaults.K,
) -> Between:
    """What became of the units of one index in another: of all, of those of a layer, or of one.

    Rankings are compared down to rank k. Raises RequestError if the indexes share too few photographs.
    """
    if k < 1:
        raise RequestError(f"-k must be at least 1, not {k}")
    a, b = sides(first, second)
    if unit is not None:
        layer = unit.layer
    layers = [one for one in first.layers if layer in (None, one)]
    without = next((index for index in (first, second) if not index.store.has_table), None)
    found = None if without is not None else partners(a, b, layers)
    lacking = None if without is None else f"{without.name} was built with --no-table and keeps only its top patches"
    teller = _Teller(a, b, k, found)
    fates = {one: [fate for fate in teller.fates(one) if unit in (None, fate.unit)] for one in layers}
    return Between(first, second, k, len(a.images), fates, found.chance if found else {}, lacking)


class _Teller:
    """Tells the fate of the units of a layer."""

    def __init__(self, first: Side, second: Side, k: int, found: Partners | None) -> None:
        self._first, self._second, self._k, self._found = first, second, k, found
        self._tops: dict[str, list[Int64]] = {}
        self._children: dict[Unit, list[tuple[Unit, float]]] = defaultdict(list)
        for layer, back in found.back.items() if found else ():
            for channel, value in enumerate(back.value.tolist()):
                parent = back.of(channel)
                if parent is not None and value >= ALIKE:
                    self._children[parent].append((Unit(layer, channel), value))

    def fates(self, layer: str) -> list[Fate]:
        """Of every unit of the layer, in order."""
        mine = _tops(self._first, layer, self._k, self._found is not None)
        theirs = self._tops_there(layer) if layer in self._second.index.layers else []
        dead = [_dead(side.index, layer) for side in (self._first, self._second)]
        found = []
        for channel, ranked in enumerate(mine):
            named = channel < len(theirs)
            same = _rounded(overlap(ranked, theirs[channel])) if named else None
            own = _rounded(float(self._found.own[layer][channel])) if self._found else None
            partner = self._partner(Unit(layer, channel), ranked)
            fate = Fate(
                Unit(layer, channel), self._first.index.names.name(Unit(layer, channel)), "", same, own, partner
            )
            found.append((fate, dead[0][channel], dead[1][channel] if named else None))
        by_partner: dict[Unit, list[Unit]] = defaultdict(list)
        for fate, _, _ in found:
            if self._real(fate):
                assert fate.partner is not None
                by_partner[fate.partner.unit].append(fate.unit)
        return [self._told(*each, by_partner) for each in found]

    def _told(self, fate: Fate, was: bool, now: bool | None, by_partner: Mapping[Unit, Sequence[Unit]]) -> Fate:
        """The fate with its word: `was` and `now` say whether the unit is dead, None where the other has none."""
        word, others = self._word(fate, by_partner)
        if was:
            word, others = ("dead" if now is not False else "woke"), ()
        elif now:
            word, others = "died", ()
        elif fate.overlap is not None and fate.overlap >= KEPT:
            word, others = "kept", ()
        return Fate(fate.unit, fate.name, word, fate.overlap, fate.correlation, fate.partner, tuple(others))

    def _word(self, fate: Fate, by_partner: Mapping[Unit, Sequence[Unit]]) -> tuple[str, Sequence[Unit]]:
        without = "changed" if fate.overlap is not None else "lost"
        if self._found is None:
            return without, ()
        split = self._split(fate.unit)
        if split:
            return "split", split
        if not self._real(fate):
            return without, ()
        assert fate.partner is not None
        rivals = [one for one in by_partner[fate.partner.unit] if one != fate.unit]
        merged = [one for one in rivals if _correlation(self._first, fate.unit, one) < fate.partner.correlation]
        if merged:
            return "merged", merged
        return (without if fate.partner.unit == fate.unit else "moved"), ()

    def _split(self, unit: Unit) -> Sequence[Unit]:
        """The units of one layer of the other index that have this one as their partner and are less like each other
        than like it; empty unless there are two."""
        by_layer: dict[str, list[tuple[Unit, float]]] = defaultdict(list)
        for child, value in self._children.get(unit, ()):
            by_layer[child.layer].append((child, value))
        for children in by_layer.values():
            apart: list[tuple[Unit, float]] = []
            for child, value in sorted(children, key=lambda one: -one[1]):
                if all(_correlation(self._second, child, other) < min(value, most) for other, most in apart):
                    apart.append((child, value))
            if len(apart) > 1:
                return [child for child, _ in apart]
        return ()

    def _real(self, fate: Fate) -> bool:
        """Whether the partner is more than the best of many by chance."""
        assert self._found is not None or fate.partner is None
        chance = None if self._found is None else self._found.chance[fate.unit.layer]
        return fate.partner is not None and fate.partner.correlation >= max(ALIKE, chance or 0.0)

    def _partner(self, unit: Unit, ranked: Int64) -> Partner | None:
        best = self._found and self._found.best[unit.layer]
        partner = best and best.of(unit.channel)
        if not best or not partner:
            return None
        correlation = round(float(best.value[unit.channel]), 6)
        theirs = self._tops_there(partner.layer)[partner.channel]
        name = self._second.index.names.name(partner)
        return Partner(partner, name, correlation, _rounded(overlap(ranked, theirs)))

    def _tops_there(self, layer: str) -> list[Int64]:
        if layer not in self._tops:
            self._tops[layer] = _tops(self._second, layer, self._k, self._found is not None)
        return self._tops[layer]


def _tops(side: Side, layer: str, k: int, table: bool) -> list[Int64]:
    return side.tops(layer, k, side.values(layer) if table else None)


def _dead(index: OpenIndex[Any], layer: str) -> list[bool]:
    if layer not in index.layers:
        return []
    stats = index.stats(layer)
    return [Statistics.of(stats, channel).dead for channel in range(index.layers[layer])]


def _correlation(side: Side, one: Unit, other: Unit) -> float:
    columns = [side.index.store.column(unit.layer, unit.channel)[0][side.images, None] for unit in (one, other)]
    return float(correlations(*columns)[0, 0])


def _rounded(number: float | None) -> float | None:
    return None if number is None or not np.isfinite(number) else round(number, 6)


def _median(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return float(np.median(known)) if known else None


def _short(number: float | None) -> str | None:
    return None if number is None else f"{number:.3f}"


__all__ = ["CHANCE", "PERSISTENCE", "Between", "Fate", "Partner", "between"]
