"""Decides where shards are computed. Every module in this folder is a kind, with

- `HELP`: one line;
- `mine(task, todo, progress) -> Iterator[int]`: compute the shards whose numbers are in `todo`, in any order and
  anywhere, and yield the number of each once its file is on disk.

An engine knows nothing about mining. It receives a task that can be pickled, and `task.work(part, progress)` computes
a part of the shards in the calling process. The task opens photographs and network where it runs, so every process
needs the source, the network and the task's folder under the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from patchmine.plugins import Kinds
from patchmine.system.progress import Progress


class Task(Protocol):
    """A job that can be pickled, sent elsewhere and worked on in parts."""

    def work(self, todo: Sequence[int], progress: Progress) -> Iterator[int]:
        """Compute these shards in this process; yields the number of each once its file is on disk."""


class Kind(Protocol):
    """The contract of a module of this package."""

    HELP: str

    def mine(self, task: Task, todo: Sequence[int], progress: Progress) -> Iterator[int]: ...


kinds: Kinds[Kind] = Kinds("patchmine.engines", needs=("mine",))
