"""How the cost of `patchmine index` grows with photographs, units and layers.

    python -m scripts.bench.growth PHOTOGRAPHS [--images 800 3200 12800] [--sets photographs units layers] [--rounds 1]

Runs the command in processes of its own and prints, for each size, the seconds that it computed (user and system, so
that other work on the machine counts little), the seconds that passed, its peak memory, and the exponent against the
size before: 1 is linear, 0 is constant. Below each table stand the exponents fitted to all of its sizes, and the line
fitted to the seconds computed: what a run costs at all, and what each thousand adds.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from patchmine.sources import open_source
from scripts.bench.measuring import command_line, repeated

RESNET = "torchvision:resnet50@random"
BLOCKS = {1: 3, 2: 4, 3: 6, 4: 3}
"""ResNet-50's blocks by stage."""

FEW = 200
"""Photographs of the runs that differ in units or layers."""


@dataclass(frozen=True)
class Cost:
    """Seconds computed, seconds passed, and the peak of memory in MiB, of one run."""

    computed: float
    passed: float
    peak: float


def cost(words: Sequence[str]) -> Cost:
    """Run `patchmine index` with these words."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "patchmine", "index", *words, "-o", f"{temporary}/i.patchmine"]
        start = perf_counter()
        quiet = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1, 2)]
        pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=quiet)
        _, status, used = os.wait4(pid, 0)
        passed = perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return Cost(used.ru_utime + used.ru_stime, passed, used.ru_maxrss / 1024)


def photographs(folder: Path, counts: Sequence[int], into: Path) -> dict[int, list[str]]:
    """What to type for each number of photographs."""
    found = {}
    entries = open_source(str(folder)).entries()
    for count in counts:
        repeated(folder, entries, count, into / str(count))
        found[count] = [str(into / str(count)), "--no-calibrate"]
    return found


def units(folder: str) -> dict[int, list[str]]:
    """Of ResNet-50, from the outputs of its last block to those of all blocks and the last stage's normalizations."""
    names = [[f"layer{stage}.{block}" for block in range(count)] for stage, count in reversed(BLOCKS.items())]
    sets = [names[0][-1:], names[0], names[0] + names[1], sum(names, [f"layer4.{block}.bn3" for block in range(3)])]
    sizes = [2048, 6144, 12288, 21248]
    return {size: _of_layers(folder, layers, "--model", RESNET) for size, layers in zip(sizes, sets, strict=True)}


def layers(folder: str) -> dict[int, list[str]]:
    """Of the default network: always its last, then the deepest ones before."""
    names = ["bn2.drop", *(f"blocks.{number}" for number in range(6, -1, -1))]
    return {count: _of_layers(folder, names[:count]) for count in (1, 2, 4, 8)}


def _of_layers(folder: str, names: Sequence[str], *words: str) -> list[str]:
    chosen = [word for name in names for word in ("--layers", name)]
    return [folder, "--no-calibrate", "--limit", str(FEW), *words, *chosen]


def table(name: str, costs: dict[int, list[Cost]]) -> str:
    """A line for each size: medians, and the exponent against the line before."""
    rows = [f"{name:>12}  computed, s   passed, s   peak, MiB"]
    medians = {
        size: [median(getattr(one, what) for one in of_size) for what in ("computed", "passed", "peak")]
        for size, of_size in costs.items()
    }
    sizes, figures = np.array(list(medians), float), np.array(list(medians.values()))
    steps = np.diff(np.log(figures), axis=0) / np.diff(np.log(sizes))[:, None]
    for number, (size, numbers) in enumerate(medians.items()):
        shown = [
            f"{figure:8.1f}" + (f" ^{steps[number - 1, i]:.2f}" if number else "      ")
            for i, figure in enumerate(numbers)
        ]
        rows.append(f"{size:>12} {'  '.join(shown)}")
    fitted = np.polyfit(np.log(sizes), np.log(figures), 1)[0]
    rows.append("fitted".rjust(12) + "".join(f"{exponent:12.2f}" for exponent in fitted))
    per_one, start = np.polyfit(sizes, figures[:, 0], 1)
    rows.append(f"computed: {start:.1f} s, and {per_one * 1000:.2f} s for each 1,000")
    return "\n".join(rows)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[800, 3200, 12800])
    parser.add_argument("--sets", nargs="+", choices=("photographs", "units", "layers"))
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sets = {
            "photographs": photographs(options.folder, options.images, Path(temporary)),
            "units": units(str(options.folder)),
            "layers": layers(str(options.folder)),
        }
        for name, words in sets.items():
            if name in (options.sets or sets):
                found: dict[int, list[Cost]] = {size: [] for size in words}
                for _ in range(options.rounds):
                    for size, of_size in words.items():
                        found[size].append(cost(of_size))
                print(table(name, found), flush=True)


if __name__ == "__main__":
    main()
