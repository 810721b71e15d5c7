"""What the pictures of the documentation are made of, and how they are saved.

Only those of scikit-image's photographs appear that are free of rights.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import patchmine
from patchmine.index import Index
from tests.support.tutorials import FREE, keep

IMAGES = Path(__file__).parents[1] / "images"


def free_photographs(where: Path, names: Sequence[str] = FREE) -> Path:
    """A new folder in `where` with these photographs."""
    folder = where / "scikit-image"
    folder.mkdir()
    for file in (files("skimage") / "data").iterdir():
        if Path(file.name).stem in names:
            shutil.copy(str(file), folder / file.name)
    return folder


def index_of(folder: Path, layers: Sequence[str] = ()) -> Index:
    """An index of the folder, beside it."""
    patchmine.build_index(folder, folder.with_suffix(".patchmine"), layers=tuple(layers))
    return patchmine.open_index(folder.with_suffix(".patchmine"))


def save(drawn: Path, name: str, *, width: int | None = None, quality: int = 85) -> None:
    """Save a drawn picture as docs/images/NAME, at this width in pixels or as it is."""
    keep(drawn, IMAGES / name, width, quality)
