"""How close `patchmine index` comes to its limit, and how far it is ahead of a notebook, in the same run.

    python scripts/bench_index.py PHOTOGRAPHS [--images 400] [--rounds 3]

Each round measures, one after the other: decoding alone, with a thread on each core; for each executor that is
installed and each precision that the CPU has, the bare forward pass alone, as many at once as mining has and in the
best of the settings that calibration tries; the loop that a notebook has (Pillow, batches of 32, hooks); and
`patchmine.build_index`, whole. The limit is what decoding and the forward pass come to when they share the cores and
nothing else costs anything. *Steady* is the mining alone, from the first photograph to the last shard, with what is
read, decoded, ranked and written; *whole* the call with start-up and publishing.
Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

# As the command sets them, before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
from patchmine import allocator

allocator.keep_flat()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from patchmine import build_index, executors, models  # noqa: E402
from patchmine.calibration import Choice, candidates  # noqa: E402
from patchmine.decode import prepare  # noqa: E402
from patchmine.errors import RequestError  # noqa: E402
from patchmine.executors import Executor, Setting  # noqa: E402
from patchmine.executors.openvino import OpenVinoExecutor  # noqa: E402
from patchmine.executors.torch import TorchExecutor  # noqa: E402
from patchmine.layers import choose  # noqa: E402
from patchmine.network import run_until, survey  # noqa: E402
from patchmine.request import Run, Wanted  # noqa: E402
from patchmine.sources import open_source  # noqa: E402
from patchmine.store import read_manifest  # noqa: E402

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


def rate_of(forward: Callable[[], object], choice: Choice, workers: int) -> float:
    """Photographs a second, with as many batches at once as there are lanes."""
    lanes = max(workers // choice.threads, 1)
    done, seconds = [0] * lanes, [0.0] * lanes

    def lane(number: int) -> None:
        torch.set_num_threads(choice.threads)
        forward()
        start = perf_counter()
        while perf_counter() - start < TRIAL_S:
            forward()
            done[number] += 1
        seconds[number] = perf_counter() - start

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(count * choice.batch_size / took for count, took in zip(done, seconds, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    run = Run()
    network = models.load()
    layers = choose(network, ())
    taps = survey(network.module, network.blank(), layers)
    source = open_source(str(options.folder))
    entries = source.entries()[: options.images]
    files = [source.read(entry.path) for entry in entries]
    pool = ThreadPoolExecutor(run.workers, initializer=torch.set_num_threads, initargs=(1,))

    def decode() -> float:
        start = perf_counter()
        for _ in pool.map(lambda data: prepare(data, network.preprocessing), files):
            pass
        return len(files) / (perf_counter() - start)

    def notebook() -> float:
        """As one writes it: Pillow, batches of 32, hooks that keep the maximum."""
        plain = models.load().module
        outputs: dict[str, torch.Tensor] = {}
        for layer in layers:
            plain.get_submodule(layer).register_forward_hook(
                lambda _m, _i, output, layer=layer: outputs.__setitem__(layer, output.amax((2, 3)))
            )
        torch.set_num_threads(run.workers)
        start = perf_counter()
        for first in range(0, len(entries), 32):
            arrays = []
            for entry in entries[first : first + 32]:
                picture = Image.open(options.folder / entry.path).convert("RGB").resize((256, 256))
                arrays.append(torch.from_numpy(np.asarray(picture.crop((16, 16, 240, 240))).copy()).permute(2, 0, 1))
            with torch.no_grad():
                plain(torch.stack(arrays).float() / 127.5 - 1)
        return len(entries) / (perf_counter() - start)

    variants: dict[str, tuple[Wanted, list[tuple[Choice, Callable[[], object]]]]] = {}
    for name in executors.kinds():
        for precision in ("fp32", "bf16"):
            wanted = Wanted(executor=name, precision=precision, limit=len(files))
            if name == "torch" and precision != "fp32":
                continue  # autocast on a CPU loses against fp32 wherever OpenVINO has bf16
            forwards = []
            try:
                executors.kind(name)
                for choice in candidates(network, wanted, "cpu", run.workers):
                    setting = Setting("cpu", precision, choice.batch_size, choice.threads)
                    lanes = max(run.workers // choice.threads, 1)
                    executor = executors.build(name, network, taps, setting, lanes)
                    forwards.append((choice, bare(executor, choice.batch_size)))
            except RequestError as error:
                print(f"not measured: {error}")
                continue
            variants[f"{name} {precision}"] = (wanted, forwards)

    def index(wanted: Wanted) -> tuple[float, float]:
        """Photographs a second: steady, whole."""
        folder = Path(tempfile.mkdtemp()) / "bench.patchmine"
        try:
            build_index(options.folder, folder, wanted, run)
            stages = read_manifest(folder)["stages"]
            return len(files) / stages["mining"], len(files) / stages["total"]
        finally:
            shutil.rmtree(folder.parent, ignore_errors=True)

    found: dict[str, list[float]] = {}
    chosen: dict[str, Choice] = {}
    for _ in range(options.rounds):
        found.setdefault("decode", []).append(decode())
        found.setdefault("notebook", []).append(notebook())
        for name, (wanted, forwards) in variants.items():
            rates = {choice: rate_of(forward, choice, run.workers) for choice, forward in forwards}
            best = chosen[name] = max(rates, key=lambda choice: rates[choice])
            steady, whole = index(
                Wanted(
                    executor=best.executor,
                    precision=wanted.precision,
                    limit=wanted.limit,
                    batch_size=best.batch_size,
                    threads=best.threads,
                )
            )
            limit = 1 / (1 / found["decode"][-1] + 1 / rates[best])
            for what, value in (("forward", rates[best]), ("limit", limit), ("steady", steady), ("whole", whole)):
                found.setdefault(f"{name} {what}", []).append(value)
            found.setdefault(f"{name} steady/limit", []).append(steady / limit)
            found.setdefault(f"{name} steady/notebook", []).append(steady / found["notebook"][-1])
            found.setdefault(f"{name} whole/notebook", []).append(whole / found["notebook"][-1])
    print(f"{len(files)} photographs, {options.rounds} rounds, {run.workers} threads; medians, images/s and ratios")
    for name, values in found.items():
        shown = [f"{value:.2f}" if "/" in name else f"{value:.1f}" for value in (median(values), *values)]
        print(f"{name:32} {shown[0]:>8}   of {', '.join(shown[1:])}")
    for name, choice in chosen.items():
        print(f"{name}: {choice}")


if __name__ == "__main__":
    main()
