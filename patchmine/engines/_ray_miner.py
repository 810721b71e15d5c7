"""A process of a Ray cluster that computes shards. It knows nothing of Ray."""

from __future__ import annotations

import importlib.metadata
import platform
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from patchmine.engines import Task
from patchmine.errors import PatchmineError
from patchmine.system.progress import Silent, Skipped

PACKAGES = ("patchmine", "torch", "torchvision", "numpy", "Pillow", "openvino")
"""Packages whose versions may change a byte of a shard, or the way to compute it."""


@dataclass(frozen=True)
class Computed:
    """A shard that is on disk, or whose file comes along as `data` where the cluster has no common path."""

    number: int
    skipped: list[Skipped]
    notes: list[str]
    data: bytes | None


class Collected(Silent):
    """What the work has reported since it was last asked."""

    def __init__(self) -> None:
        self.skipped: list[Skipped] = []
        self.notes: list[str] = []

    def advance(self, _: int, skipped: Any = ()) -> None:
        self.skipped += skipped

    def note(self, text: str) -> None:
        self.notes.append(f"{platform.node()}: {text}")

    def taken(self) -> tuple[list[Skipped], list[str]]:
        found = self.skipped, self.notes
        self.skipped, self.notes = [], []
        return found


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that matter, as far as they are installed."""
    found = {"Python": platform.python_version().rpartition(".")[0]}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Miner:
    """Computes the shards of one task with one network. Several calls of `mine` may wait at a time.

    They pass through one pipeline, so that no core is idle while a shard is written or its successor is on the way.
    """

    def __init__(
        self,
        task: Task,
        workers: int,
        expected: Mapping[str, str],
        beacon: str,
        companions: Callable[[], Mapping[str, bytes]] = dict,
    ) -> None:
        """`beacon` is a file that the driver has laid into the task's folder, to tell whether this node sees it.

        If it does not, `companions` fetches the files beside the folder.
        """
        self._refusal: str | None = None
        self._collected = Collected()
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._results: dict[int, Future[Computed]] = {}
        self._returns = not (task.folder / beacon).exists()
        beside: Mapping[str, bytes] = {}
        if self._returns:
            self._scratch = TemporaryDirectory(prefix="patchmine-")
            beside, task = companions(), replace(task, folder=Path(self._scratch.name, "shards"))  # type: ignore[type-var]
        try:
            _refuse_versions(expected)
            with _laid_out(task.folder, beside):
                self._task = replace(task, workers=workers).ready()  # type: ignore[type-var]
        except PatchmineError as error:
            self._refusal = str(error)
            return
        threading.Thread(target=self._work, name="miner", daemon=True).start()

    def refusal(self) -> str | None:
        """Why this process cannot compute the task; None if it can."""
        return self._refusal

    def mine(self, number: int) -> Computed:
        """Compute a shard. Raises what the work raises, and a PatchmineError if this process refuses."""
        if self._refusal is not None:  # of a process that Ray has restarted, on a node that has changed
            raise PatchmineError(self._refusal)
        self._results[number] = found = Future[Computed]()
        self._waiting.put(number)
        return found.result()

    def _work(self) -> None:
        while True:
            first = self._waiting.get()
            try:
                for number in self._task.work(self._numbers(first), self._collected):
                    self._results.pop(number).set_result(self._computed(number))
            except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait for a shard must hear of it
                for number in tuple(self._results):
                    self._results.pop(number).set_exception(error)

    def _numbers(self, first: int) -> Iterator[int]:
        """Shards as long as any waits; then the work is finished, and another begun when the next one comes."""
        yield first
        while not self._waiting.empty():
            yield self._waiting.get()

    def _computed(self, number: int) -> Computed:
        skipped, notes = self._collected.taken()
        data = None
        if self._returns:
            path = self._task.path(number)
            data = path.read_bytes()
            path.unlink()
        return Computed(number, skipped, notes, data)


@contextmanager
def _laid_out(folder: Path, companions: Mapping[str, bytes]) -> Iterator[None]:
    """The folder of shards, with these files beside it for a while: Ray kills a process with no time to tidy up."""
    folder.mkdir(exist_ok=True)
    files = [folder.parent / name for name in companions]
    for file, content in zip(files, companions.values(), strict=True):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    try:
        yield
    finally:
        for file in files:
            file.unlink()


def _refuse_versions(expected: Mapping[str, str]) -> None:
    here = versions()
    for name, version in expected.items():
        if here.get(name) != version:
            raise PatchmineError(f"it has {name} {here.get(name, 'not at all')} instead of {version}")
