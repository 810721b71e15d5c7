"""Peak memory and time of `patchmine index` for few and for many photographs: neither may grow with their number.

    python scripts/check_memory.py PHOTOGRAPHS [--counts 800 8000 50000] [--model M] [--executor E] [--layers PATTERN]

Each run is given a list that repeats the photographs of a folder as often as it takes. Prints the peak resident memory
of each, the time of mining per photograph, and the time of publishing; exits with 1 when the largest peak is more than
5 % above the smallest, or a photograph of the most takes over 10 % longer than one of the fewest. (The first second
of a run is slower than the rest, so that it falls.)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

from patchmine.sources import open_source
from patchmine.store.reading import read_manifest

ALLOWED_MEMORY, ALLOWED_TIME = 0.05, 0.10


def peak_mib(command: list[str]) -> float:
    """Run a command to its end; its peak resident memory in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    return usage.ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[800, 8000, 50000])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--executor", default="torch")
    parser.add_argument("--layers", action="append", default=[])
    options = parser.parse_args()
    source = options.folder.absolute()
    paths = [str(source / entry.path) for entry in open_source(str(source)).entries()]
    layers = [word for pattern in options.layers for word in ("--layers", pattern)]
    peaks, times = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for count in options.counts:
            listing, out = Path(temporary) / f"{count}.txt", Path(temporary) / f"{count}.patchmine"
            listing.write_text("\n".join(islice(cycle(paths), count)))
            words = ["index", str(listing), "-o", str(out), "--model", options.model, "--executor", options.executor]
            peaks.append(peak_mib([sys.executable, "-m", "patchmine", *words, *layers]))
            manifest = read_manifest(out)
            stages = manifest["stages"]
            times.append(stages["mining"] / manifest["images"])
            size = sum(file.stat().st_size for file in out.iterdir()) >> 20
            print(
                f"{count:8} photographs: {peaks[-1]:8.1f} MiB, {1000 * times[-1]:6.2f} ms each, "
                f"publishing {stages['publish']:5.1f} s, {size} MiB on disk",
                flush=True,
            )
    growth, slower = max(peaks) / min(peaks) - 1, times[-1] / times[0] - 1
    print(f"memory: {growth:.1%} apart; time of a photograph: {slower:+.1%} from the fewest to the most")
    return 1 if growth > ALLOWED_MEMORY or slower > ALLOWED_TIME else 0


if __name__ == "__main__":
    sys.exit(main())
