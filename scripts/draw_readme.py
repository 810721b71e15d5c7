"""Draw the README's pictures again, from those of scikit-image's photographs that are free of rights.

python scripts/draw_readme.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from PIL import Image

import patchmine
from patchmine.questions.highlights import telling_units
from patchmine.reading.opened import Index
from patchmine.sheets import draw_strips

PHOTOGRAPHS = (
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
LAYERS, EACH, K = ("blocks.1", "blocks.2", "blocks.3"), 2, 6
TILE_PX = 128
PROJECTED = ("blocks.2:14", "blocks.2:24", "blocks.3:54", "blocks.3:65", "blocks.4:83", "blocks.4:93")
WIDTH_PX = 1200


def free_photographs(where: Path) -> Path:
    """A folder in `where` with those of scikit-image's photographs that may be shown."""
    folder = where / "scikit-image"
    folder.mkdir()
    for file in (files("skimage") / "data").iterdir():
        if Path(file.name).stem in PHOTOGRAPHS:
            shutil.copy(str(file), folder / file.name)
    return folder


def index_of(folder: Path) -> Index:
    """An index of the folder, beside it."""
    patchmine.build_index(folder, folder.with_suffix(".patchmine"))
    return patchmine.open_index(folder.with_suffix(".patchmine"))


def main() -> None:
    docs = Path(__file__).parent.parent / "docs"
    with tempfile.TemporaryDirectory() as temporary:
        folder = free_photographs(Path(temporary))
        index = index_of(folder)
        sheet = Path(temporary) / "sheet.png"
        draw_strips(telling_units(index, LAYERS, EACH), sheet, k=K, crop="auto")
        _keep(sheet, docs / "demo.jpg")

        tiles = Path(temporary) / "scikit-image-tiles"
        _cut(folder, tiles)
        index_of(tiles)
        units = [word for unit in PROJECTED for word in ("--unit", unit)]
        words = ["sheet", "-i", str(tiles.with_suffix(".patchmine")), *units, "--layout", "zeiler", "--crop", "erf"]
        subprocess.run([sys.executable, "-m", "patchmine", *words, "-o", str(sheet)], check=True)
        _keep(sheet, docs / "zeiler.jpg")


def _cut(folder: Path, tiles: Path) -> None:
    """The photographs in squares side by side, those of one photograph in a folder: they are its class."""
    for file in sorted(folder.iterdir()):
        target = tiles / file.stem
        target.mkdir(parents=True)
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        for top in range(0, picture.height - TILE_PX + 1, TILE_PX):
            for left in range(0, picture.width - TILE_PX + 1, TILE_PX):
                picture.crop((left, top, left + TILE_PX, top + TILE_PX)).save(target / f"{top:03d}-{left:03d}.png")


def _keep(sheet: Path, target: Path) -> None:
    with Image.open(sheet) as picture:
        height = round(picture.height * WIDTH_PX / picture.width)
        small = picture.resize((WIDTH_PX, height), Image.Resampling.LANCZOS)
        small.save(target, quality=88, optimize=True)


if __name__ == "__main__":
    main()
