"""How small tight crops are, what is left without them, and what they cost, for shares of the activation.

    python -m scripts.bench.tight -i INDEX [--layers L ...] [--units 50] [-k 9] [--shares 0.5 0.65 0.8 0.95]

INDEX is a finished index whose photographs are still there; nothing is kept in it. For units drawn at random from each
layer and their best k patches: the medians of the area (a share of the input) and of the share of the activation left
without the crop, the mean number of evaluations, and seconds a patch. Prints a row of a Markdown table for each layer
and share.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from patchmine.index import Index, open_index
from patchmine.kept.tight_crops import FOLDER
from scripts.bench.measuring import command_line
from tests.support.drawn_units import drawn_of


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("-i", "--index", type=Path, required=True)
    parser.add_argument("--layers", nargs="+", default=["blocks.5", "blocks.6", "bn2.drop"])
    parser.add_argument("--units", type=int, default=50)
    parser.add_argument("-k", type=int, default=9)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.65, 0.8, 0.95])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.index.absolute().parent) as folder:
        # Links take no room, and the crops go into folders of their own.
        copy = Path(folder) / "index"
        shutil.copytree(options.index, copy, copy_function=os.link, ignore=shutil.ignore_patterns(FOLDER))
        index = open_index(copy)
        print("| layer | share | area | left without it | evaluations | seconds a patch | patches |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        drawn = drawn_of(index, options.units, options.seed, options.layers)
        for layer, channels in drawn.items():
            for share in options.shares:
                print(_row(index, layer, channels, options.k, share), flush=True)


def _row(index: Index, layer: str, channels: list[int], k: int, share: float) -> str:
    start = perf_counter()
    units = [f"{layer}:{channel}" for channel in channels]
    crops = [crop for _, found in index.tighten(units, k=k, share=share) for crop in found.values() if crop]
    seconds = (perf_counter() - start) / len(crops)
    height, width = index.preprocessing.crop
    area = median(crop.box.area / (height * width) for crop in crops)
    without = median(crop.without for crop in crops)
    asked = sum(crop.asked for crop in crops) / len(crops)
    return f"| `{layer}` | {share} | {area:.3f} | {without:.2f} | {asked:.0f} | {seconds:.2f} | {len(crops)} |"


if __name__ == "__main__":
    main()
