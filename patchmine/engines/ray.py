"""Computes shards on the machines of a Ray cluster.

Actors hold the network, one for each GPU or for so many cores. They are sent numbers of shards and read the photographs
themselves. A shard is a file that the actor renames into the index's folder; where a node does not see that folder, the
file comes back through Ray's object store. The driver keeps a few shards on their way to each actor, so its memory does
not grow with the number of photographs.

A cluster on this machine takes as long to start and to end as a hundred photographs to compute, so both happen in a
thread: it starts while the driver imports torch and loads the network, and ends while the index is published.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any

from patchmine.defaults import Run
from patchmine.engines import Task
from patchmine.engines._ray_connection import address_of, connect, disconnect
from patchmine.errors import RequestError
from patchmine.system.progress import Progress

HELP = "ray: on a Ray cluster (--address)"

ELSEWHERE = True

_early: list[tuple[str, Any]] = []
"""Actors that wait for a task, each with its node."""


def check(_: Run) -> None:
    if find_spec("ray") is None:
        raise RequestError("--engine ray needs Ray: pip install 'patchmine[ray]'")


@contextmanager
def started(run: Run) -> Iterator[None]:
    """Connect in a thread, and start actors: they import what is heavy while this process does."""
    import ray  # noqa: F401 - before the thread does: two threads that import at a time can meet half a module

    address = address_of(run.address)
    with ThreadPoolExecutor(1, "ray") as pool:
        beginning = pool.submit(connect, address, partial(_hire, run.workers))
        if address:  # it may refuse
            beginning.result()
        try:
            yield
        finally:
            _early.clear()
            pool.submit(disconnect)


def mine(task: Task, todo: Sequence[int], progress: Progress) -> Iterator[int]:
    if not todo:
        return
    connect(address_of(task.address))
    from patchmine.engines._ray_crew import Crew

    try:
        with _beacon(task.folder) as beacon:
            crew = Crew(task, beacon, progress, [_early.pop() for _ in range(len(_early))])
            try:
                yield from crew.compute(todo)
            finally:
                crew.dismiss()
    finally:
        threading.Thread(target=disconnect, name="ray").start()


def _hire(workers: int) -> None:
    from patchmine.engines._ray_crew import early

    _early.extend(early(workers))


@contextmanager
def _beacon(folder: Path) -> Iterator[str]:
    """The name of a file in the folder by which a node can tell that it sees the folder."""
    beacon = folder / f"beacon-{token_hex(8)}"
    beacon.touch()
    try:
        yield beacon.name
    finally:
        with suppress(OSError):
            beacon.unlink()
