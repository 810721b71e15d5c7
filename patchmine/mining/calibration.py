"""Calibration: finds the fastest executor, batch size and thread split for this network on this machine."""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from torch import Tensor, set_num_threads, stack

from patchmine import executors
from patchmine.defaults import Wanted
from patchmine.errors import PhotographError, RequestError
from patchmine.executors import Executor, Setting
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap
from patchmine.photographs.decode import prepare
from patchmine.sources import Entry, Source
from patchmine.system import digests
from patchmine.system.atomic import write_atomically
from patchmine.system.caches import user_cache

WORTH_IT = 3000
"""The number of photographs from which calibration saves more time than it takes."""

SAMPLE = 32
"""The number of photographs that calibration runs."""

_TRIAL_S = 0.5


@dataclass(frozen=True)
class Choice:
    """An executor with the settings that can be chosen freely."""

    executor: str
    batch_size: int
    threads: int

    def lanes(self, workers: int) -> int:
        """How many batches are computed at once with this number of threads."""
        return max(workers // self.threads, 1)

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''} each"
        return f"{self.executor}, batches of {self.batch_size}, {threads}"


def candidates(network: Network, wanted: Wanted, device: str, workers: int) -> list[Choice]:
    """The choices that the user's own settings leave open. Without calibration, the first is used."""
    names = [wanted.executor] if wanted.executor else executors.usable(network, device, wanted.precision)
    found = []
    for name in names:
        for size, threads in executors.kind(name).settings(device, workers):
            choice = Choice(name, wanted.batch_size or size, wanted.threads or threads)
            if choice not in found:
                found.append(choice)
    return found


def sample(network: Network, source: Source, entries: Sequence[Entry]) -> Tensor | None:
    """Up to SAMPLE readable photographs of one input size, spread over the source: uint8 (N, 3, height, width)."""
    found: list[Tensor] = []
    for place in np.linspace(0, len(entries) - 1, min(len(entries), SAMPLE)).round().astype(int):
        with suppress(PhotographError):
            pixels = prepare(source.read(entries[place].path), network.preprocessing).tensor
            if not found or pixels.shape == found[0].shape:
                found.append(pixels)
    return stack(found) if found else None


def fastest(
    network: Network,
    taps: tuple[Tap, ...],
    choices: Sequence[Choice],
    wanted: Wanted,
    device: str,
    workers: int,
    photographs: Tensor,
    note: Callable[[str], None],
) -> Choice:
    """The choice that computes most of `photographs`, uint8 (N, 3, height, width), per second; cached for next time."""
    key = _key(network, taps, choices, wanted, device, workers)
    remembered = _recall(key, choices)
    if remembered:
        note(f"calibration (cached): {remembered}")
        return remembered
    built: dict[Choice, Executor] = {}
    for choice in choices:
        setting = Setting(
            device=device, precision=wanted.precision, batch_size=choice.batch_size, threads=choice.threads
        )
        try:
            built[choice] = executors.build(choice.executor, network, taps, setting, choice.lanes(workers))
        except RequestError as error:
            if all(other.executor == choice.executor for other in choices):
                raise
            note(f"not tried: {error}")
    rates = {choice: rate(executor, choice, taps, photographs, workers) for choice, executor in built.items()}
    best = max(rates, key=lambda choice: rates[choice])
    for choice, found in sorted(rates.items(), key=lambda pair: -pair[1]):
        note(f"calibration: {choice}: {found:.0f}/s{', chosen' if choice == best else ''}")
    _remember(key, best)
    return best


def rate(executor: Executor, choice: Choice, taps: Sequence[Tap], photographs: Tensor, workers: int) -> float:
    """Photographs per second with as many batches at once as mining uses."""
    repeats = -(-choice.batch_size // len(photographs))
    batch = photographs.repeat(repeats, 1, 1, 1)[: choice.batch_size]
    ids = np.arange(choice.batch_size, dtype=np.int64)
    # Nothing beats these bounds, just as almost nothing beats the real ones once a job is under way.
    never = {
        tap.layer: (np.full(tap.layout.channels, np.inf, np.float32), np.zeros(tap.layout.channels, np.int64))
        for tap in taps
    }
    try:
        return throughput(lambda: executor.run(batch, ids, never), choice, workers, _TRIAL_S)
    except (RuntimeError, MemoryError) as error:
        if not executors.out_of_memory(error):
            raise
        return 0.0


def throughput(work: Callable[[], object], choice: Choice, workers: int, seconds: float) -> float:
    """Photographs per second when every lane repeats `work`, one batch at a time. Passes on the errors of `work`."""
    lanes = choice.lanes(workers)
    ready = threading.Barrier(lanes)

    def lane() -> float:
        set_num_threads(choice.threads)
        try:
            work()  # the first pass prepares the kernels
        except BaseException:
            ready.abort()
            raise
        ready.wait()
        start, done = perf_counter(), 0
        while perf_counter() - start < seconds:
            work()
            done += 1
        return done * choice.batch_size / (perf_counter() - start)

    with ThreadPoolExecutor(lanes) as pool:
        futures = [pool.submit(lane) for _ in range(lanes)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return sum(future.result() for future in futures)


def _key(
    network: Network, taps: Sequence[Tap], choices: Sequence[Choice], wanted: Wanted, device: str, workers: int
) -> str:
    """Everything that the result may depend on: machine, versions, network, and the choices."""
    about = [
        _processor(),
        workers,
        device,
        wanted.precision,
        network.name,
        [tap.layer for tap in taps],
        network.preprocessing.as_dict(),
        [asdict(choice) for choice in choices],
        [executors.kind(name).version() for name in sorted({choice.executor for choice in choices})],
    ]
    return digests.of_json(about)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()}"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()}"


def _file() -> Path:
    return user_cache() / "calibration.json"


def _known() -> dict[str, dict[str, object]]:
    with suppress(OSError, ValueError):
        known = json.loads(_file().read_bytes())
        if isinstance(known, dict):
            return known
    return {}


def _recall(key: str, choices: Sequence[Choice]) -> Choice | None:
    known = _known().get(key)
    return next((choice for choice in choices if asdict(choice) == known), None)


def _remember(key: str, choice: Choice) -> None:
    """Cache the choice. If the cache cannot be written, the next run only calibrates again."""
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(), [json.dumps(_known() | {key: asdict(choice)}, indent=1).encode()])
