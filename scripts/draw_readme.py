"""Draw the README's picture again, from those of scikit-image's photographs that are free of rights.

python scripts/draw_readme.py
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

from PIL import Image

import patchmine
from patchmine.sheets import draw_strips
from patchmine.telling import telling_units

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
WIDTH_PX = 1200


def free_photographs(where: Path) -> Path:
    """A folder in `where` with those of scikit-image's photographs that may be shown."""
    folder = where / "scikit-image"
    folder.mkdir()
    for file in (files("skimage") / "data").iterdir():
        if Path(file.name).stem in PHOTOGRAPHS:
            shutil.copy(str(file), folder / file.name)
    return folder


def main() -> None:
    docs = Path(__file__).parent.parent / "docs"
    with tempfile.TemporaryDirectory() as temporary:
        folder = free_photographs(Path(temporary))
        patchmine.build_index(folder, folder.with_suffix(".patchmine"))
        index = patchmine.open_index(folder.with_suffix(".patchmine"))
        sheet = Path(temporary) / "sheet.png"
        draw_strips(telling_units(index, LAYERS, EACH), sheet, k=K, crop="auto")
        with Image.open(sheet) as picture:
            height = round(picture.height * WIDTH_PX / picture.width)
            small = picture.resize((WIDTH_PX, height), Image.Resampling.LANCZOS)
            small.save(docs / "demo.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main()
