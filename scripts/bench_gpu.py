"""How close `patchmine index` comes to what a GPU and the cores beside it can do.

    python scripts/bench_gpu.py PHOTOGRAPHS [--images 16000] [--rounds 3] [--models M ...] [--precisions P ...]

For each network and precision, interleaved, medians of the rounds, images/s:

- *decode*: reading, digest, decoding and resizing alone, with a thread on each core;
- *forward*: the bare forward pass up to the last tapped layer, on pixels that lie on the GPU, for the best of the batch
  sizes that calibration tries;
- *run*: the executor as mining calls it, with pixels from memory, reductions, and vectors back; no decoding;
- *steady* and *whole*: `patchmine.build_index`, the mining alone and all of it.

Decoding and the forward pass have processors of their own, so the limit is the slower of the two.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from bench_index import TRIAL_S, repeated

from patchmine import build_index, executors, models
from patchmine.defaults import Run, Wanted
from patchmine.executors import Setting
from patchmine.executors._gpu import GpuExecutor, queuing
from patchmine.mining.calibration import candidates, rate
from patchmine.networks.layers import choose
from patchmine.networks.network import survey
from patchmine.photographs.decode import normalised, prepare
from patchmine.sources import open_source
from patchmine.store.reading import read_manifest
from patchmine.system import digests

DEVICE = "cuda"


def bare(executor: GpuExecutor, pixels: torch.Tensor) -> float:
    """Photographs a second of forward passes alone, uint8 (N, 3, height, width) on the device."""
    with torch.inference_mode():
        batch = normalised(pixels, executor.preprocessing).contiguous(memory_format=torch.channels_last)
        for _ in range(3):
            executor.forward(batch, {})
        torch.cuda.synchronize()
        start, passes = perf_counter(), 0
        while perf_counter() - start < TRIAL_S:
            for _ in range(4):
                executor.forward(batch, {})
            torch.cuda.synchronize()
            passes += 4
        return passes * len(batch) / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=16000, help="photographs that index meets, repeated as needed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["efficientnet_lite0", "torchvision:resnet50@random"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "fp16"], choices=executors.PRECISIONS)
    options = parser.parse_args()
    run = Run(calibrate=False)
    source = open_source(str(options.folder))
    entries = source.entries()
    found: dict[str, list[float]] = {}

    def decode(network: models.Network) -> float:
        def one(path: str) -> None:
            data = source.read(path)
            digests.of_bytes(data)
            prepare(data, network.preprocessing)

        with ThreadPoolExecutor(run.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            start = perf_counter()
            list(pool.map(one, [entry.path for entry in entries]))
            return len(entries) / (perf_counter() - start)

    for _ in range(options.rounds):
        for model in options.models:
            network = models.load(model)
            taps = survey(network.module, network.blank(), choose(network, ()))
            decoded = decode(network)
            sample = torch.stack([prepare(source.read(e.path), network.preprocessing).tensor for e in entries[:32]])
            for precision in options.precisions:
                wanted = Wanted(model=model, device=DEVICE, precision=precision)
                forward: dict[int, float] = {}
                ran: dict[int, float] = {}
                for choice in candidates(network, wanted, DEVICE, run.workers):
                    setting = Setting(DEVICE, precision, choice.batch_size, choice.threads)
                    executor = executors.build("torch", network, taps, setting, choice.lanes(run.workers))
                    assert isinstance(executor, GpuExecutor)
                    pixels = sample.repeat(-(-choice.batch_size // len(sample)), 1, 1, 1)[: choice.batch_size]
                    forward[choice.batch_size] = queuing().submit(bare, executor, pixels.to(DEVICE)).result()
                    ran[choice.batch_size] = rate(executor, choice, taps, sample, run.workers)
                best = max(ran, key=lambda size: ran[size])
                with tempfile.TemporaryDirectory() as temporary:
                    folder = Path(temporary) / "photographs"
                    repeated(options.folder, entries, options.images, folder)
                    directory = folder.with_suffix(".patchmine")
                    wanted = Wanted(model=model, device=DEVICE, precision=precision, batch_size=best)
                    build_index(folder, directory, wanted, run)
                    stages = read_manifest(directory)["stages"]
                limit = min(decoded, max(forward.values()))
                steady = options.images / stages["mining"]
                figures = {
                    "decode": decoded,
                    "forward": max(forward.values()),
                    "run": ran[best],
                    "steady": steady,
                    "whole": options.images / stages["total"],
                    "steady/limit": steady / limit,
                }
                for name, figure in figures.items():
                    found.setdefault(f"{model} {precision} {name}", []).append(figure)
                parts = {**stages["of_mining"], "rank": stages["others"]["rank"], "write": stages["others"]["write"]}
                shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
                print(f"{model} {precision}, batches of {best}; seconds: {shown}")
                print("  " + ", ".join(f"{name} {figure:.2f}" for name, figure in figures.items()), flush=True)
    print(f"{options.images} photographs ({len(entries)} different); {run.workers} threads; {options.rounds} rounds")
    print(f"{torch.cuda.get_device_name()}; medians, images/s and ratios")
    for name, values in found.items():
        places = 2 if "/" in name.split()[-1] else 0
        every = ", ".join(f"{value:.{places}f}" for value in values)
        print(f"{name:52} {median(values):>8.{places}f}   of {every}")


if __name__ == "__main__":
    main()
