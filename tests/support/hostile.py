"""Ask an index that a stranger has tampered with: it answers, or is refused in one line, within bounds.

`ask` asks everything that a reading command asks for; `outcome` does so for one mutation of `tampering`. libhdf5 may
crash on a damaged file, or never return, so `isolated` runs mutations in processes that may not take more than a few
GB or seconds; such a process is `python -m tests.support.hostile INDEX FLIPS SEED NUMBER,...`.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchmine.errors import PatchmineError
from patchmine.index import Index, IndexedUnit, open_index
from patchmine.questions.fires import percentiles
from patchmine.sheets import write
from patchmine.sheets.layouts.grid import grid_page
from patchmine.store.hdf5 import dataset_digests
from patchmine.units import Unit
from tests.support.tampering import Mutation, mutations

ROOT = Path(__file__).parents[2]

MEMORY_BYTES = 3 << 30
"""The address space of a process: the libraries map 1 GB, and a small index needs next to nothing."""

CPU_S = 20
"""Processor time for one hostile index; an honest one takes a fifth of a second."""

QUESTIONS = ((5, "top", "rf"), (25, "top", "erf"), (5, "bottom", "image"), (5, "quantile:0.5", "auto"))


def ask(directory: Path) -> None:
    """Ask all that a reading command asks; leaves a sheet beside the index. Raises PatchmineError for a refusal."""
    index = open_index(directory)
    try:
        _ask(index, directory.with_name("sheet.png"))
    finally:
        index.store.close()


def _ask(index: Index, sheet: Path) -> None:
    refused: list[PatchmineError] = []

    def attempt(question: Callable[[], Any]) -> None:
        # One part of an index may be refused and another not: all are tried.
        try:
            question()
        except PatchmineError as error:
            refused.append(error)

    json.dumps(index.manifest, allow_nan=False)

    def top(unit: IndexedUnit, k: int, pick: str, crop: str) -> None:
        json.dumps([patch.as_dict() for patch in unit.top(k, pick, crop)], allow_nan=False)

    attempt(lambda: [json.dumps(unit.summary(), allow_nan=False) for unit in index.units()])
    attempt(index.store.records)
    attempt(lambda: dataset_digests(index.directory / "activations.h5"))
    layers = list(index.layers.items())
    for layer, channels in (layers[0], layers[-1]):
        attempt(partial(_vectors, index, layer))
        for channel in {0, channels - 1}:
            unit = index.unit(f"{layer}:{channel}")
            for k, pick, crop in QUESTIONS:
                attempt(partial(top, unit, k, pick, crop))
    last = index.unit(str(Unit(layer, 0)))
    attempt(partial(_similar, index, last))
    attempt(lambda: write(grid_page(last, last.top(1, crop="auto")), sheet))
    if refused:
        raise refused[0]


def _similar(index: Index, unit: IndexedUnit) -> None:
    json.dumps(index.similar(str(unit.unit), k=3).as_dict(), allow_nan=False)
    zeros = np.zeros(index.layers[unit.unit.layer], np.float32)
    percentiles(index, unit.unit.layer, zeros)


def _vectors(index: Index, layer: str) -> None:
    index.store.vectors(layer)[0][:]


def outcome(index: Path, mutation: Mutation, scratch: Path) -> str:
    """`answered`, `refused: ...`, or `BUG: ...` with the last lines of the traceback."""
    directory = scratch / "hostile.patchmine"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(index, directory, ignore=shutil.ignore_patterns("*.faiss"))
    mutation(directory)
    try:
        ask(directory)
    except PatchmineError as error:
        if "\n" in str(error) or len(str(error)) > 2000:
            return f"BUG: a message of {len(str(error))} characters: {str(error)[:200]!r}"
        return f"refused: {error}"
    except (Exception, SystemExit):  # noqa: BLE001 - whatever else there is, is what is looked for
        return "BUG: " + " | ".join(traceback.format_exc().splitlines()[-12:])
    return "answered"


class Outcome(NamedTuple):
    """What became of one mutation, and the peak memory of its process up to its end, where it reached that."""

    name: str
    found: str
    peak_mib: int | None

    @property
    def kind(self) -> str:
        """answered, refused, died, slow or BUG."""
        return self.found.partition(":")[0]


def isolated(index: Path, flips: int, seed: int, numbers: Sequence[int]) -> Iterator[Outcome]:
    """The outcome of these mutations of `mutations(index, flips, seed)`.

    As many processes as it takes: a mutation that ends one is reported as `died: ...` or `slow: ...`.
    """
    todo = list(numbers)
    while todo:
        words = [sys.executable, "-m", "tests.support.hostile", str(index), str(flips), str(seed)]
        words.append(",".join(map(str, todo)))
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        lines = [line.split("\t", 3) for line in done.stdout.splitlines()]
        began = {int(line[1]): line[2] for line in lines if line[0] == "begin"}
        ended = {int(line[1]): line[2:] for line in lines if line[0] == "end"}
        for number, (peak, found) in ended.items():
            yield Outcome(began[number], found.strip("'\""), int(peak))
        if not began:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
        for number in began.keys() - ended.keys():  # one at most: the last
            yield Outcome(began[number], _end(done), None)
        todo = [number for number in todo if number not in began]


def _end(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process ended before its mutation did."""
    if done.returncode >= 0:
        return f"BUG: {done.stderr[-500:]}"
    if -done.returncode == signal.SIGPROF:
        return f"slow: {CPU_S} s"
    return f"died: signal {-done.returncode}"


def _run(index: Path, flips: int, seed: int, numbers: Sequence[int]) -> None:
    """Print a line before and after each mutation, so that the last line tells where a crash happened."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    everything = mutations(index, flips, seed)
    with tempfile.TemporaryDirectory() as scratch:
        for number in numbers:
            name, mutation = everything[number]
            print(f"begin\t{number}\t{name}", flush=True)
            signal.setitimer(signal.ITIMER_PROF, CPU_S)  # by default the signal ends the process
            found = outcome(index, mutation, Path(scratch))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"end\t{number}\t{peak}\t{found!r}", flush=True)


if __name__ == "__main__":
    _run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [int(number) for number in sys.argv[4].split(",")])
