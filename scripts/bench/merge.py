"""How time and memory of publishing grow with the number of shards: synthetic shards, all read, ranked and written.

    python -m scripts.bench.merge [--shards 1250,2500,5000,10000] [--units 64] [--photographs 128] [--no-table]

Each count is published in a process of its own, which says its peak memory, and its CPU seconds, which depend less on
what else the machine does. The shards are one layer of random values, with vectors for those that led when their shard
was mined, as the miner keeps them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from patchmine.fields.field import FieldsBySize
from patchmine.ranking import Leaders
from patchmine.store.shardfile import ShardFile, shard_path, write_shard
from patchmine.store.writing import LayerPlan, write_activations

KEEP, GRID = 100, (7, 7)


def make(folder: Path, shards: int, units: int, photographs: int) -> None:
    """Write the shards."""
    rng = np.random.default_rng(0)
    leaders = Leaders.empty(units, KEEP)
    for number in range(shards):
        images = np.arange(photographs) + number * photographs
        values = rng.standard_normal((photographs, units), np.float32)
        positions = rng.integers(0, GRID[0] * GRID[1], values.shape).astype(np.uint16)
        leaders = leaders.with_batch(values, images)
        row, unit = np.nonzero(leaders.among(images))
        places = np.unique(np.stack([images[row], positions[row, unit]]), axis=1)
        records = [
            {"path": f"class{i % 1000:04d}/{i:09d}.jpg", "class": f"class{i % 1000:04d}", "digest": f"{i:032x}"}
            | {"size": [500, 375], "reason": None}
            for i in images.tolist()
        ]
        arrays = {
            "0/value": values,
            "0/position": positions,
            "0/vector_image": places[0].astype(np.int64),
            "0/vector_position": places[1].astype(np.uint16),
            "0/vectors": rng.standard_normal((places.shape[1], units), np.float32).astype(np.float16),
        }
        write_shard(shard_path(folder, number), {"job": "synthetic", "shard": number, "images": records}, arrays)


def publish(folder: Path, shards: int, units: int, table: bool) -> None:
    """Publish the first shards of the folder; prints seconds, and peak memory beyond that of the imports, in MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    files = [ShardFile.open(shard_path(folder, number)) for number in range(shards)]
    checked = time.perf_counter()
    plan = LayerPlan("layer", units, GRID, FieldsBySize(()), True)
    target = folder / f"activations-{shards}.h5"
    counts = write_activations(target, "synthetic", files, [plan], KEEP, table, 2)
    done, cpu = time.perf_counter(), time.process_time() - cpu
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{shards} shards, {counts['images']} photographs: checked in {checked - start:.1f} s, published in "
        f"{done - checked:.1f} s, {1000 * (done - start) / shards:.2f} ms a shard; {cpu:.1f} CPU s, "
        f"{1000 * cpu / shards:.2f} ms a shard; {peak:.0f} MiB, "
        f"{peak * (1 << 20) / counts['images']:.0f} bytes a photograph",
        flush=True,
    )
    target.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", default="1250,2500,5000,10000")
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--photographs", type=int, default=128)
    parser.add_argument("--no-table", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of a process that publishes
    options = parser.parse_args()
    if options.folder:
        publish(options.folder, int(options.shards), options.units, not options.no_table)
        return
    counts = [int(count) for count in options.shards.split(",")]
    with TemporaryDirectory() as folder:
        make(Path(folder), max(counts), options.units, options.photographs)
        for count in counts:
            words = ["--shards", str(count), "--units", str(options.units), "--folder", folder]
            more = ["--no-table"] if options.no_table else []
            subprocess.run([sys.executable, "-m", "scripts.bench.merge", *words, *more], check=True)


if __name__ == "__main__":
    main()
