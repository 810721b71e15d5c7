"""Draw the contact sheets of the documentation: strips of units of two deep layers, and projections.

python -m docs.figures.readme
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from docs.figures.samples import free_photographs, index_of, save
from patchmine.questions.highlights import telling_units
from patchmine.sheets import write
from patchmine.sheets.layouts.strips import strips_page

LAYERS, EACH, K = ("blocks.5", "blocks.6"), 2, 5
TILE_PX = 128
PROJECTED = ("blocks.2:14", "blocks.2:24", "blocks.3:54", "blocks.3:65", "blocks.4:83", "blocks.4:93")
WIDTH_PX, STRIPS_PX = 1200, 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = free_photographs(Path(temporary))
        index = index_of(folder)
        sheet = Path(temporary) / "sheet.png"
        shown = telling_units(index, LAYERS, EACH)
        index.tight(shown, K)
        write(strips_page([(unit, unit.top(K, crop="tight")) for unit in shown], K), sheet)
        save(sheet, "demo.jpg", width=STRIPS_PX, quality=88)

        tiles = Path(temporary) / "scikit-image-tiles"
        cut(folder, tiles)
        index_of(tiles)
        units = [word for unit in PROJECTED for word in ("--unit", unit)]
        words = ["sheet", "-i", str(tiles.with_suffix(".patchmine")), *units, "--layout", "zeiler", "--crop", "erf"]
        subprocess.run([sys.executable, "-m", "patchmine", *words, "-o", str(sheet)], check=True)
        save(sheet, "zeiler.jpg", width=WIDTH_PX, quality=88)


def cut(folder: Path, tiles: Path) -> None:
    """Cut the photographs into squares; those of one photograph lie in one folder, which is their class."""
    for file in sorted(folder.iterdir()):
        target = tiles / file.stem
        target.mkdir(parents=True)
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        for top in range(0, picture.height - TILE_PX + 1, TILE_PX):
            for left in range(0, picture.width - TILE_PX + 1, TILE_PX):
                picture.crop((left, top, left + TILE_PX, top + TILE_PX)).save(target / f"{top:03d}-{left:03d}.png")


if __name__ == "__main__":
    main()
