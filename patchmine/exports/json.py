"""All patches as one JSON document, unit by unit, each patch as in `top --json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from patchmine.exports import Asked, Export
from patchmine.exports._rows import counted
from patchmine.reading.patch import Patch

HELP = "json: one document with the units and their patches"
FOLDER = False
K = 25


def check(asked: Asked) -> None: ...


def write(export: Export, out: Path) -> str:
    count = 0
    head = {"index": export.index.directory.name, "crop": export.asked.crop, "labels": export.index.labels.about}
    with out.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, allow_nan=False)[:-1] + ', "units": [')
        for number, (unit, patches) in enumerate(export.every()):
            document = {**unit.as_dict(), "patches": [_described(export, pick, patch) for pick, patch in patches]}
            file.write((",\n" if number else "\n") + json.dumps(document, allow_nan=False))
            count += len(patches)
        file.write("\n]}\n")
    return counted(count, len(export.units))


def _described(export: Export, pick: str, patch: Patch) -> dict[str, Any]:
    return {"pick": pick, **patch.as_dict(), "digest": export.index.digest(patch.image_id)}
