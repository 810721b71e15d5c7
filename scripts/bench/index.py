"""How close `patchmine index` comes to its limit, and how far it is ahead of a notebook, in the same run.

    python -m scripts.bench.index PHOTOGRAPHS [--images 400] [--rounds 3] [--repeat 1] [--compare]

Each round measures, one after the other: reading, digest and decoding alone, with a thread on each core; for each
executor that is installed and each precision that the CPU has, the bare forward pass alone, as many at once as
mining has and in the best of the settings that calibration tries; the loop that a notebook has (Pillow, batches of
32, hooks); and `patchmine.build_index`, whole. The limit is the rate of decoding and the forward pass together, if
they share the cores and nothing else costs anything. *Steady* is the mining alone, from the first photograph to the
last shard: it reads, decodes, ranks and writes. *Whole* is the call with start-up and publishing. Prints medians and
ratios. With `--compare` each round also times the tools of `peers.py` that are installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

if "--notebook" not in sys.argv:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, before torch is loaded

import numpy as np
import torch
from PIL import Image

from patchmine import build_index, executors, models
from patchmine.defaults import Run, Wanted
from patchmine.errors import RequestError
from patchmine.executors import Executor, Setting
from patchmine.executors.openvino import OpenVinoExecutor
from patchmine.executors.torch import TorchExecutor
from patchmine.mining.calibration import Choice, candidates, rate, throughput
from patchmine.networks.layers import choose
from patchmine.networks.taps import run_until, survey
from patchmine.photographs.decode import prepare
from patchmine.sources import open_source
from patchmine.store.reading import read_manifest
from patchmine.system import allocator, digests
from scripts.bench.measuring import TRIAL_S, Figures, command_line, repeated, seconds_of
from scripts.bench.peers import PEERS


def bare(executor: Executor, batch_size: int) -> Callable[[], object]:
    """One forward pass of the executor's network, without reducing what it returns."""
    batch = torch.randn(batch_size, 3, 224, 224)
    if isinstance(executor, TorchExecutor):
        last, batch = executor.taps[-1].layer, batch.to(memory_format=torch.channels_last)

        def forward() -> None:
            module = executor.replicas.get()
            with torch.inference_mode():
                run_until(module, batch, last)
            executor.replicas.put(module)

        return forward
    assert isinstance(executor, OpenVinoExecutor)
    array = batch.numpy()

    def infer() -> None:
        request = executor.requests.get()
        request.infer([array], share_inputs=True, share_outputs=True)
        executor.requests.put(request)

    return infer


def run_notebook(folder: Path, images: int) -> float:
    """The loop as one writes it: Pillow, batches of 32, hooks that keep the maximum. Photographs a second."""
    network, outputs = models.load(), dict[str, torch.Tensor]()
    for layer in choose(network, ()):
        network.module.get_submodule(layer).register_forward_hook(
            lambda _m, _i, output, layer=layer: outputs.__setitem__(layer, output.amax((2, 3)))
        )
    paths = [folder / entry.path for entry in open_source(str(folder)).entries()[:images]]

    def loop() -> None:
        for first in range(0, len(paths), 32):
            arrays = []
            for path in paths[first : first + 32]:
                picture = Image.open(path).convert("RGB").resize((256, 256)).crop((16, 16, 240, 240))
                arrays.append(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1))
            with torch.no_grad():
                network.module(torch.stack(arrays).float() / 127.5 - 1)

    return len(paths) / seconds_of(loop)


def alone(module: str, folder: Path, images: int, *words: str) -> float:
    """The number that a module prints last, in a process of its own, without the settings of this one."""
    command = [sys.executable, "-m", module, str(folder), "--images", str(images), *words]
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return float(done.stdout.split()[-1])


@dataclass
class Variant:
    """An executor at a precision, in each setting that calibration tries; `best` is known after the first round."""

    name: str
    wanted: Wanted
    forwards: list[tuple[Choice, Executor]]
    best: Choice | None = None


@dataclass
class Bench:
    """The photographs, the network, and the figures so far."""

    folder: Path
    images: int
    repeat: int
    peers: Sequence[str]
    run: Run = field(default_factory=Run)
    found: Figures = field(default_factory=Figures)

    def __post_init__(self) -> None:
        self.network = models.load()
        self.taps = survey(self.network.module, self.network.blank(), choose(self.network, ()))
        self.source = open_source(str(self.folder))
        self.entries = self.source.entries()[: self.images]
        self.pool = ThreadPoolExecutor(self.run.workers, initializer=torch.set_num_threads, initargs=(1,))
        pictures = [prepare(self.source.read(e.path), self.network.preprocessing).tensor for e in self.entries[:16]]
        self.sample = torch.stack(pictures)
        self.variants = list(self._variants())

    def _variants(self) -> Iterator[Variant]:
        """Every executor at every precision that works here; prints which do not."""
        for name in executors.kinds.names:
            # Autocast on a CPU loses against fp32 wherever OpenVINO has bf16.
            for precision in ("fp32",) if name == "torch" else ("fp32", "bf16"):
                try:
                    yield self._variant(name, precision)
                except RequestError as error:
                    print(f"not measured: {error}")

    def _variant(self, name: str, precision: str) -> Variant:
        wanted = Wanted(executor=name, precision=precision, device="cpu")
        forwards = []
        executors.kind(name)
        for choice in candidates(self.network, wanted, "cpu", self.run.workers):
            setting = Setting(device="cpu", precision=precision, batch_size=choice.batch_size, threads=choice.threads)
            executor = executors.build(name, self.network, self.taps, setting, choice.lanes(self.run.workers))
            forwards.append((choice, executor))
        return Variant(f"{name} {precision}", wanted, forwards)

    def one_round(self) -> None:
        self.found.add("decode", len(self.entries) / seconds_of(self._decode))
        self.found.add("notebook", alone("scripts.bench.index", self.folder, len(self.entries), "--notebook"))
        for name in self.peers:
            self.found.add(name, alone("scripts.bench.peers", self.folder, len(self.entries), "--peer", name))
        for variant in self.variants:
            self._measure(variant)

    def _decode(self) -> None:
        def read_and_decode(path: str) -> None:
            data = self.source.read(path)
            digests.of_bytes(data)
            prepare(data, self.network.preprocessing)

        for _ in self.pool.map(read_and_decode, [entry.path for entry in self.entries]):
            pass

    def _measure(self, variant: Variant) -> None:
        workers = self.run.workers
        if variant.best is None:  # as calibration does
            trials = {
                choice: rate(executor, choice, self.taps, self.sample, workers) for choice, executor in variant.forwards
            }
            variant.best = max(trials, key=lambda choice: trials[choice])
        for choice, executor in variant.forwards:
            passes = throughput(bare(executor, choice.batch_size), choice, workers, TRIAL_S)
            self.found.add(f"{variant.name} forward, {choice}", passes)
        wanted = replace(variant.wanted, batch_size=variant.best.batch_size, threads=variant.best.threads)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "photographs"
            count = len(self.entries) * self.repeat
            repeated(self.folder, self.entries, count, folder)
            directory = folder.with_suffix(".patchmine")
            build_index(folder, directory, wanted, self.run)
            stages = read_manifest(directory)["stages"]
        self.found.add(f"{variant.name} steady", count / stages["mining"])
        self.found.add(f"{variant.name} whole", count / stages["total"])

    def report(self, done: str) -> None:
        """Print the medians so far: who stops the run loses only the round in progress."""
        shown = Figures(self.found)
        for variant in self.variants:
            # The setting whose median is best: the best of each round would be the noise's.
            settings = (rates for name, rates in self.found.items() if name.startswith(f"{variant.name} forward"))
            pairs = zip(self.found["decode"], max(settings, key=median), strict=True)
            shown[f"{variant.name} limit"] = [1 / (1 / decode + 1 / forward) for decode, forward in pairs]
            shown[f"{variant.name} steady/limit"] = shown.ratios(f"{variant.name} steady", f"{variant.name} limit")
            for other in ("notebook", *self.peers):
                for part in ("steady", "whole"):
                    shown[f"{variant.name} {part}/{other}"] = shown.ratios(f"{variant.name} {part}", other)
        print(f"{len(self.entries)} photographs, indexed {self.repeat} times over; {done} rounds")
        print(f"{self.run.workers} threads; medians, images/s and ratios")
        print(shown.table())
        for variant in self.variants:
            print(f"{variant.name}: {variant.best}")
        for name in self.peers:
            print(f"{name}: {PEERS[name].described()}")
        print(flush=True)


def installed_peers() -> list[str]:
    """The peers that can be measured here; prints what would add the others."""
    found = []
    for name, peer in PEERS.items():
        if command := peer.missing():
            print(f"not measured: {name}, which `{command}` would add")
        else:
            found.append(name)
    return found


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1, help="how often index meets each photograph")
    parser.add_argument("--compare", action="store_true", help="also other tools that find top images of a channel")
    parser.add_argument("--notebook", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.notebook:  # in the process of its own that `alone` starts
        print(run_notebook(options.folder, options.images))
        return
    allocator.keep_flat()
    bench = Bench(options.folder, options.images, options.repeat, installed_peers() if options.compare else ())
    for number in range(options.rounds):
        bench.one_round()
        bench.report(f"{number + 1} of {options.rounds}")


if __name__ == "__main__":
    main()
