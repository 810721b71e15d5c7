"""What the pictures of the documentation are made of, and how they are saved.

Only those of scikit-image's photographs appear that are free of rights.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from PIL import Image

import patchmine
from patchmine.reading.opened import Index

DOCS = Path(__file__).parents[1]

FREE = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "rocket",
)


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


def save(drawn: Path, name: str, *, width: int | None = None, quality: int) -> None:
    """Save a drawn picture as docs/NAME, at this width in pixels or as it is."""
    with Image.open(drawn) as opened:
        picture = opened.convert("RGB")
    if width is not None:
        height = round(picture.height * width / picture.width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    picture.save(DOCS / name, quality=quality, optimize=True)
