"""Peak memory of `patchmine index` for few and for many photographs: it must not grow with their number.

    python scripts/check_memory.py PHOTOGRAPHS [--counts 200 800] [--model M] [--executor E]

Prints the peak resident memory of each run and exits with 1 when the largest is more than 5 % above the smallest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ALLOWED = 0.05


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
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 800])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--executor", default="torch")
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as temporary:
        for count in options.counts:
            words = ["index", str(options.folder), "-o", f"{temporary}/{count}.patchmine", "--limit", str(count)]
            peaks.append(
                peak_mib(
                    [
                        sys.executable,
                        "-m",
                        "patchmine",
                        *words,
                        "--model",
                        options.model,
                        "--executor",
                        options.executor,
                    ]
                )
            )
            print(f"{count:8} photographs: {peaks[-1]:8.1f} MiB")
    growth = max(peaks) / min(peaks) - 1
    print(f"difference: {growth:.1%}")
    return 1 if growth > ALLOWED else 0


if __name__ == "__main__":
    sys.exit(main())
