"""The exemplars that MAIA's reader takes: put the folder at EXEMPLARS/MODEL/imagenet. `_exemplars` has the format."""

from __future__ import annotations

from pathlib import Path

from patchmine.exports import Asked, Export, _exemplars

HELP = "maia: the same for MAIA, which reads EXEMPLARS/MODEL/imagenet"
FOLDER = True
K = _exemplars.K


def check(asked: Asked) -> None:
    asked.only("maia")


def write(export: Export, out: Path) -> str:
    return _exemplars.write(export, out)
