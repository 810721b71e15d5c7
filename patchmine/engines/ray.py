"""Computes shards on the machines of a Ray cluster.

Actors hold the network, one for each GPU or for so many cores. They are sent numbers of shards and read the photographs
themselves. A shard is a file that the actor renames into the index's folder; where a node does not see that folder, the
file comes back through Ray's object store. The driver keeps a few shards on their way to each actor, so its memory does
not grow with the number of photographs.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any

from patchmine.defaults import Run
from patchmine.engines import Task
from patchmine.errors import RequestError
from patchmine.system.progress import Progress

HELP = "ray: on a Ray cluster (--address)"

CONNECT_S = 5.0


def check(_: Run) -> None:
    if find_spec("ray") is None:
        raise RequestError("--engine ray needs Ray: pip install 'patchmine[ray]'")


@contextmanager
def started(run: Run) -> Iterator[None]:
    """Connect, and let every node import torch while the driver loads the network: actors start in these processes."""
    with _connected(run.address):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        importing = ray.remote(import_module)
        for node in ray.nodes():
            cores = min(int(node["Resources"].get("CPU", 0)), run.workers)
            if node["Alive"] and cores:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                for _ in range(int(node["Resources"]["CPU"]) // cores):
                    importing.options(num_cpus=cores, max_retries=0, scheduling_strategy=there).remote("torch")
        yield


def mine(task: Task, todo: Sequence[int], progress: Progress) -> Iterator[int]:
    from patchmine.engines._ray_crew import Crew

    if not todo:
        return
    with _connected(task.address), _beacon(task.folder) as beacon:
        crew = Crew(task, beacon, progress)
        try:
            yield from crew.compute(todo)
        finally:
            crew.dismiss()


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster at the address, else to that of RAY_ADDRESS, else to a new one on this machine.

    A connection that the caller's own program has made is used and stays. Raises RequestError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports to nobody
    # Of a cluster that starts here. By default workers wait for every other process of the machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    _refuse_silent(address)
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        with _own_signals():
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **local)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        raise RequestError(_no_cluster(address, str(error).strip().splitlines()[0])) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep our handler of SIGTERM: Ray sets one that exits without a word."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _refuse_silent(address: str | None) -> None:
    """Refuse an address where nothing answers: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise RequestError(_no_cluster(address, getattr(error, "strerror", None) or str(error))) from None


def _no_cluster(address: str | None, reason: str) -> str:
    if address is None:
        return f"Ray cannot start on this machine: {reason}"
    return (
        f"no Ray cluster answers at --address {address!r} ({reason}): give HOST:PORT of its head node, as ray start "
        "--head prints it, or leave out --address to use this machine"
    )


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
