"""Kill `patchmine index` at random moments, go on, and compare with an uninterrupted run, byte by byte.

    python scripts/check_faults.py PHOTOGRAPHS [--kills 10] [--seed 0] [--shard-size 64] [--model M]

The uninterrupted run is timed first. Each of the kills (SIGKILL) then comes at a random moment of that time, counted
from the start of the command that goes on with the index; when an index is finished before all kills are spent, it
is compared and a new one begun. Exits with 1 when any dataset differs or a resumed run prints a traceback.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np


def command(options: argparse.Namespace, out: Path) -> list[str]:
    words = ["index", str(options.folder), "-o", str(out), "--model", options.model]
    return [sys.executable, "-m", "patchmine", *words, "--shard-size", str(options.shard_size), "--json"]


def differing(a: Path, b: Path) -> list[str]:
    """Names of the datasets of two activations.h5 that are not equal to the byte."""
    with h5py.File(a / "activations.h5") as left, h5py.File(b / "activations.h5") as right:
        names: set[str] = set()
        for file in (left, right):
            file.visititems(lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None)
        return sorted(
            name
            for name in names
            if name not in left or name not in right or not np.array_equal(_bytes(left[name]), _bytes(right[name]))
        )


def _bytes(dataset: h5py.Dataset) -> np.ndarray:
    array = np.asarray(dataset[()])
    return array if array.dtype == object else np.frombuffer(array.tobytes(), np.uint8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-size", type=int, default=64)
    parser.add_argument("--model", default="efficientnet_lite0")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    failures = kills = compared = 0
    with tempfile.TemporaryDirectory() as temporary:
        whole, out = Path(temporary) / "whole.patchmine", Path(temporary) / "killed.patchmine"
        start = time.monotonic()
        subprocess.run(command(options, whole), check=True, capture_output=True)
        lasts = time.monotonic() - start
        print(f"uninterrupted: {lasts:.1f} s")
        while kills < options.kills or out.exists():
            with subprocess.Popen(command(options, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                moment = rng.uniform(0, lasts) if kills < options.kills else None
                try:
                    _, errors = process.communicate(timeout=moment)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    _, errors = process.communicate()
                    kills += 1
                    left = sorted(p.name for p in out.glob("shards/*.shard"))
                    print(f"kill {kills:3} after {moment:5.1f} s: {len(left)} shards, manifest {_there(out)}")
                    continue
            if process.returncode or b"Traceback" in errors:
                failures += 1
                print(f"a resumed run failed with {process.returncode}: {errors.decode()[-400:]}")
                break
            different = differing(whole, out)
            failures += bool(different)
            compared += 1
            print(f"finished after {kills} kills; datasets that differ: {different or 'none'}")
            shutil.rmtree(out)
    print(f"{kills} kills, {compared} indexes compared, {failures} failures")
    return 1 if failures else 0


def _there(out: Path) -> str:
    return "there" if (out / "manifest.json").exists() else "not there"


if __name__ == "__main__":
    sys.exit(main())
