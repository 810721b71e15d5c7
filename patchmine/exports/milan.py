"""The exemplars that MILAN's reader takes, a folder for each layer: `_exemplars` has the format."""

from __future__ import annotations

from pathlib import Path

from patchmine.exports import Asked, Export, _exemplars

HELP = "milan: exemplars with masks for MILAN, a folder for each layer"
FOLDER = True
K = _exemplars.K


def check(asked: Asked) -> None:
    asked.only("milan")


def write(export: Export, out: Path) -> str:
    return _exemplars.write(export, out)
