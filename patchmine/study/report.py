"""Writes a study as files: `report.json`, `report.md`, and one page as `report.pdf` and `report.png`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchmine.drawing.settings import own_settings
from patchmine.reading.opened import OpenIndex
from patchmine.study.figure import page
from patchmine.study.why import Study, as_dict
from patchmine.system.atomic import deliver
from patchmine.system.printable import printable

DOCUMENT = "report.json"
_DPI = 150


def write_report(found: Study, index: OpenIndex[Any], folder: Path) -> dict[str, Any]:
    """Write all four files, the JSON last, and return it."""
    figure = page(found)
    for kind in ("pdf", "png"):
        buffer = io.BytesIO()
        metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
        with own_settings():
            figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
        deliver(folder / f"report.{kind}", buffer.getvalue())
    deliver(folder / "report.md", markdown(found, index).encode())
    document = as_dict(found, index)
    deliver(folder / DOCUMENT, json.dumps(document, indent=1).encode() + b"\n")
    return document


COLUMNS = ("unit", "name", "exponent", "pitch or count", "corners", "periodic", "positions in the data", "noise")


def summary(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row for each report, with the columns `COLUMNS`."""
    rows = []
    for one in documents:
        words = {verdict["question"]: verdict["word"] for verdict in one["verdicts"]}
        fit = next(v["numbers"].get("zeros_exponent") for v in one["verdicts"] if v["question"] == "pitch or count")
        row = {"unit": f"{one['unit']['layer']}:{one['unit']['channel']}", "name": one["unit"]["name"]}
        row["exponent"] = "" if fit is None else f"{fit['value']:.2f} ({fit['low']:.2f} to {fit['high']:.2f})"
        rows.append({**row, **{column: words.get(column, "") for column in COLUMNS[3:]}})
    return rows


def write_summary(documents: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """`summary.md`: a table over the units."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(printable(cell) for cell in row.values())} |" for row in summary(documents)]
    folder.mkdir(parents=True, exist_ok=True)
    deliver(folder / "summary.md", "\n".join([*lines, ""]).encode())


def markdown(found: Study, index: OpenIndex[Any]) -> str:
    subject, settings = found.subject, found.settings
    lines = [
        f"# {printable(found.name)} ({found.unit})",
        "",
        *([f"{printable(found.evidence)}.", ""] if found.evidence else ()),
        found.conclusion,
        "",
        "![Figures behind the verdicts](report.png)",
        "",
        "## Verdicts",
        "",
        "| question | verdict | because |",
        "| --- | --- | --- |",
        *(f"| {v.question} | **{v.word}** | {printable(v.because)} |" for v in found.verdicts),
        "",
        "Intervals are 95 %. A peak is a local maximum of the unit's map that reaches half the map's maximum; no two "
        "lie closer than a quarter of the field. A map that stays below half of the unit's activation on "
        f"{subject.base} px counts as having no peaks.",
        "",
        "## Synthetic images",
        "",
        f"{settings.seeds} images of each kind, {settings.steps} steps each. Field {subject.pattern} px, layer stride "
        f"{subject.stride} px, network input {subject.native} px.",
        "",
        "| canvas | padding | objective | method | peaks | maximum | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for trial, result in found.results.items():
        peaks = [len(one) for one in result.peaks(subject, 0.25)]
        cells = (
            result.refused or ", ".join(map(str, peaks)),
            ", ".join(f"{value:.3g}" for value in result.maxima),
            f"{result.seconds:.0f}",
        )
        lines.append(
            f"| {trial.side} px | {trial.padding} | {trial.objective} | {trial.method} | {' | '.join(cells)} |"
        )
    if found.left_out:
        lines += ["", f"Left out for lack of time: {'; '.join(map(str, found.left_out))}."]
    lines += ["", f"Index: {printable(index.name)}, {len(index)} photographs. Took {found.seconds:.0f} s.", ""]
    return "\n".join(lines)


__all__ = ["COLUMNS", "DOCUMENT", "markdown", "summary", "write_report", "write_summary"]
