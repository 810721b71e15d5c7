"""Computes shards one after another, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from patchmine.engines import Task
from patchmine.system.progress import Progress

HELP = "local: in this process"


def mine(task: Task, todo: Sequence[int], progress: Progress) -> Iterator[int]:
    yield from task.work(todo, progress)
