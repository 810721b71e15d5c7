"""The text that `index` and `info` print about an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from patchmine.cli.output import print_line, print_table
from patchmine.networks.calls import described, of_dict

if TYPE_CHECKING:
    from patchmine.mining.build import Report


def print_report(report: Report) -> None:
    manifest = report.manifest
    if report.mined:
        rate = f"{report.images_per_second:.0f} images/s"
        print(
            f"{report.mined} photographs in {report.seconds:.1f} s, {rate}" + (" (resumed)" if report.resumed else "")
        )
        print(seconds_by_stage(manifest["stages"]))
    else:
        print("this index was already finished; there was nothing to do")
    print_layers(manifest)
    first = manifest["layers"][-1]["layer"]
    size = sum(file.stat().st_size for file in report.directory.iterdir() if file.is_file())
    print(f"{report.directory}: {manifest['images']} photographs, {size / 1e6:.0f} MB on disk")
    print(f"next: patchmine top -i {report.directory} --unit {first}:0")


def seconds_by_stage(stages: Mapping[str, Any]) -> str:
    """One line: start-up by part, the threads that mine on average, and publishing."""
    others = stages["others"]
    parts = ("list", "load", "calibrate", "compare", "fields", "build")
    start = [f"{name} {others[name]:.1f}" for name in parts if name in others]
    mining = [f"{name} {seconds:.1f}" for name, seconds in stages["of_mining"].items()]
    meanwhile = [f"{name} {others.get(name, 0):.1f}" for name in ("rank", "write")]
    publish = [f"{name} {others.get(name, 0):.1f}" for name in ("effective", "table", "labels", "faiss", "checksums")]
    return (
        f"seconds: start {stages['start']:.1f} ({', '.join(start)}); mining {stages['mining']:.1f} "
        f"({', '.join(mining)}; meanwhile {', '.join(meanwhile)}); "
        f"publish {stages['publish']:.1f} ({', '.join(publish)})"
    )


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
        print(
            "saturated: more than 25 photographs reach the maximum of the unit, so its top 25 is arbitrary; "
            "index the layer before the bounded activation instead"
        )
    skipped = manifest["skipped_files"]
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["skipped"].items())
        print_line(f"{len(skipped)} photographs were skipped: {reasons}")
        for entry in skipped[:20]:
            print_line(f"  {entry['image']}: {entry['reason']}")
        if len(skipped) > 20:
            print(f"  ... and {len(skipped) - 20} more: patchmine info --json")


def _saturation(layer: Mapping[str, Any]) -> str:
    return f"{layer['saturated']} ({layer['saturated'] / layer['units']:.0%})" if layer["saturated"] else ""
