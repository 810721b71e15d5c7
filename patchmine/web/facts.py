"""What the pages say: of the network, of a layer, of a unit. Read from the index, without torch."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from patchmine import defaults
from patchmine.errors import PatchmineError, SourceError
from patchmine.fields.cropping import Cropping
from patchmine.index import Index, IndexedUnit
from patchmine.kept import findings
from patchmine.labels.imagenet import class_label
from patchmine.labels.of_index import said
from patchmine.reading.answers import Patches
from patchmine.reading.patch import Patch
from patchmine.synthesis.keeping import SyntheticImage
from patchmine.synthesis.library import kept_images
from patchmine.synthesis.recipe import BESIDE, Recipe
from patchmine.system.printable import printable
from patchmine.units import Position, Unit

SHOWN = 25
"""Patches on a unit's page."""

PICKS = {
    "top": "strongest",
    "spectrum": "whole range",
    "facets": "different things",
    "random": "random",
    "bottom": "weakest",
}
CROPS = {
    "auto": "tight where kept",
    "rf": "receptive field",
    "erf": "effective field",
    "image": "whole input",
}

SORTS = {
    "channel": "channel",
    "r": "label fit",
    "auroc": "selectivity",
    "sparsity": "sparsity",
    "max": "maximum",
    "tight": "size of tight crop",
}
"""The numbers by which a wall can be sorted, and what it calls them."""

NEAREST = 8
"""Nearest units on a unit's page."""

_BARS, _CLASSES, _FACES, _RANGE = 48, 8, 8, 8
_nearest: WeakKeyDictionary[Index, dict[Unit, list[tuple[IndexedUnit, float]]]] = WeakKeyDictionary()
_summaries: WeakKeyDictionary[Index, dict[str, list[dict[str, Any]]]] = WeakKeyDictionary()


def network(index: Index, only: Collection[Unit] | None = None) -> dict[str, Any]:
    """The layers in order, with what each sees and its units whose labels hold best; of `only` these units."""
    layers = [_layer(index, layer, only) for layer in index.layers]
    layers = [layer for layer in layers if layer["units"]]
    return {
        "index": _named(index, only),
        "model": index.job.model,
        "photographs": len(index),
        "units": sum(layer["units"] for layer in layers),
        "labels": said(index.labels.about),
        "layers": layers,
        "warning": missing_source(index),
    }


def layer(index: Index, layer: str, only: Collection[Unit] | None = None) -> dict[str, Any]:
    """The units of a layer, of `only` these. Raises UnitError for a layer that the index does not have."""
    index.check_layer(layer)
    summaries = of_layer(index, layer, only)
    layers = [name for name in index.layers if only is None or any(unit.layer == name for unit in only)]
    number = layers.index(layer)
    return {
        "index": _named(index, only),
        "layer": layer,
        "units": summaries,
        "sorts": {key: words for key, words in SORTS.items() if key == "channel" or _any(summaries, key)},
        "before": layers[number - 1] if number else None,
        "after": layers[number + 1] if number + 1 < len(layers) else None,
        "warning": missing_source(index),
    }


def _any(summaries: Sequence[dict[str, Any]], key: str) -> bool:
    return any(unit[key] is not None for unit in summaries)


def _named(index: Index, only: Collection[Unit] | None) -> str:
    """The index as pages name it: with its whole path where its owner reads them, without it in pages for others."""
    return index.name if only is None else index.directory.name


def missing_source(index: Index) -> str | None:
    """Why the photographs cannot be read; None if their source is there."""
    try:
        index.source  # noqa: B018
    except SourceError as error:
        return str(error)
    return None


def _layer(index: Index, layer: str, only: Collection[Unit] | None) -> dict[str, Any]:
    field = index.field(layer)
    height, width = field.input
    middle = Position(field.grid[0] // 2, field.grid[1] // 2)
    whole = field.group(0).whole(middle)
    effective = field.effective_size(defaults.SHARE)
    summaries = of_layer(index, layer, only)
    best = sorted(summaries, key=lambda unit: (-(unit["r"] or 0), -(unit["max"] or 0)))[:_FACES]
    return {
        "layer": layer,
        "units": len(summaries),
        "grid": field.grid,
        "input": (height, width),
        "field": max(whole.width, whole.height),
        "effective": effective,
        "place": field.place_name,
        "labeled": sum(unit["label"] is not None for unit in summaries),
        "whole_input": field.status == "whole_input" and (field.squares or not field.local),
        "faces": [face for unit in best if (face := _face(index, unit)) is not None],
    }


def _face(index: Index, summary: dict[str, Any]) -> dict[str, Any] | None:
    """A unit with its best patch."""
    _, tiles = shown(index, summary["unit"], 1, "top", "auto")
    return {"unit": summary["unit"], "name": summary["name"], "shown": tiles[0]} if tiles else None


def of_layer(index: Index, layer: str, only: Collection[Unit] | None = None) -> list[dict[str, Any]]:
    """The units of a layer as `units --json` lists them, with `sparsity`, the share of photographs without activation,
    and `evidence` in words."""
    known = _summaries.setdefault(index, {})
    if layer not in known:
        known[layer] = [_summary(unit) for unit in index.units(layer)]
    return known[layer] if only is None else [summary for summary in known[layer] if summary["unit"] in only]


def _summary(unit: IndexedUnit) -> dict[str, Any]:
    summary = unit.summary()
    positive = summary["positive"]
    sparsity = None if positive is None else round(1 - positive, 6)
    return {**summary, "unit": unit.unit, "sparsity": sparsity, "evidence": unit.evidence}


@dataclass(frozen=True)
class Shown:
    """One patch as a page shows it: the patch, its photograph's size, and boxes in source pixels by what they are."""

    patch: Patch
    size: tuple[int, int]
    boxes: dict[str, list[int]]
    proof: str | None

    def as_dict(self) -> dict[str, Any]:
        """What the page's script needs."""
        at = self.patch.position
        return {
            "rank": self.patch.rank,
            "value": self.patch.value,
            "image": printable(self.patch.image),
            "image_id": self.patch.image_id,
            "class": None if self.patch.class_name is None else printable(self.patch.class_name),
            "position": [at.y, at.x],
            "size": self.size,
            "boxes": self.boxes,
            "place": self.patch.field.place_name if self.patch.field else None,
            "proof": self.proof,
        }


def shown(index: Index, unit: Unit, k: int, pick: str, crop: str) -> tuple[Patches, list[Shown]]:
    """The patches of a page, and what is drawn over their photographs. Raises what `OpenUnit.top` raises."""
    of_unit = index.unit(unit)
    kept = of_unit.top(k, pick, "auto")
    patches = kept if crop in ("auto", "tight") else of_unit.top(k, pick, crop)
    return patches, [_shown(patch, tight) for patch, tight in zip(patches, kept, strict=True)]


def _shown(patch: Patch, kept: Patch) -> Shown:
    field, placement = patch.field, patch.placement
    assert field is not None and placement is not None
    channel = patch.unit.channel
    boxes = {
        "seen": Cropping("image").box(field, channel, patch.position),
        "receptive": field.group(channel).seen(patch.position),
    }
    if field.effective is not None:
        boxes["effective"] = Cropping("erf").box(field, channel, patch.position)
    found = {name: list(placement.to_source(box).as_tuple()) for name, box in boxes.items()}
    if kept.cropped and kept.tight is not None:
        found["tight"] = list(kept.box.as_tuple())
    return Shown(patch, placement.source, found, kept.proof_text)


def unit(
    index: Index, of: Unit, k: int = SHOWN, pick: str = "top", crop: str = "auto", only: Collection[Unit] | None = None
) -> dict[str, Any]:
    """All that the page of a unit says; of `only` these units are its neighbors. Raises what `OpenUnit.top` raises."""
    of_unit = index.unit(of)
    _, tiles = shown(index, of, k, pick, crop)
    channels = [channel for channel in range(index.layers[of.layer]) if only is None or Unit(of.layer, channel) in only]
    number = channels.index(of.channel)
    summary = of_unit.summary()
    return {
        "index": _named(index, only),
        "unit": of,
        "summary": summary,
        "evidence": of_unit.evidence,
        "patches": tiles,
        "pick": pick,
        "crop": crop,
        "picks": PICKS if index.store.has_table else {"top": PICKS["top"], "facets": PICKS["facets"]},
        "crops": _crops(index, of),
        "before": Unit(of.layer, channels[number - 1]) if number else None,
        "after": Unit(of.layer, channels[number + 1]) if number + 1 < len(channels) else None,
        "histogram": histogram(index, of, [tile.patch.value for tile in tiles]),
        "range": shown(index, of, _RANGE, "spectrum", "auto")[1][::-1] if index.store.has_table else [],
        "places": places(index, of),
        "classes": classes(index, of),
        "synthetic": synthetic(index, of),
        "compared": findings.read(index, of, findings.COMPARE),
        "why": findings.read(index, of, findings.WHY),
        "command": command(_named(index, only), of, k, pick, crop),
        "warning": missing_source(index),
    }


def _crops(index: Index, of: Unit) -> dict[str, str]:
    """The crops that a unit can have, with their words."""
    field = index.field(of.layer)
    words = CROPS | {"rf": field.place_name}
    return {key: word for key, word in words.items() if key != "erf" or field.effective is not None}


def histogram(index: Index, of: Unit, values: Sequence[float]) -> dict[str, Any] | None:
    """How many photographs have which activation, on a scale of roots, and where these patches lie in it, from 0 to 1.

    None without a table, or for a unit that is finite on no photograph or never varies.
    """
    if not index.store.has_table:
        return None
    column = index.store.column(of.layer, of.channel)[0]
    column = column[np.isfinite(column)]
    if not len(column) or column.min() == column.max():
        return None
    low, high = float(column.min()), float(column.max())
    counts = np.histogram(column.astype(np.float64), _BARS, (low, high))[0]
    heights = np.sqrt(counts / counts.max())
    return {
        "low": low,
        "high": high,
        "zero": -low / (high - low) if low < 0 < high else None,
        "bars": [round(float(height), 3) for height in heights],
        "counts": counts.tolist(),
        "ticks": [round((value - low) / (high - low), 4) for value in values],
    }


def places(index: Index, of: Unit) -> dict[str, Any] | None:
    """For each position of the layer's grid, the share of the unit's strongest photographs whose maximum lies there.

    None for photographs of different input sizes, whose grids differ, and for a grid of one position.
    """
    grid = index.field(of.layer).grid
    if index.preprocessing.view == "whole" or grid == (1, 1):
        return None
    _, _, where = index.store.top(of.layer, of.channel)
    counts = np.bincount(where[where < grid[0] * grid[1]], minlength=grid[0] * grid[1])
    most = max(int(counts.max()), 1)
    cells = [
        {"y": place // grid[1], "x": place % grid[1], "share": round(int(count) / most, 3)}
        for place, count in enumerate(counts.tolist())
        if count
    ]
    return {"grid": grid, "cells": cells, "of": int(counts.sum())}


def classes(index: Index, of: Unit) -> list[tuple[str, int]]:
    """The classes of several of the unit's 25 best photographs: name, and how many, the commonest first."""
    names = index.store.class_names
    if not names:
        return []
    codes = index.store.class_codes()
    _, images, _ = index.store.top(of.layer, of.channel)
    best = codes[images[:SHOWN]]
    found, counts = np.unique(best[best >= 0], return_counts=True)
    order = [number for number in np.lexsort((found, -counts))[:_CLASSES].tolist() if counts[number] > 1]
    return [(class_label(names[found[number]]), int(counts[number])) for number in order]


def nearest(index: Index, of: Unit) -> list[tuple[IndexedUnit, float]]:
    """The units that correlate most with this one, with their correlations; empty without a table."""
    from patchmine.questions.similar import correlated

    known = _nearest.setdefault(index, {})
    if of not in known:
        known[of] = correlated(index.unit(of), NEAREST)
    return known[of]


def synthetic(index: Index, of: Unit) -> SyntheticImage | None:
    """The unit's synthetic image that the index keeps: the first of those that `compare` made, else that of `synth`."""
    try:
        made = kept_images(index, of, BESIDE) or kept_images(index, of, Recipe())
    except PatchmineError:
        return None
    return made[0] if made else None


def command(name: str, of: Unit, k: int, pick: str, crop: str) -> str:
    """The command that draws these patches as a sheet."""
    words = ["patchmine", "top", "-i", name, "--unit", str(of), "-k", str(k)]
    words += ["--pick", pick] if pick != defaults.PICKS[0] else []
    words += ["--crop", crop] if crop != "auto" else []
    return shlex.join([*words, "-o", "sheet.png"])


def search_list(index: Index, layers: Sequence[str], only: Collection[Unit] | None = None) -> list[list[Any]]:
    """Of each unit the number of its layer, its channel, its name, what is said of it, and how well its label fits."""
    return [
        [number, summary["channel"], printable(summary["name"]), printable(summary["evidence"]), _fit(summary)]
        for number, layer in enumerate(layers)
        for summary in of_layer(index, layer, only)
    ]


def _fit(summary: dict[str, Any]) -> float:
    return round(summary["r"] or summary["auroc"] or 0, 3)


__all__ = ["CROPS", "PICKS", "SHOWN", "SORTS", "Shown", "layer", "network", "of_layer", "search_list", "unit"]
