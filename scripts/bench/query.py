"""What a query costs, as a whole process started cold: against what Python and two libraries cost to load, in one run.

    python -m scripts.bench.query -i INDEX [--unit blocks.6:33] [--rounds 7] [--large 50000] [--huge 1281167]

INDEX is a finished index whose photographs are still there. Two more are written from it, into a temporary folder that
is deleted at the end: `large` has the same layers, table included, and `huge` the layer of the unit alone, without a
table. Their activations are drawn at random, their photographs are those of INDEX over and over, and patchmine's own
functions write them (0.8 GB of disk, half a minute; 0 leaves one out). Each round starts, one after the other,
`python -c 'import h5py, typer'`, `patchmine --help`, and the queries of each index. Prints medians in milliseconds and,
after each, the ratio to the first; then the milliseconds for one unit's column of the large table, read in a process of
its own. Files are in the system's cache throughout: what is cold is the process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.index import Index, open_index
from patchmine.ranking import Float32
from patchmine.store import reading, writing
from patchmine.store.shardfile import ShardFile
from scripts.bench.measuring import Figures, command_line, seconds_of

BASE = [sys.executable, "-c", "import h5py, typer"]
SHARD_SIZE = 8192
WINNERS = 100
COLUMN = """
import sys
from time import perf_counter
from patchmine.index import open_index
index = open_index(sys.argv[1])
unit = index.unit(sys.argv[2]).unit
for channel in (unit.channel, (unit.channel + index.layers[unit.layer] // 2) % index.layers[unit.layer]):
    start = perf_counter()
    index.store.column(unit.layer, channel)
    print(1000 * (perf_counter() - start))
"""


@dataclass(frozen=True)
class Drawn(ShardFile):
    """A shard that was never written: its arrays are drawn when they are asked for.

    Every `stride`-th photograph drives every unit hardest: the winners lie all over the index, and few vectors have to
    be stored.
    """

    layers: Sequence[writing.LayerPlan]
    stride: int
    records: Sequence[dict[str, Any]]

    @property
    def images(self) -> list[dict[str, Any]]:
        return list(self.records)

    def table(self, prefix: str, units: slice = slice(None)) -> tuple[Float32, NDArray[np.integer]]:
        return self.array(f"{prefix}/value")[:, units], self.array(f"{prefix}/position")[:, units]

    def array(self, name: str) -> NDArray[Any]:
        number, _, what = name.partition("/")
        plan = self.layers[int(number)]
        shard = int(self.about["shard"])
        images = shard * SHARD_SIZE + np.arange(len(self.records))
        places = images % (plan.grid[0] * plan.grid[1])
        winners = images % self.stride == 0
        if what == "value":
            values = np.random.default_rng([int(number), shard]).random((len(images), plan.units), np.float32)
            values[winners] += 1
            return values
        if what == "position":
            return np.repeat(places[:, None], plan.units, 1).astype(np.uint16)
        if what == "vectors":
            return np.zeros((int(winners.sum()), plan.units), np.float16)
        return places[winners] if what == "vector_position" else images[winners]


def write_like(real: Index, directory: Path, images: int, layers: Sequence[str], table: bool) -> None:
    """Write an index of that many photographs and those layers, otherwise like the real one."""
    plans = []
    for layer in layers:
        fields = real.fields(layer)
        one_size = real.preprocessing.view != "whole"
        plans.append(writing.LayerPlan(layer, real.layers[layer], fields.nominal.grid, fields, one_size))
    known = [real.store.image(image) for image in range(min(len(real), images))]
    records: list[dict[str, Any]] = [
        {"path": r.path, "digest": r.digest, "size": r.size, "class": r.class_name, "reason": None} for r in known
    ]
    shards = []
    for start in range(0, images, SHARD_SIZE):
        held = [records[image % len(records)] for image in range(start, min(start + SHARD_SIZE, images))]
        about, readable = {"shard": start // SHARD_SIZE}, np.ones(len(held), np.bool_)
        offsets, stride = np.zeros(0, np.int64), max(1, images // WINNERS)
        shards.append(Drawn(directory, about, {}, (), offsets, readable, plans, stride, held))
    directory.mkdir()
    job = {**real.manifest["job"], "table": table, "layers": list(layers), "keep": WINNERS, "photographs": images}
    digest = real.manifest["job_digest"]
    writing.write_activations(directory / reading.ACTIVATIONS, digest, shards, plans, WINNERS, table, 1)
    effective = {plan.layer: found for plan in plans if (found := plan.fields.nominal.effective) is not None}
    writing.complete(directory / reading.ACTIVATIONS, {"effective": effective}, {}, {}, real.manifest)
    listed = [entry for entry in real.manifest["layers"] if entry["layer"] in layers]
    writing.write_manifest(directory, {**real.manifest, "job": job, "images": images, "layers": listed})


def process_s(command: Sequence[str], folder: Path) -> float:
    return seconds_of(lambda: subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL))


def column_ms(index: Path, unit: str, folder: Path) -> list[float]:
    """The first column read by a process, which opens the datasets, and a second one from elsewhere in the table."""
    command = [sys.executable, "-c", COLUMN, str(index), unit]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("-i", "--index", type=Path, required=True)
    parser.add_argument("--unit", default="blocks.6:33")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--large", type=int, default=50_000)
    parser.add_argument("--huge", type=int, default=1_281_167)
    options = parser.parse_args()
    real = open_index(options.index.absolute())
    layer = real.unit(options.unit).unit.layer
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        indexes = {"real": real.directory}
        for size, images, layers, table in (
            ("large", options.large, list(real.layers), True),
            ("huge", options.huge, [layer], False),
        ):
            if images:
                indexes[size] = folder / f"{size}.patchmine"
                write_like(real, indexes[size], images, layers, table)
        patchmine = [sys.executable, "-m", "patchmine"]
        works = {"python -c 'import h5py, typer'": BASE, "patchmine --help": [*patchmine, "--help"]}
        for size, directory in indexes.items():
            top = [*patchmine, "top", "-i", str(directory), "--unit", options.unit]
            works[f"top --json, {size}"] = [*top, "--json"]
            works[f"top -o sheet.png, {size}"] = [*top, "-o", "sheet.png"]
        times = Figures()
        columns: list[list[float]] = []
        for _ in range(options.rounds):
            for name, command in works.items():
                times.add(name, process_s(command, folder))
            if "large" in indexes:
                columns.append(column_ms(indexes["large"], options.unit, folder))
        for size, directory in indexes.items():
            index = open_index(directory)
            print(f"{size:6} {len(index):9,} photographs x {sum(index.layers.values()):,} units")
        medians = times.medians()
        base = next(iter(medians.values()))
        print(f"{options.rounds} rounds; medians, cold processes")
        for name, seconds in medians.items():
            print(f"{name:32} {1000 * seconds:6.0f} ms {seconds / base:6.2f}")
        if columns:
            first, other = (median(column) for column in zip(*columns, strict=True))
            print(f"a unit's column over {options.large:,} photographs: {first:.1f} ms, another one {other:.1f} ms")


if __name__ == "__main__":
    main()
