"""How close `patchmine index` comes to what a GPU and the cores beside it can do.

    python -m scripts.bench.gpu PHOTOGRAPHS [--images 16000] [--rounds 3] [--models M ...] [--precisions P ...]

For each network and precision, interleaved, medians of the rounds, images/s:

- *decode*: reading, digest, decoding and resizing alone, with a process on each core; *in threads*: with a thread;
- *forward*: the bare forward pass up to the last tapped layer, on pixels that lie on the GPU, for the best of the batch
  sizes that calibration tries;
- *run*: the executor as mining calls it, with pixels from memory, reductions, and vectors back; no decoding;
- *steady* and *whole*: `patchmine.build_index`, the mining alone and all of it; *in threads*: without processes that
  decode.

Decoding and the forward pass have processors of their own, so the limit is the slower of the two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch

from patchmine import build_index, executors, models
from patchmine.defaults import PRECISIONS, Run, Wanted
from patchmine.executors import Setting
from patchmine.executors._gpu import GpuExecutor, queuing
from patchmine.mining import task
from patchmine.mining.calibration import candidates, rate
from patchmine.networks.layers import choose
from patchmine.networks.network import Network
from patchmine.networks.taps import survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.photographs.decoders import Decoders, loaded
from patchmine.sources import Entry, Source, open_source
from patchmine.store.reading import read_manifest
from patchmine.system.timing import Stages
from scripts.bench.measuring import TRIAL_S, Figures, command_line, repeated, seconds_of

DEVICE = "cuda"


def bare(executor: GpuExecutor, pixels: torch.Tensor) -> float:
    """Photographs a second of forward passes alone, uint8 (N, 3, height, width) on the device."""
    with torch.inference_mode():
        batch = normalized(pixels, executor.preprocessing).contiguous(memory_format=torch.channels_last)
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


@dataclass
class Bench:
    """The photographs to measure with."""

    folder: Path
    images: int
    source: Source
    entries: Sequence[Entry]
    run: Run

    def decode(self, network: Network, processes: bool) -> float:
        """Photographs a second."""
        workers, size = self.run.workers, 128
        paths = [entry.path for entry in islice(cycle(self.entries), 2 * workers * size)]
        parts = [paths[start : start + size] for start in range(0, len(paths), size)]
        decoders = Decoders(self.source, network.preprocessing, workers, size, workers) if processes else None
        if decoders:
            decoders.wait()

        def one(part: list[str]) -> None:
            with loaded(decoders, self.source, part, network.preprocessing, Stages()):
                pass

        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(one, parts))
            return len(paths) / seconds_of(lambda: list(pool.map(one, parts)))

    def passes(self, model: str, network: Network, precision: str) -> tuple[dict[int, float], dict[int, float]]:
        """Photographs a second by batch size: of the bare forward pass, and of the executor as mining calls it."""
        taps = survey(network.module, network.blank(), choose(network, ()))
        pictures = [prepare(self.source.read(e.path), network.preprocessing).tensor for e in self.entries[:32]]
        sample = torch.stack(pictures)
        workers = self.run.workers
        wanted = Wanted(model=model, device=DEVICE, precision=precision)
        forward, ran = {}, {}
        for choice in candidates(network, wanted, DEVICE, workers):
            size = choice.batch_size
            setting = Setting(device=DEVICE, precision=precision, batch_size=size, threads=choice.threads)
            executor = executors.build("torch", network, taps, setting, choice.lanes(workers))
            assert isinstance(executor, GpuExecutor)
            pixels = sample.repeat(-(-size // len(sample)), 1, 1, 1)[:size]
            forward[size] = queuing().submit(bare, executor, pixels.to(DEVICE)).result()
            ran[size] = rate(executor, choice, taps, sample, workers)
        return forward, ran

    def index(self, model: str, precision: str, batch_size: int, processes: bool = True) -> dict[str, Any]:
        """The seconds of each stage of a whole run."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "photographs"
            repeated(self.folder, self.entries, self.images, folder)
            directory = folder.with_suffix(".patchmine")
            wanted = Wanted(model=model, device=DEVICE, precision=precision, batch_size=batch_size)
            with nullcontext() if processes else patch.object(task, "suit", lambda *_: False):
                build_index(folder, directory, wanted, self.run)
            stages: dict[str, Any] = read_manifest(directory)["stages"]
        return stages

    def measure(self, model: str, network: Network, precision: str, decoded: dict[str, float]) -> dict[str, float]:
        """The figures of one network at one precision."""
        forward, ran = self.passes(model, network, precision)
        best = max(ran, key=lambda size: ran[size])
        found = {**decoded, "forward": max(forward.values()), "run": ran[best]}
        for how, processes in (("", True), (" in threads", False)):
            stages = self.index(model, precision, best, processes)
            parts = {**stages["of_mining"], **stages["others"]}
            shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
            print(f"{model} {precision}{how}, batches of {best}; seconds: {shown}")
            found[f"steady{how}"] = self.images / stages["mining"]
            found[f"whole{how}"] = self.images / stages["total"]
        return {**found, "steady/limit": found["steady"] / min(decoded["decode"], found["forward"])}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=16000, help="photographs that index meets, repeated as needed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["efficientnet_lite0", "torchvision:resnet50@random"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "fp16"], choices=PRECISIONS)
    options = parser.parse_args()
    source = open_source(str(options.folder))
    bench = Bench(options.folder, options.images, source, source.entries(), Run(calibrate=False))
    found = Figures()
    for _ in range(options.rounds):
        for model in options.models:
            network = models.load(model)
            decoded = {"decode": bench.decode(network, True), "decode in threads": bench.decode(network, False)}
            for precision in options.precisions:
                figures = bench.measure(model, network, precision, decoded)
                for name, figure in figures.items():
                    found.add(f"{model} {precision} {name}", figure)
                print("  " + ", ".join(f"{name} {figure:.2f}" for name, figure in figures.items()), flush=True)
    print(f"{options.images} photographs ({len(bench.entries)} different); {bench.run.workers} threads")
    print(f"{torch.cuda.get_device_name()}; {options.rounds} rounds; medians, images/s and ratios")
    print(found.table())


if __name__ == "__main__":
    main()
