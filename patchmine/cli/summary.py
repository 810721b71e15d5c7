"""The text that `index` and `info` print about an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from patchmine.buckets.copies import size_of
from patchmine.cli.output import print_line, print_table
from patchmine.labels.class_hints import census
from patchmine.networks.calls import described, of_dict
from patchmine.reading.answers import counted
from patchmine.system.progress import pace

if TYPE_CHECKING:
    from patchmine.mining.build import Report

MOST_NAMED, MOST_KINDS = 20, 12
"""Photographs and places that are named, and kinds of files that are counted apart, before the rest is summed."""


def print_report(report: Report) -> None:
    manifest = report.manifest
    if report.mined:
        rate = pace(report.images_per_second).removesuffix("/s")
        print_line(
            f"{counted(report.mined, 'photograph', 'photographs')} in {report.seconds:.1f} s, {rate} images/s"
            + (" (resumed)" if report.resumed else "")
            + f"; the slowest part: {slowest(manifest['stages'])}"
        )
    else:
        print_line("this index was already finished: no activations were computed")
    print_layers(manifest)
    print_passed(report.listed.passed.counted(), report.listed.passed.named())
    first = manifest["layers"][-1]["layer"]
    size, where = size_of(report.directory), "on disk" if report.name == str(report.directory) else "in the bucket"
    found = census(report.entries)
    photographs = counted(manifest["images"], "photograph", "photographs")
    print_line(f"{report.name}: {photographs} {found}, {size / 1e6:.0f} MB {where}")
    print_line(f"next: patchmine top -i {report.name} --unit {first}:0")


def print_profile(report: Report, imported: float) -> None:
    """Print where the time went: `imported` seconds for libraries, then the stages of the run."""
    stages = report.manifest["stages"]
    others = stages["others"]
    total = stages["total"] + imported
    rows = [("import", imported, "libraries"), *((name, others[name], what) for name, what in _START if name in others)]
    rows += [(name, seconds, _MINING[name]) for name, seconds in stages["of_mining"].items()]
    rows += [(name, others.get(name, 0.0), what) for name, what in _BESIDE]
    print_table(
        [(name, f"{seconds:.2f}", f"{seconds / total:.0%}", what) for name, seconds, what in rows],
        ["stage", "seconds", "share", ""],
    )
    limit = stages.get("limit")
    if limit:
        mining = report.mined / stages["mining"] if stages["mining"] else 0.0
        shared = "has a processor of its own" if limit.get("beside") else "share its cores"
        print_line(
            f"limit of this machine: {limit['both']:.0f} images/s (decoding {limit['decoding']:.0f}, forward pass "
            f"{limit['forward']:.0f}, which {shared}); mining reached {mining / limit['both']:.2f} of it, the "
            f"whole call {report.mined / (total - others['limit']) / limit['both']:.2f}"
        )


_START = (
    ("list", "the photographs"),
    ("load", "the network"),
    ("calibrate", "the fastest executor and settings"),
    ("compare", "photographs with those of the old index"),
    ("fields", "receptive fields"),
    ("build", "the executor"),
    ("limit", "measuring the limit for this table"),
)
_MINING = {
    "read": "photographs and their digests, average of the threads",
    "decode": "and resize, average of the threads",
    "forward": "pass and maxima, average of the threads",
    "wait": "for the next photographs, average of the threads",
}
_BESIDE = (
    ("rank", "beside mining, in a thread of its own"),
    ("write", "shards, beside mining"),
    ("verify", "checksums of the shards"),
    ("table", "of activations, with ranking"),
    ("labels", "beside faiss"),
    ("faiss", "vectors"),
    ("effective", "receptive fields, after what was measured beside publishing"),
    ("checksums", "of the index"),
)


def slowest(stages: Mapping[str, Any]) -> str:
    """The part of the run that took longest: `forward pass 8.7 s`."""
    parts = {
        "start": stages["start"],
        "reading and decoding": stages["of_mining"]["read"] + stages["of_mining"]["decode"],
        "forward pass": stages["of_mining"]["forward"],
        "waiting for photographs": stages["of_mining"]["wait"],
        "publishing": stages["publish"],
    }
    name = max(parts, key=lambda part: parts[part])
    return f"{name} {parts[name]:.1f} s"


def print_layers(manifest: Mapping[str, Any]) -> None:
    """Print the layers, their saturated units and non-finite values, and the photographs that were skipped."""
    print_table(
        [
            (
                layer["layer"],
                layer["units"],
                "x".join(map(str, layer["grid"])),
                _saturation(layer),
                layer["non_finite"] or "",
                described(*of_dict(layer)),
            )
            for layer in manifest["layers"]
        ],
        ["layer", "units", "grid", "saturated", "not finite", ""],
    )
    saturated = [layer for layer in manifest["layers"] if layer["saturated"]]
    if saturated:
        print_line(
            "saturated: more than 25 photographs reach the maximum of the unit, so its top 25 is arbitrary; "
            "index the layer before the bounded activation instead"
        )
    for layer in manifest["layers"]:
        if "search" in layer:
            found, count = layer["search"]["recall"], layer["search"]["vectors"]
            print_line(f"similar in {layer['layer']}: finds {found:.1%} of the ten nearest of {count} patches")
    skipped = manifest["skipped_files"]
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["skipped"].items())
        print_line(f"{counted(len(skipped), 'photograph was', 'photographs were')} skipped: {reasons}")
        for entry in skipped[:MOST_NAMED]:
            print_line(f"  {entry['image']}: {entry['reason']}")
        if len(skipped) > MOST_NAMED:
            print_line(f"  ... and {len(skipped) - MOST_NAMED} more: patchmine info --json")


def print_passed(others: Mapping[str, int], left_out: Sequence[Mapping[str, str]]) -> None:
    """Print what the source holds besides its photographs: files of other kinds, and links that were left out."""
    if others:
        kinds = [f"{count} {suffix}" for suffix, count in list(others.items())[:MOST_KINDS]]
        more = sum(list(others.values())[MOST_KINDS:])
        print_line(f"passed over: {', '.join([*kinds, *([f'{more} of other kinds'] if more else [])])}")
    if left_out:
        print_line(f"left out: {len(left_out)} {'place' if len(left_out) == 1 else 'places'} in the source")
        for place in left_out[:MOST_NAMED]:
            print_line(f"  {place['path']}: {place['reason']}")
        if len(left_out) > MOST_NAMED:
            print_line(f"  ... and {len(left_out) - MOST_NAMED} more: patchmine info --json")


def _saturation(layer: Mapping[str, Any]) -> str:
    return f"{layer['saturated']} ({layer['saturated'] / layer['units']:.0%})" if layer["saturated"] else ""
