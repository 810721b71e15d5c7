"""How long publishing takes: from finished shards to an index, for any number of photographs and units.

    python -m scripts.bench.publish [--images 50000] [--keep 100] [--out DIR]

The shards are drawn, not mined: activations of the default network's eight layers (2,064 units) as random numbers,
with the vectors that mining would have kept, put together by the code that mines. Prints seconds by part, the seconds
that the process computed (on a machine with other work they are fewer), and what is on disk.
Measuring effective receptive fields is part of publishing too, but costs the same for any number of photographs.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from patchmine import models
from patchmine.defaults import Run
from patchmine.executors import Reduced
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import FieldsBySize
from patchmine.labels.imagenet import imagenet_wnids
from patchmine.mining.miner import LayerShard
from patchmine.mining.publish import Timing, publish
from patchmine.mining.workspace import Workspace
from patchmine.networks.layers import choose
from patchmine.networks.taps import survey
from patchmine.photographs.decode import decoder_name
from patchmine.sources import Passed
from patchmine.store import reading, writing
from patchmine.store.job import Job
from patchmine.store.shardfile import ShardFile, shard_path, write_shard
from patchmine.system.timing import Stages
from scripts.bench.measuring import command_line

SHARD = 128


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--keep", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    network = models.load()
    taps = survey(network.module, network.blank(), choose(network, ()))
    job = Job(
        source="drawn",
        photographs=options.images,
        listing="",
        model=network.name,
        weights=network.weights,
        layers=tuple(tap.layer for tap in taps),
        preprocessing=network.preprocessing,
        decoder=decoder_name(),
        executor="torch",
        runtime="",
        device="cpu",
        precision="fp32",
        batch_size=16,
        threads=1,
        shard_size=SHARD,
        keep=options.keep,
        table=True,
        field="local",
    )
    fields = receptive_fields(network.module, network.preprocessing.crop, job.layers)
    plans = [
        writing.LayerPlan(tap.layer, tap.layout.channels, tap.layout.grid, FieldsBySize((fields[tap.layer],)), True)
        for tap in taps
    ]
    with tempfile.TemporaryDirectory() as temporary:
        space = Workspace((options.out or Path(temporary)) / "drawn.patchmine")
        with space.taken():
            space.begin(job, fresh=True)
            draw(job, taps, space)
            start, computed = time.perf_counter(), time.process_time()
            with ThreadPoolExecutor(Run().workers) as pool:
                files = list(pool.map(ShardFile.open, [shard_path(space.shards, s.number) for s in job.shards]))
            opened = time.perf_counter() - start
            stages = Stages()
            timing = Timing(start, start, 0.0, Run().workers, options.images, stages)
            publish(space.directory, job, files, plans, dict, timing, Passed())
            print(f"{options.images} photographs x {sum(plan.units for plan in plans)} units, top {options.keep} kept")
            computed = time.process_time() - computed
            parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.seconds.items() if seconds)
            print(f"published in {time.perf_counter() - start:.1f} s ({computed:.1f} s computing): ", end="")
            print(f"shards verified {opened:.1f}, {parts}")
            for name in (reading.ACTIVATIONS, reading.PATCHES):
                print(f"{name}: {(space.directory / name).stat().st_size >> 20} MiB")
            space.end()


def draw(job: Job, taps: tuple, space: Workspace) -> None:
    """Shards as mining leaves them: the vectors are those of units that beat their bound."""
    rng, wnids = np.random.default_rng(0), imagenet_wnids()
    layers = [LayerShard(tap, SHARD, job.keep, True) for tap in taps]
    for shard in job.shards:
        images = np.arange(shard.start, shard.stop)
        arrays: dict[str, np.ndarray] = {}
        for number, (tap, layer) in enumerate(zip(taps, layers, strict=True)):
            cells, units = tap.layout.grid[0] * tap.layout.grid[1], tap.layout.channels
            layer.begin()
            value = rng.standard_normal((len(images), units), np.float32)
            position = rng.integers(0, cells, value.shape)
            row, unit = np.nonzero(value > layer.bound[0])
            row, place = np.divmod(np.unique(row * cells + position[row, unit]), cells)
            vectors = rng.standard_normal((len(row), units), np.float32).astype(np.float16)
            layer.add(images, Reduced(value, position, row, place, vectors))
            arrays |= layer.arrays(str(number))
        records = [
            {
                "path": f"{i:08d}.jpg",
                "class": wnids[i % len(wnids)],
                "digest": f"{i:032x}",
                "size": [500, 375],
                "reason": None,
            }
            for i in images.tolist()
        ]
        write_shard(
            shard_path(space.shards, shard.number),
            {"job": job.digest, "shard": shard.number, "images": records},
            arrays,
        )


if __name__ == "__main__":
    main()
