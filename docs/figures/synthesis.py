"""Draw the synthetic images of the documentation, beside photographs.

python -m docs.figures.synthesis
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from docs.figures.samples import free_photographs, index_of, save
from patchmine.questions.compare import compare
from patchmine.sheets import write
from patchmine.sheets.layouts.compare import compare_page
from patchmine.synthesis.recipe import Recipe

UNITS = (("blocks.2:21", "neuron"), ("blocks.4:50", "neuron"), ("blocks.4:50", "channel"))
WIDTH_PX = 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        index = index_of(free_photographs(Path(temporary)))
        sheet = Path(temporary) / "sheet.png"
        for unit, objective in UNITS:
            recipe = Recipe(objective, images=1 if objective == "channel" else 3)
            write(compare_page(compare(index.unit(unit), recipe)), sheet)
            save(sheet, f"compare-{unit.replace(':', '-')}-{objective}.jpg", width=WIDTH_PX, quality=85)


if __name__ == "__main__":
    main()
