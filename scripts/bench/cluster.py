"""What `--engine ray` and `--engine claims` cost beside the local engine, in turns, and the memory of the driver.

    python -m scripts.bench.cluster PHOTOGRAPHS [--images 4000] [--repeat 3] [--memory 800,50000]

All engines get the same cores: the local one as threads of one process, claims as one process with the same threads,
Ray as a cluster of one node on this machine. Times are those of the whole call. Memory is the peak of the process that
was started, with small pictures and a small network, so that many photographs take no hours.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from patchmine.sources import open_source

NETWORK = """
from dataclasses import replace
import torch
from patchmine.models.file import PREPROCESSING

def build():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 5, 2), torch.nn.Tanh(), torch.nn.Conv2d(16, 32, 3, 2))
    return module, replace(PREPROCESSING, resize=36, crop=(32, 32))
"""


def index(listing: Path, out: Path, engine: str, *more: str) -> tuple[float, float]:
    """Run `patchmine index`: seconds, and the peak memory of its process in MiB."""
    words = ["index", str(listing), "-o", str(out), "--engine", engine, "--no-calibrate", *more]
    start = time.perf_counter()
    command = [sys.executable, "-m", "patchmine", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, errors
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def repeated(paths: list[Path], count: int, file: Path) -> Path:
    """A list of `count` photographs, which repeats the paths as often as it takes."""
    file.write_text("\n".join(map(str, islice(cycle(paths), count))))
    return file


def overhead(photographs: Path, images: int, repeat: int, place: Path) -> None:
    paths = [photographs.absolute() / entry.path for entry in open_source(str(photographs)).entries()]
    listing = repeated(paths, images, place / "photographs.txt")
    seconds: dict[str, list[float]] = {"local": [], "claims": [], "ray": []}
    for turn in range(repeat):
        for engine, found in seconds.items():
            found.append(index(listing, place / f"{engine}-{turn}.patchmine", engine)[0])
        shown = ", ".join(f"{engine} {found[-1]:.1f} s" for engine, found in seconds.items())
        print(f"{images} photographs, turn {turn + 1}, load {os.getloadavg()[0]:.1f}: {shown}", flush=True)
    for engine in ("claims", "ray"):
        ratios = [one / local for one, local in zip(seconds[engine], seconds["local"], strict=True)]
        print(f"{engine} against local: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def memory(counts: list[int], place: Path) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(200):
        paths.append(place / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(paths[-1])
    (place / "net.py").write_text(NETWORK)
    for count in counts:
        listing = repeated(paths, count, place / f"{count}.txt")
        for engine in ("local", "ray"):
            out = place / f"memory-{engine}-{count}.patchmine"
            words = ["--model", f"{place / 'net.py'}:build", "--no-table"]
            seconds, peak = index(listing, out, engine, *words)
            print(f"{engine}, {count} small pictures: peak {peak:.0f} MiB, {seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory", default="800,50000")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        if options.repeat:
            overhead(options.photographs, options.images, options.repeat, Path(folder))
        memory([int(count) for count in filter(None, options.memory.split(","))], Path(folder))


if __name__ == "__main__":
    main()
