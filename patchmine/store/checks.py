"""Validates the documents of an index, the manifest and the receptive fields, before anything relies on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from patchmine.defaults import FIELDS, VIEWS
from patchmine.fields.field import TOKENS, FieldsBySize, ReceptiveField
from patchmine.networks.calls import storable
from patchmine.photographs.placement import FILTER_REACH
from patchmine.ranking import NO_IMAGE
from patchmine.store.job import Job
from patchmine.system.untrusted_json import Misfit, Part, parse, parse_list, read_bounded

MANIFEST_BYTES = 32 << 20
"""The largest manifest that is read, in bytes: enough for more than 100,000 skipped photographs."""

SOURCE = 1 << 16
"""The longest source, in characters: a source with many parts names all of them."""

FIELDS_BYTES = 32 << 20
"""The largest receptive field document of one layer that is read, in bytes."""

LABELS_FROM = ("classes", "predictions", "none")
"""The possible bases of units' labels: the classes of the source, or the classes that the network predicts."""

UNITS, LAYERS, SIDE, GRID, COUNT = 1_000_000, 10_000, 16_384, 65_536, 2**31 - 1
"""Upper limits: units of all layers together, layers, pixels along a side of the input, grid cells along a side, and
all other counts."""


def read_document(file: Path) -> Part:
    """The document in a manifest's file, before its values are checked. Raises Misfit or FileNotFoundError."""
    return parse(read_bounded(file, MANIFEST_BYTES))


def check_manifest(document: Part) -> None:
    """Check every value of a manifest that is ever read from it. Raises Misfit."""
    _check_job(document.part("job"))
    document.text("job_digest")
    document.part("versions").text("patchmine")
    document.whole("images", 1, NO_IMAGE - 1)
    if "labels" in document.data:  # older versions of patchmine did not write labels
        check_label_facts(document.part("labels"))
    if "seconds" in document.data:  # the copy in activations.h5 has no timings
        document.number("seconds", 0, COUNT)
    if "checksums" in document.data:
        sums = document.part("checksums")
        for name in sums.part("files").data:
            if name not in ("activations.h5", "patches.faiss"):
                raise Misfit(f"checksums.files names {name!r:.40}, which is not a file of an index")
            sums.part("files").text(name)
        for name in sums.part("datasets").data:
            sums.part("datasets").text(name)
    for skipped in document.parts("skipped_files"):
        skipped.text("image")
        skipped.text("reason")
    if "passed_over" in document.data:
        passed = document.part("passed_over")
        for suffix in passed.data:
            passed.whole(suffix, 1, COUNT)
        for place in document.parts("left_out"):
            place.text("path")
            place.text("reason")
    layers = document.parts("layers")
    if not 1 <= len(layers) <= LAYERS:
        raise Misfit(f"it names {len(layers)} layers, not 1 to {LAYERS}")
    units = 0
    for layer in layers:
        name = layer.text("layer", most=1024)
        if not storable(name):
            raise Misfit(f"{name!r} is not a layer name")
        units += layer.whole("units", 1, UNITS)
        layer.wholes("grid", 2, 1, GRID)
        layer.whole("saturated", 0, UNITS)
        layer.whole("non_finite", 0, 2**63)
        if "width" in layer.data:  # only of a virtual layer
            layer.whole("width", 1, UNITS)
        if "calls" in layer.data:  # only of a module that is called several times
            layer.whole("call", 1, layer.whole("calls", 1, COUNT))
        if "search" in layer.data:  # only of a layer with very many vectors
            _check_search(layer.part("search"))
    if units > UNITS:
        raise Misfit(f"it names {units} units, more than {UNITS}")
    if len({layer.text("layer") for layer in layers}) < len(layers):
        raise Misfit("it names a layer twice")


def _check_search(search: Part) -> None:
    """Check how the nearest vectors of a layer are found. Raises Misfit."""
    for name in ("vectors", "lists", "probes", "parts", "depth"):
        search.whole(name, 1, COUNT)
    search.number("recall", 0, 1)


def _check_directions(job: Part) -> None:
    """Check the virtual layers and the digests of their readouts, which name files. Raises Misfit."""
    found = job.data["directions"]
    if not isinstance(found, list) or len(found) > LAYERS:
        raise Misfit("job.directions is not a list of layers and digests")
    for pair in found:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise Misfit("job.directions is not a list of layers and digests")
        if not re.fullmatch("[0-9a-f]{32}", pair[1]):
            raise Misfit(f"job.directions: {pair[1]!r:.40} is not a digest")


def check_label_facts(about: Part) -> None:
    """Check the facts about labels that are ever read. Raises Misfit."""
    about.word("from", LABELS_FROM)
    for key in ("classes", "photographs", "tried", "needed", "units"):
        if key in about.data:
            about.whole(key, 0, COUNT)
    if "rule" in about.data:
        about.text("rule")
    if "named" in about.data:
        named = about.part("named")
        for layer in named.data:
            named.whole(layer, 0, UNITS)


def _check_job(job: Part) -> None:
    job.text("source", most=SOURCE)
    for key in ("listing", "model", "weights", "decoder", "executor", "runtime", "device", "precision"):
        job.text(key)
    if "code" in job.data:
        job.text("code")
    if "position_embedding" in job.data:
        job.text("position_embedding")
    if "directions" in job.data:
        _check_directions(job)
    for key in ("photographs", "batch_size", "threads", "shard_size", "keep"):
        job.whole(key, 1, NO_IMAGE - 1)
    job.texts("layers")
    job.truth("table")
    job.word("field", FIELDS)
    preprocessing = job.part("preprocessing")
    if isinstance(preprocessing.data.get("resize"), list):
        preprocessing.wholes("resize", 2, 1, SIDE)
    else:
        preprocessing.whole("resize", 1, SIDE)
    preprocessing.wholes("crop", 2, 1, SIDE)
    preprocessing.word("interpolation", tuple(FILTER_REACH))
    preprocessing.word("view", VIEWS)
    preprocessing.numbers("mean", 3, -1e6, 1e6)
    preprocessing.numbers("std", 3, 1e-6, 1e6)
    Job.from_dict(job.data)  # covers fields of this version that nothing above reads


def read_fields(data: bytes, layer: str, channels: int, grid: tuple[int, int], crop: tuple[int, int]) -> FieldsBySize:
    """The receptive fields of a layer from their JSON; the first entry is the nominal one, for inputs of `crop`. Raises
    Misfit."""
    entries = parse_list(data)
    if not entries:
        raise Misfit("it holds no receptive field")
    sizes = [_checked_entry(entry, channels) for entry in entries]
    first = entries[0]
    if sizes[0] != crop or first.wholes("grid", 2, 1, GRID) != grid:
        raise Misfit(
            f"the first receptive field does not have the grid {grid[0]}x{grid[1]} for {crop[0]}x{crop[1]} pixels"
        )
    for entry in entries:
        entry.word("layer", (layer,))
        entry.whole("channels", channels, channels)
        if _partition(entry, channels) != _partition(first, channels):
            raise Misfit("the groups of channels differ between sizes of the input")
    return FieldsBySize(
        tuple(ReceptiveField.from_dict(entry.data, size) for entry, size in zip(entries, sizes, strict=True))
    )


def _checked_entry(entry: Part, channels: int) -> tuple[int, int]:
    """The input size (height, width) of one receptive field, after checking that the field is consistent in itself."""
    height, width = entry.wholes("input", 2, 1, COUNT)
    rows, cols = entry.wholes("grid", 2, 1, GRID)
    entry.word("status", ("exact", "whole_input"))
    if "local" in entry.data:
        entry.truth("local")
    if "tokens" in entry.data:  # only of a layer whose output is a sequence of tokens
        entry.word("tokens", tuple(TOKENS))
    for group in entry.parts("groups"):
        group.pairs("rows", rows, 0, height)
        group.pairs("cols", cols, 0, width)
        for key, low in (("size", 1), ("stride", 0), ("offset", -COUNT)):
            if group.given(key):
                group.wholes(key, 2, low, COUNT)
        if not group.given("size") and not (_widest(group.data["rows"]) and _widest(group.data["cols"])):
            raise Misfit(f"{group.place} sees nothing")
    _partition(entry, channels)
    return height, width


def _widest(intervals: list[Any]) -> int:
    return max(stop - start for start, stop in intervals)


def _partition(entry: Part, channels: int) -> list[tuple[int, ...]]:
    """The channels of the groups, which must cover all channels in order."""
    ranges = [group.wholes("channels", 2, 0, channels) for group in entry.parts("groups")]
    stops = [0, *(stop for _, stop in ranges)]
    if [start for start, _ in ranges] != stops[:-1] or stops[-1] != channels or any(a >= b for a, b in ranges):
        raise Misfit(f"{entry.place}.groups do not cover the {channels} channels in order")
    return ranges
