"""Draw the README's synthetic images again, beside those of scikit-image's photographs that are free of rights.

python scripts/draw_synthesis.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from draw_readme import free_photographs, index_of
from PIL import Image

from patchmine.questions.compare import compare
from patchmine.sheets import draw_compare
from patchmine.synthesis.recipe import Recipe

UNITS = (("blocks.2:21", "neuron"), ("blocks.4:50", "neuron"), ("blocks.4:50", "channel"))
WIDTH_PX = 1000


def main() -> None:
    docs = Path(__file__).parent.parent / "docs"
    with tempfile.TemporaryDirectory() as temporary:
        index = index_of(free_photographs(Path(temporary)))
        for unit, objective in UNITS:
            recipe = Recipe(objective, images=1 if objective == "channel" else 3)
            found = compare(index.unit(unit), recipe, index.loader())
            sheet = Path(temporary) / "sheet.png"
            draw_compare(found, sheet)
            with Image.open(sheet) as picture:
                height = round(picture.height * WIDTH_PX / picture.width)
                small = picture.resize((WIDTH_PX, height), Image.Resampling.LANCZOS)
                name = f"compare-{unit.replace(':', '-')}-{objective}.jpg"
                small.save(docs / name, quality=85, optimize=True)


if __name__ == "__main__":
    main()
