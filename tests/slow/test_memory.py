"""Peak memory and time of `patchmine index` for few and for many photographs: neither grows with their number.

    python -m pytest tests/slow/test_memory.py -m slow -s --photographs DIR [--counts 800,8000,50000]

Each run is given a list that repeats the photographs of a folder as often as it takes, and computes with the usual
settings: calibration may choose others on a busy machine. The time is that of mining, for one photograph. The first
second of a run is slower than the rest, so the time usually falls.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pytest

from patchmine import executors
from patchmine.errors import RequestError
from patchmine.sources import open_source
from patchmine.store.reading import read_manifest

pytestmark = pytest.mark.slow

ALLOWED_MEMORY, ALLOWED_TIME = 0.05, 0.10


@dataclass
class Measured:
    """One run."""

    photographs: int
    peak_mib: float
    each_ms: float


def peak_mib(command: list[str]) -> float:
    """Run a command to its end; its peak resident memory in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, " ".join(command)
    return usage.ru_maxrss / 1024


@pytest.fixture(scope="module", params=executors.kinds.names)
def runs(request: pytest.FixtureRequest, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Measured]:
    """A run for each of `--counts`."""
    try:
        executors.kind(request.param)
    except RequestError as error:
        pytest.skip(str(error))
    paths = [str(photographs / entry.path) for entry in open_source(str(photographs)).entries()]
    folder = tmp_path_factory.mktemp("runs")
    measured = []
    for count in map(int, request.config.getoption("--counts").split(",")):
        listing, out = folder / f"{count}.txt", folder / f"{count}.patchmine"
        listing.write_text("\n".join(islice(cycle(paths), count)))
        words = ["index", str(listing), "-o", str(out), "--executor", request.param]
        words += ["--model", request.config.getoption("--model"), "--no-calibrate"]  # the same settings for all
        peak = peak_mib([sys.executable, "-m", "patchmine", *words])
        manifest = read_manifest(out)
        stages = manifest["stages"]
        measured.append(Measured(count, peak, 1000 * stages["mining"] / manifest["images"]))
        size = sum(file.stat().st_size for file in out.iterdir()) >> 20
        print(
            f"\n{request.param}: {count} photographs: {peak:.1f} MiB, {measured[-1].each_ms:.2f} ms each, publishing "
            f"{stages['publish']:.1f} s, {size} MiB on disk",
            end="",
        )
    return measured


def test_memory_does_not_grow_with_the_number_of_photographs(runs: list[Measured]) -> None:
    peaks = [run.peak_mib for run in runs]
    assert max(peaks) / min(peaks) - 1 <= ALLOWED_MEMORY, runs


def test_the_time_for_a_photograph_does_not_grow_with_their_number(runs: list[Measured]) -> None:
    assert runs[-1].each_ms / runs[0].each_ms - 1 <= ALLOWED_TIME, runs
