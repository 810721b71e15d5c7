"""How close `patchmine index` comes to its limit: decoding plus a bare forward pass, in the same run.

    python scripts/bench_index.py PHOTOGRAPHS [--images 400] [--rounds 3]

Each round measures, one after the other: decoding alone (all cores), the bare forward pass alone (torch, the same
batch size and memory format, up to the last indexed layer), the straightforward loop of a notebook (Pillow, batch
32, contiguous), and `patchmine.build_index` with publishing. The limit is what one gets when decoding and the
forward pass take turns and nothing else costs anything. Prints medians of images/s and the ratios.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image

from patchmine import build_index, models
from patchmine.decode import prepare
from patchmine.layers import choose
from patchmine.network import run_until
from patchmine.request import Run, Wanted
from patchmine.sources import open_source


def seconds_of(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    wanted, run = Wanted(limit=options.images), Run()
    network = models.load(wanted.model)
    last = choose(network, ())[-1]
    source = open_source(str(options.folder))
    files = [source.read(entry.path) for entry in source.entries()[: options.images]]
    module = network.module.to(memory_format=torch.channels_last)
    batch = torch.randn(wanted.batch_size, 3, 224, 224).to(memory_format=torch.channels_last)
    pool = ThreadPoolExecutor(run.workers, initializer=torch.set_num_threads, initargs=(1,))

    def decode() -> None:
        for _ in pool.map(lambda data: prepare(data, network.preprocessing), files):
            pass

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(0, len(files), wanted.batch_size):
                run_until(module, batch, last)

    def notebook() -> None:
        plain = models.load(wanted.model).module
        outputs: dict[str, torch.Tensor] = {}
        for layer in choose(network, ()):
            plain.get_submodule(layer).register_forward_hook(
                lambda _m, _i, output, layer=layer: outputs.__setitem__(layer, output.amax((2, 3)))
            )
        for start in range(0, len(files), 32):
            arrays = []
            for entry in source.entries()[start : start + 32]:
                picture = (
                    Image.open(options.folder / entry.path).convert("RGB").resize((256, 256)).crop((16, 16, 240, 240))
                )
                arrays.append(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1))
            with torch.no_grad():
                plain(torch.stack(arrays).float() / 127.5 - 1)

    def index() -> None:
        folder = Path(tempfile.mkdtemp(suffix=".patchmine"))
        try:
            shutil.rmtree(folder)
            build_index(options.folder, folder, wanted, run)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    works = {"decode": decode, "forward": forward, "notebook": notebook, "index": index}
    forward()  # the first pass builds oneDNN's kernels
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds):
        for name, work in works.items():
            times[name].append(seconds_of(work))
    rate = {name: len(files) / median(found) for name, found in times.items()}
    limit = 1 / (1 / rate["decode"] + 1 / rate["forward"])
    print(f"{len(files)} photographs, {options.rounds} rounds, {torch.get_num_threads()} threads; medians in images/s")
    for name, value in rate.items():
        print(f"{name:10} {value:8.1f}")
    print(f"{'limit':10} {limit:8.1f}  (decode and forward in turns)")
    print(f"index / limit    {rate['index'] / limit:.2f}  (the whole call, loading and publishing included)")
    print(f"index / notebook {rate['index'] / rate['notebook']:.2f}")


if __name__ == "__main__":
    main()
