"""What stands beside a figure: its patches as a table, its caption in plain words, and the LaTeX that includes it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from patchmine.errors import RequestError
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets.origin import Origin, names_text
from patchmine.system import atomic
from patchmine.system.printable import printable

COLUMNS = (
    *("layer", "channel", "name", "pick", "rank", "value", "class", "image", "digest"),
    *("position_y", "position_x", "box_left", "box_top", "box_right", "box_bottom", "retained"),
)

ABOUT = {
    "grid": "Each block shows one unit, its patches in rank order.",
    "strip": "Each row shows one unit.",
    "spectrum": "Each strip shows a band of a unit's whole range, strongest first, beside a histogram of its "
    "activations with that band in color (bars: square roots of the counts).",
    "zeiler": "For each unit the patches are on the right and their projections, by {method}, on the left.",
    "context": "Each picture is the whole input of the network; outlined are the tight crop, the {place} and the "
    "effective field.",
    "compare": "Synthetic images, made by gradient ascent, stand on the left, real patches on the right.",
    "facets": "The map shows the kept top patches by the directions of their activation vectors (first two principal "
    "components); below it are the best patches of all, then those of each facet, a group of similar directions.",
    "queries": "On the left are references that drive the unit least, on the right those that drive it hardest; of the "
    "two queries between them one belongs to each side.",
    "orders": "For each unit the patches on the left are ranked by its activation, those on the right by its relevance "
    "to the network's decision.",
    "layer": "Each block shows one unit, its patches row by row.",
}
"""What a reader of each layout has to know."""

PICKS = {
    "top": "highest first",
    "top by relevance": "and by the sum of its relevance over all positions, highest first",
    "bottom": "lowest first",
    "spectrum": "at equal distances in rank over the unit's whole range",
}
CROPS = {
    "rf": "A patch is cut to the unit's receptive field: nothing outside it can change the activation.",
    "erf": "A patch is cut to the unit's effective receptive field, which holds {energy:.0%} of the gradient's energy.",
    "image": "A patch shows all that the network saw of the photograph.",
    "tight": "A patch is cut to the smallest box found that alone, on gray and on the blurred photograph, brings back "
    "{retained:.0%} of the activation; what surrounds it is faded.",
}
TOKEN_CROPS = {
    "rf": "A patch shows a token, outlined, with its surroundings; by attention it sees the whole input.",
    "erf": "A patch is cut to the effective field of a {token}, which holds {energy:.0%} of the gradient's energy.",
}
BESIDE_CROPS = TOKEN_CROPS | {
    "rf": "A patch shows all that the network saw of the photograph, as the {token} does by attention."
}
"""Instead of those in CROPS: for the tokens on a transformer's grid, and for those beside it."""
HATCHED = "Hatched areas lie outside the receptive field or outside the picture that the network saw."
MOST_NAMED = 12
"""Units that a caption names one by one."""


class Record:
    """The patches that a figure shows, noted as it is drawn: a row of the table for each, and facts for the caption."""

    def __init__(self) -> None:
        self._rows = io.StringIO()
        self._writer = csv.writer(self._rows, lineterminator="\n")
        self._writer.writerow(COLUMNS)
        self._units: dict[OpenUnit, None] = {}
        self._picks: dict[str, None] = {}
        self._crops: dict[str, dict[str, None]] = {}
        self._places: dict[str, None] = {}
        self._hatched = False
        self.patches = 0

    def add(self, unit: OpenUnit, patches: Patches) -> None:
        self.patches += len(patches)
        pick = patches.pick if patches.by == "activation" else f"{patches.pick} by relevance"
        self._units[unit] = self._picks[pick] = None
        cropping = patches.cropping
        field = unit.index.field(unit.unit.layer)
        self._places[field.place_name] = None
        rules = CROPS | (TOKEN_CROPS if field.squares else BESIDE_CROPS if field.token else {})
        rule = rules[cropping.crop].format(energy=cropping.energy, retained=cropping.retained, token=field.token)
        self._crops.setdefault(rule, {})[unit.unit.layer] = None
        self._hatched |= _hatched(patches)
        for patch in patches:
            box, tight = patch.box, patch.tight if patch.cropped else None
            self._writer.writerow(
                (
                    *(unit.unit.layer, unit.unit.channel, unit.name, pick, patch.rank, patch.value),
                    *(patch.class_name, patch.image, unit.index.digest(patch.image_id)),
                    *(patch.position.y, patch.position.x, box.left, box.top, box.right, box.bottom),
                    None if tight is None else round(tight.retained, 6),
                )
            )

    @property
    def table(self) -> bytes:
        """The patches as CSV, in UTF-8; boxes are in source pixels."""
        return self._rows.getvalue().encode("utf-8", "backslashreplace")

    def caption(self, layout: str, project: str) -> str:
        """The caption of the figure in plain words, in one paragraph."""
        units = list(self._units)
        index = units[0].index
        origin = Origin.of(index)
        ranking = " and ".join(PICKS.get(pick, pick) for pick in self._picks)
        names = names_text(index, units)
        whole = layout == "context"
        texts = [
            f"Patches of photographs and the activation of {_named(units)} of {origin.model} (weights "
            f"{index.job.weights}).",
            ABOUT[layout].format(method=project, place=" or ".join(self._places)),
            f"Data: {origin.photographs} photographs of {origin.source}. Ranking: by a unit's largest activation over "
            f"all positions of a photograph, {ranking}.",
            *([] if whole else _by_layer(self._crops)),
            *([HATCHED] if self._hatched and not whole else []),
            *([names] if names else []),
        ]
        return printable(" ".join(texts))


def _named(units: Sequence[OpenUnit]) -> str:
    layers = list(dict.fromkeys(unit.unit.layer for unit in units))
    if len(units) == 1:
        return f"unit {units[0].name} ({units[0].unit})"
    if len(units) <= MOST_NAMED:
        return f"units {', '.join(f'{unit.name} ({unit.unit})' for unit in units)}"
    return f"{len(units)} units of {'layer' if len(layers) == 1 else 'layers'} {', '.join(layers)}"


def _by_layer(rules: Mapping[str, Iterable[str]]) -> list[str]:
    """The rules by which patches are cut; with the layers that each holds for, where there are several."""
    if len(rules) < 2:
        return list(rules)
    return [f"In {', '.join(layers)}: {rule[0].lower()}{rule[1:]}" for rule, layers in rules.items()]


def _hatched(patches: Patches) -> bool:
    shows = patches.cropping.crop
    return shows not in ("image", "tight") and any(patch.visible < 1 for patch in patches)


def latex(target: Path, text: str, wide: bool) -> str:
    """The figure environment that includes a PDF or PNG in its own size; `wide` spans both columns."""
    environment = "figure*" if wide else "figure"
    return (
        f"\\begin{{{environment}}}[t]\n  \\centering\n  \\includegraphics{{{target.name}}}\n"
        f"  \\caption{{{_escaped(text)}}}\n  \\label{{fig:{_label(target.stem)}}}\n\\end{{{environment}}}"
    )


_SPECIAL = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "×": "$\\times$",
    "·": "$\\cdot$",
}


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(char, char) for char in text)


def _label(stem: str) -> str:
    return "".join(char if char.isalnum() or char in "-._" else "-" for char in stem)


def beside(target: Path) -> tuple[Path, Path]:
    """The files of the table and of the caption of a figure."""
    return target.with_suffix(".csv"), target.with_suffix(".txt")


def check_beside(target: Path, force: bool) -> None:
    """Check, before any work, that the files beside a figure can be written. Raises RequestError.

    Files of that name that patchmine did not write are replaced only with `force`.
    """
    files = beside(target)
    for file in files:
        atomic.check_target(file)
    if force or not any(file.exists() for file in files):
        return
    with files[0].open("rb") if files[0].exists() else io.BytesIO() as found:
        if found.readline() != ",".join(COLUMNS).encode() + b"\n":
            there = next(file for file in files if file.exists())
            raise RequestError(f"{str(there)!r} is there and not of a sheet: add --force, or give -o another name")


def deliver_beside(target: Path, record: Record, text: str) -> None:
    """Write the table and the caption of a figure."""
    for file, data in zip(beside(target), (record.table, f"{text}\n".encode("utf-8", "backslashreplace")), strict=True):
        atomic.deliver(file, data)
