"""How close `patchmine index` comes to its limit, and how far it is ahead of a notebook, in the same run.

    python scripts/bench_index.py PHOTOGRAPHS [--images 400] [--rounds 3] [--repeat 1] [--compare]

Each round measures, one after the other: reading, digest and decoding alone, with a thread on each core; for each
executor that is installed and each precision that the CPU has, the bare forward pass alone, as many at once as
mining has and in the best of the settings that calibration tries; the loop that a notebook has (Pillow, batches of
32, hooks); and `patchmine.build_index`, whole. The limit is what decoding and the forward pass come to when they
share the cores and nothing else costs anything. *Steady* is the mining alone, from the first photograph to the
last shard, with what is read, decoded, ranked and written; *whole* the call with start-up and publishing. Prints
medians and ratios. With `--compare` each round also times the peers of `peers.py` that are installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import perf_counter

if "--notebook" not in sys.argv:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, before torch is loaded

import numpy as np
import torch
from peers import PEERS
from PIL import Image

from patchmine import build_index, executors, models
from patchmine.defaults import Run, Wanted
from patchmine.errors import RequestError
from patchmine.executors import Executor, Setting
from patchmine.executors.openvino import OpenVinoExecutor
from patchmine.executors.torch import TorchExecutor
from patchmine.mining.calibration import Choice, candidates, rate, throughput
from patchmine.networks.layers import choose
from patchmine.networks.network import run_until, survey
from patchmine.photographs.decode import prepare
from patchmine.sources import Entry, open_source
from patchmine.store.reading import read_manifest
from patchmine.system import allocator, digests

TRIAL_S = 2.0


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
    start = perf_counter()
    for first in range(0, len(paths), 32):
        arrays = []
        for path in paths[first : first + 32]:
            picture = Image.open(path).convert("RGB").resize((256, 256)).crop((16, 16, 240, 240))
            arrays.append(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1))
        with torch.no_grad():
            network.module(torch.stack(arrays).float() / 127.5 - 1)
    return len(paths) / (perf_counter() - start)


def repeated(source: Path, entries: Sequence[Entry], count: int, into: Path) -> None:
    """A folder of so many photographs: links to those of `source`, as often as it takes, in their class folders."""
    for number, entry in enumerate(islice(cycle(entries), count)):
        link = into / entry.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.with_name(f"{number}-{link.name}").symlink_to((source / entry.path).resolve())


def ratios(rates: list[float], bases: list[float]) -> list[float]:
    """Round by round."""
    return [rate / base for rate, base in zip(rates, bases, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1, help="how often index meets each photograph")
    parser.add_argument("--compare", action="store_true", help="also other tools that find top images of a channel")
    parser.add_argument("--notebook", action="store_true", help="only the loop of a notebook: prints images/s")
    options = parser.parse_args()
    if options.notebook:
        print(run_notebook(options.folder, options.images))
        return
    allocator.keep_flat()
    run = Run()
    network = models.load()
    layers = choose(network, ())
    taps = survey(network.module, network.blank(), layers)
    source = open_source(str(options.folder))
    entries = source.entries()[: options.images]
    pool = ThreadPoolExecutor(run.workers, initializer=torch.set_num_threads, initargs=(1,))

    def read_and_decode(path: str) -> None:
        data = source.read(path)
        digests.of_bytes(data)
        prepare(data, network.preprocessing)

    def decode() -> float:
        start = perf_counter()
        for _ in pool.map(read_and_decode, [entry.path for entry in entries]):
            pass
        return len(entries) / (perf_counter() - start)

    def alone(script: Path, *words: str) -> float:
        """What a script prints last, in a process of its own, without the settings of this one."""
        command = [sys.executable, str(script), str(options.folder), "--images", str(len(entries)), *words]
        plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        done = subprocess.run(command, capture_output=True, text=True, env=plain)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        return float(done.stdout.split()[-1])

    peers = []
    for name, peer in PEERS.items() if options.compare else ():
        if command := peer.missing():
            print(f"not measured: {name}, which `{command}` would add")
        else:
            peers.append(name)

    sample = torch.stack([prepare(source.read(e.path), network.preprocessing).tensor for e in entries[:16]])
    variants: dict[str, tuple[Wanted, list[tuple[Choice, Executor]]]] = {}
    for name in executors.kinds():
        for precision in ("fp32", "bf16"):
            wanted = Wanted(executor=name, precision=precision, device="cpu")
            if name == "torch" and precision != "fp32":
                continue  # autocast on a CPU loses against fp32 wherever OpenVINO has bf16
            forwards = []
            try:
                executors.kind(name)
                for choice in candidates(network, wanted, "cpu", run.workers):
                    setting = Setting("cpu", precision, choice.batch_size, choice.threads)
                    executor = executors.build(name, network, taps, setting, choice.lanes(run.workers))
                    forwards.append((choice, executor))
            except RequestError as error:
                print(f"not measured: {error}")
                continue
            variants[f"{name} {precision}"] = (wanted, forwards)

    def index(wanted: Wanted) -> tuple[float, float]:
        """Photographs a second: steady, whole."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "photographs"
            count = len(entries) * options.repeat
            repeated(options.folder, entries, count, folder)
            directory = folder.with_suffix(".patchmine")
            build_index(folder, directory, wanted, run)
            stages = read_manifest(directory)["stages"]
            return count / stages["mining"], count / stages["total"]

    found: dict[str, list[float]] = {}
    chosen: dict[str, Choice] = {}

    def report(rounds: int) -> None:
        """Print the medians so far: whoever stops the run loses no more than the round that it was in."""
        ratio: dict[str, list[float]] = {}
        for name in variants:
            # The setting whose median is best: the best of each round would be the noise's.
            forward = max((v for key, v in found.items() if key.startswith(f"{name} forward")), key=median)
            limit = [1 / (1 / a + 1 / b) for a, b in zip(found["decode"], forward, strict=True)]
            ratio[f"{name} limit"] = limit
            ratio[f"{name} steady/limit"] = ratios(found[f"{name} steady"], limit)
            for other in ("notebook", *peers):
                for what in ("steady", "whole"):
                    ratio[f"{name} {what}/{other}"] = ratios(found[f"{name} {what}"], found[other])
        print(f"{len(entries)} photographs, indexed {options.repeat} times over; {rounds} of {options.rounds} rounds")
        print(f"{run.workers} threads; medians, images/s and ratios")
        for name, values in (found | ratio).items():
            shown = [f"{value:.2f}" if "/" in name else f"{value:.1f}" for value in (median(values), *values)]
            print(f"{name:52} {shown[0]:>8}   of {', '.join(shown[1:])}")
        for name, choice in chosen.items():
            print(f"{name}: {choice}")
        for name in peers:
            print(f"{name}: {PEERS[name].described()}")
        print(flush=True)

    for number in range(options.rounds):
        found.setdefault("decode", []).append(decode())
        found.setdefault("notebook", []).append(alone(Path(__file__), "--notebook"))
        for name in peers:
            found.setdefault(name, []).append(alone(Path(__file__).with_name("peers.py"), "--peer", name))
        for name, (wanted, forwards) in variants.items():
            if name not in chosen:  # as calibration does
                trials = {choice: rate(executor, choice, taps, sample, run.workers) for choice, executor in forwards}
                chosen[name] = max(trials, key=lambda choice: trials[choice])
            best = chosen[name]
            for choice, executor in forwards:
                bare_rate = throughput(bare(executor, choice.batch_size), choice, run.workers, TRIAL_S)
                found.setdefault(f"{name} forward, {choice}", []).append(bare_rate)
            steady, whole = index(replace(wanted, batch_size=best.batch_size, threads=best.threads))
            found.setdefault(f"{name} steady", []).append(steady)
            found.setdefault(f"{name} whole", []).append(whole)
        report(number + 1)


if __name__ == "__main__":
    main()
