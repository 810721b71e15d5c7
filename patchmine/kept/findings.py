"""What a study of a unit found, in sentences, for readers that have no network: a JSON document in `findings/`.

`compare` and `why` leave one each. It holds for one job and number of photographs, and is ignored once these differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from patchmine.store.job import Job
from patchmine.system import digests
from patchmine.system.atomic import write_atomically
from patchmine.system.untrusted_json import Misfit, Part, parse, read_bounded
from patchmine.units import Unit

FOLDER = "findings"

COMPARE, WHY = "compare", "why"

_MOST = 1 << 20  # bytes to read from a file that may come from a stranger


class Studied(Protocol):
    """An opened index, as far as its findings need it."""

    @property
    def directory(self) -> Path: ...
    @property
    def job(self) -> Job: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Finding:
    """`lead` are the sentences to read first, `rows` the rest: what each is about (may be empty), and a sentence."""

    lead: Sequence[str]
    rows: Sequence[tuple[str, str]]


def write(index: Studied, unit: Unit, kind: str, found: Finding) -> None:
    """Keep a finding in the index, unless that cannot be written."""
    document = {
        **_about(index, unit),
        "lead": list(found.lead),
        "rows": [{"about": about, "text": text} for about, text in found.rows],
    }
    file = _file(index, unit, kind)
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, [json.dumps(document, indent=1).encode() + b"\n"])


def read(index: Studied, unit: Unit, kind: str) -> Finding | None:
    """What the index keeps of this kind; None if there is nothing that holds and can be read."""
    try:
        document = parse(read_bounded(_file(index, unit, kind), _MOST))
        if any(document.data.get(key) != value for key, value in _about(index, unit).items()):
            return None
        return Finding(document.texts("lead"), [_row(row) for row in document.parts("rows")])
    except (OSError, Misfit):
        return None


def _about(index: Studied, unit: Unit) -> dict[str, object]:
    return {"job": index.job.digest, "photographs": len(index), "unit": str(unit)}


def _row(row: Part) -> tuple[str, str]:
    return row.text("about") if row.data.get("about") else "", row.text("text")


def _file(index: Studied, unit: Unit, kind: str) -> Path:
    return index.directory / FOLDER / f"{kind}-{digests.of_json([unit.layer, unit.channel])}.json"


__all__ = ["COMPARE", "WHY", "Finding", "read", "write"]
