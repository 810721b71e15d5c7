"""Print the tables of docs/why-six-fish.md: the studies of many units together.

    python -m docs.figures.study FOLDER

FOLDER holds the folders that `patchmine why` wrote, one for each unit, on the same canvases. Prints a table over
layers, one over units, and how many units have each verdict. The exponents and the ratio of a layer are those of the
peaks of all its units together, with 95 % intervals; everything else is a median over units.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean, median
from typing import Any

from patchmine.study.instruments.counting import exponent, ratio_over
from patchmine.study.report import DOCUMENT, summary

QUESTIONS = ("pitch or count", "corners", "periodic", "positions in the data", "noise")


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    """By question."""
    return {verdict["question"]: verdict["numbers"] for verdict in report["verdicts"]}


def together(told: list[dict[str, Any]], padding: str) -> str:
    """The exponent of all units' peaks, added up canvas by canvas."""
    parts = [one["pitch or count"] for one in told]
    areas = parts[0][f"{padding}_areas_px2"]
    counts = [sum(column) for column in zip(*(part[f"{padding}_peaks"] for part in parts), strict=True)]
    return str(exponent(areas, counts))


def without_border(told: list[dict[str, Any]]) -> str:
    """Peaks on the torus over those with a border, all units and canvases together."""
    pairs = [
        pair
        for one in told
        if "peaks_on_torus" in one["corners"]
        for pair in zip(one["corners"]["peaks_on_torus"], one["corners"]["peaks_with_border"], strict=True)
    ]
    return str(ratio_over(pairs))


def row(reports: list[dict[str, Any]]) -> list[str]:
    """Medians over the units of a layer, as the table has them."""
    told = [numbers(report) for report in reports]

    def middle(question: str, *names: str, form: str = "{:.2f}") -> str:
        values = []
        for one in told:
            found: Any = one[question]
            for name in names:
                found = None if found is None else found.get(name)
            if found is not None:
                values.append(mean(found) if isinstance(found, list) else found)
        return form.format(median(values)) if values else ""

    words = [Counter(v["word"] for v in report["verdicts"] if v["question"] == "pitch or count") for report in reports]
    pitch = sum(one["pitch"] for one in words)
    return [
        f"{reports[0]['unit']['layer']}",
        f"{len(reports)}",
        f"{reports[0]['pattern_px']}",
        f"{pitch}",
        together(told, "zeros"),
        together(told, "circular"),
        without_border(told),
        middle("corners", "kept_when_moved"),
        middle("positions in the data", "peaks_per_synthetic_image", form="{:.1f}"),
        middle("positions in the data", "peaks_per_photograph", form="{:.1f}"),
        middle("positions in the data", "off_centre_z", form="{:.1f}"),
        middle("positions in the data", "padding_share", form="{:.0%}"),
        middle("periodic", "spacing_over_field"),
        middle("periodic", "by_chance_over_field"),
        middle("periodic", "response_likeness", "repeats"),
        middle("periodic", "response_likeness", "anywhere"),
        middle("positions in the data", "off_centre_padded_alike_z", form="{:.1f}"),
        middle("noise", "plain pixels", "slope", form="{:.1f}"),
        middle("noise", "robust", "slope", form="{:.1f}"),
        middle("noise", "photographs", "slope", form="{:.1f}"),
        middle("noise", "gradient", "slope", form="{:.1f}"),
    ]


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    reports = [json.loads(file.read_bytes()) for file in sorted(options.folder.glob(f"*/{DOCUMENT}"))]
    if not reports:
        raise SystemExit(f"no */{DOCUMENT} in {options.folder}")
    layers: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for report in reports:
        layers[report["unit"]["layer"]].append(report)
    header = [
        "layer", "units", "field, px", "pitch", "exponent", "on the torus", "torus / border", "kept when moved",
        "peaks, synthetic", "peaks, photograph", "z of center", "padding", "spacing / field", "of noise",
        "repeats alike", "anywhere", "z, padded alike",
        "slope, pixels", "robust", "photographs", "gradient",
    ]  # fmt: skip
    print(table(header, [row(of_layer) for of_layer in layers.values()]))
    print()
    rows = summary(reports)
    print(table(list(rows[0]), [list(one.values()) for one in rows]))
    print()
    for question in QUESTIONS:
        words = Counter(v["word"] for report in reports for v in report["verdicts"] if v["question"] == question)
        print(f"{question}: {', '.join(f'{count} {word}' for word, count in words.most_common())}")


if __name__ == "__main__":
    main()
