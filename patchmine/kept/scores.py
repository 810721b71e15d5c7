"""The scores of units that an index keeps, in scores.json: computed once for a job, and anew for another.

The file is written under another name and renamed. It may come from a stranger, so each number is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.system import digests
from patchmine.system.atomic import write_atomically
from patchmine.system.untrusted_json import Misfit, parse, read_bounded

FILE = "scores.json"

RULE = 2
"""The version of the formulas; scores of another one are computed again."""

_LARGEST = 256 << 20  # the most bytes to read
_DIGITS = 6

Columns = dict[str, dict[str, NDArray[np.float64]]]
"""By layer and score, float64 (units,); NaN where a unit has no such score."""


def read(directory: Path, job: str, layers: Mapping[str, int]) -> Columns:
    """The scores that were computed for the job with this digest; none without a file, or from a damaged one."""
    try:
        document = parse(read_bounded(directory / FILE, _LARGEST))
        if document.whole("rule", 0, 1 << 30) != RULE or document.text("job") != job:
            return {}
        body = document.data["layers"]
        if document.text("digest") != digests.of_json([job, body]):
            return {}
        return {
            layer: {name: _column(numbers, layers[layer]) for name, numbers in scores.items()}
            for layer, scores in body.items()
        }
    except (OSError, Misfit, LookupError, AttributeError, OverflowError):
        return {}


def write(directory: Path, job: str, columns: Columns) -> None:
    """Keep the scores; an index that cannot be written stays as it is."""
    body = {
        layer: {name: list(map(storable, column.tolist())) for name, column in scores.items()}
        for layer, scores in columns.items()
    }
    document = {"rule": RULE, "job": job, "digest": digests.of_json([job, body]), "layers": body}
    with suppress(OSError):
        write_atomically(directory / FILE, [json.dumps(document, separators=(",", ":")).encode() + b"\n"])


def storable(number: float) -> float | None:
    """A score as it is kept and printed; None for NaN."""
    return round(number, _DIGITS) if np.isfinite(number) else None


def _column(numbers: Any, units: int) -> NDArray[np.float64]:
    if not isinstance(numbers, list) or len(numbers) != units:
        raise Misfit("a score has not one number for each unit")
    if any(number is not None and type(number) not in (int, float) for number in numbers):
        raise Misfit("a score is not a number")
    return np.array([np.nan if number is None else float(number) for number in numbers], np.float64)
