"""Decides where shards are computed. Every module in this folder is a kind, with

- `HELP`: one line;
- `mine(task, todo, progress) -> Iterator[int]`: compute the shards whose numbers are in `todo`, in any order and
  anywhere, and yield the number of each once its file is on disk.

An engine knows nothing about mining. It receives a task that can be pickled, and `task.work(part, progress)` computes
a part of the shards in the calling process. The task opens photographs and network where it runs, so every process
needs the source, the network and the task's folder under the same names.

Four more names are optional. `check(run)` refuses, before anything heavy is imported, what this kind cannot do: it
raises RequestError. `started(run)` is a context manager around the whole run, entered before torch is imported where
that can be. `ELSEWHERE` is True if other processes compute all shards, so that this one needs no executor. An engine
that lets several runs build one index at a time has `publishing(folder)`, a context manager that waits until this run
may publish from the folder of shards, and yields False if another has done so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from patchmine.defaults import Run
from patchmine.errors import RequestError
from patchmine.plugins import Kinds
from patchmine.system.progress import Progress


class Task(Protocol):
    """A job that can be pickled, sent elsewhere and worked on in parts. Its shards are files in `folder`.

    `workers` is the number of threads in one process, `device` where they compute, and `address` that of a cluster, if
    the user gave one.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def workers(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def address(self) -> str | None: ...

    def ready(self) -> Task:
        """The same task with the network loaded in this process. Raises a PatchmineError if it cannot work here."""

    def work(self, todo: Iterable[int], progress: Progress) -> Iterator[int]:
        """Compute these shards in this process; yields the number of each once its file is on disk.

        `todo` may be an iterator: a number is asked for when the photographs before it are read.
        """

    def path(self, number: int) -> Path:
        """The file of a shard."""

    def companions(self) -> Mapping[str, bytes]:
        """The files beside `folder` that `ready` reads, by path from its parent: for those who do not see them."""

    def on_disk(self) -> set[int]:
        """The numbers of the shards whose files are there."""

    @property
    def in_hand(self) -> int:
        """The most shards that `work` has asked for and not yielded yet."""

    def photographs(self, number: int) -> int:
        """The number of photographs of a shard."""


class Kind(Protocol):
    """The contract of a module of this package."""

    HELP: str

    def mine(self, task: Task, todo: Sequence[int], progress: Progress) -> Iterator[int]: ...


kinds: Kinds[Kind] = Kinds("patchmine.engines", needs=("mine",))

_started: set[str] = set()


def check(run: Run) -> None:
    """Refuse an unknown engine, and what the engine of this run refuses. Raises RequestError."""
    if run.address is not None and run.engine != "ray":
        raise RequestError(f"--address {run.address!r} is that of a Ray cluster: add --engine ray, or leave it out")
    getattr(kinds.get(run.engine, "--engine"), "check", lambda _: None)(run)


@contextmanager
def started(run: Run) -> Iterator[None]:
    """The length of a run, for an engine that has something to get ready meanwhile. Raises a PatchmineError.

    A command enters it before torch is imported; then `build_index` need not do so again.
    """
    begin = getattr(kinds.get(run.engine, "--engine"), "started", None)
    if begin is None or run.engine in _started:
        yield
        return
    _started.add(run.engine)
    try:
        with begin(run):
            yield
    finally:
        _started.remove(run.engine)


def elsewhere(name: str) -> bool:
    """Whether all shards are computed in other processes."""
    return getattr(kinds.get(name, "--engine"), "ELSEWHERE", False)


def shared(name: str) -> bool:
    """Whether several runs with this engine may build one index at a time."""
    return hasattr(kinds.get(name, "--engine"), "publishing")


def publishing(name: str, folder: Path) -> AbstractContextManager[bool]:
    """Wait until this run may publish from the folder of shards; yields False if another has done so."""
    found: AbstractContextManager[bool] = getattr(kinds.get(name, "--engine"), "publishing", _alone)(folder)
    return found


def _alone(_: Path) -> AbstractContextManager[bool]:
    return nullcontext(True)
