"""Patches as rows of a table, one home for the tables of all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patchmine.exports import Asked, Export
from patchmine.reading.answers import PATCH, PROOF, UNIT
from patchmine.reading.opened import OpenUnit
from patchmine.reading.patch import Patch
from patchmine.reading.tables import Columns, flat


def columns(asked: Asked) -> Columns:
    """The columns of a row: the unit, the pick, the patch as in `top --csv`, and the digest of its photograph."""
    proof = PROOF if asked.crop in ("tight", "auto") else {}
    return {**UNIT, "pick": str, **PATCH, **proof, "digest": str}


def rows(export: Export) -> Iterator[dict[str, Any]]:
    """A row with these columns for each patch."""
    for unit, patches in export.every():
        for pick, patch in patches:
            yield row(export, unit, pick, patch)


def row(export: Export, unit: OpenUnit, pick: str, patch: Patch) -> dict[str, Any]:
    found = {
        **unit.as_dict(),
        "pick": pick,
        **flat(patch.as_dict()),
        "digest": export.index.digest(patch.image_id),
    }
    return {name: found.get(name) for name in columns(export.asked)}


def counted(patches: int, units: int) -> str:
    return f"{patches} {'patch' if patches == 1 else 'patches'} of {units} {'unit' if units == 1 else 'units'}"
