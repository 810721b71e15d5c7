"""The driver's side of the Ray engine: which actor computes which shard, and what happens when one fails."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from statistics import median
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from patchmine.engines import Task
from patchmine.engines._ray_connection import missing_environment
from patchmine.engines._ray_miner import Computed, Miner, versions
from patchmine.errors import PatchmineError, RequestError, StoreError
from patchmine.system.atomic import write_atomically
from patchmine.system.progress import Progress

TRIES = 3
"""A shard that has failed so many times is given up; all others are computed."""

RESTARTS = 3
"""Ray restarts the process of an actor so many times, and repeats its shards."""

LIMIT_S, LIMIT_RATIO = 600.0, 20.0
"""An actor that takes longer than both, in seconds and in medians of all shards, is stopped and replaced."""

SLOW_S, SLOW_RATIO = 30.0, 3.0
"""A shard that takes longer than both is given to an idle actor too. The bytes are the same; the first wins."""

LOOK_S, WAIT_S, SAY_S = 5.0, 1.0, 60.0
"""Seconds between two looks for nodes, of one wait for results, and between two notes that resources are missing."""

SPARE = 1
"""Shards that wait at an actor beyond those it works on, so that it need not wait for the driver."""

CALLS = 128
"""Calls of an actor that may be in progress at a time, each in a thread that waits for a shard. More wait in Ray."""

HEAVY = ("torch", "openvino")
"""Modules that an actor imports before it knows its task: they take longest."""

DEATHS = 3
"""A node on which so many actors died without computing a shard gets no more of them."""


@dataclass(eq=False)
class Worker:
    """An actor, and the `order` by which it begins. `refusal` is the reference of its first answer.

    `shards` are on their way to it, by the reference of their result, in the order of their sending.
    """

    actor: Any
    node: str
    name: str
    order: tuple[Any, ...]
    refusal: Any
    accepted: bool = False
    since: float = 0.0
    """When its oldest shard began, on time.monotonic()."""
    shards: dict[Any, int] = field(default_factory=dict)

    def awaited(self) -> list[Any]:
        """The references of the answers that it owes; none while it idles."""
        return list(self.shards) if self.accepted else [self.refusal]

    def late(self, limit_s: float) -> bool:
        """Whether its oldest shard takes longer than that."""
        return bool(self.shards) and time.monotonic() - self.since > limit_s


class Crew:
    """The actors that compute one task."""

    def __init__(self, task: Task, beacon: str, progress: Progress, early: Sequence[tuple[str, Any]] = ()) -> None:
        """`early` are actors that wait already, each with its node."""
        self._task, self._beacon, self._progress = task, beacon, progress
        self._early = list(early)
        self._sent = [ray.put(task), ray.put(task.companions())]
        self._workers: list[Worker] = []
        self._refused: dict[str, str] = {}
        self._deaths: Counter[str] = Counter()
        self._reasons: dict[int, list[str]] = {}
        self._took: deque[float] = deque(maxlen=101)
        self._looked = self._said = -SAY_S
        self._worked = time.monotonic()
        """When there was an actor for the last time."""

    def compute(self, todo: Sequence[int]) -> Iterator[int]:
        """Yield the number of each shard once it is on disk.

        Raises RequestError if no node can compute, and StoreError, after all others, that names shards which failed
        everywhere.
        """
        self._queue, self._left = deque(todo), set(todo)
        while self._left:
            self._hire()
            self._assign()
            self._hurry()
            if waiting := [ref for worker in self._workers for ref in worker.awaited()]:
                for ref in ray.wait(waiting, timeout=WAIT_S, fetch_local=False)[0]:
                    yield from self._settle(ref)
            else:  # every actor has been lost, and the next look for nodes is due soon
                time.sleep(WAIT_S)
        failed = sorted(number for number, reasons in self._reasons.items() if len(reasons) >= TRIES)
        if failed:
            shown = ", ".join(map(str, failed[:6])) + (", ..." if len(failed) > 6 else "")
            raise StoreError(
                f"{'shards' if len(failed) > 1 else 'shard'} {shown} failed {TRIES} times, at last on "
                f"{self._reasons[failed[0]][-1]}; all others are kept: mend that, then run the same command again"
            )

    def dismiss(self) -> None:
        """End all actors."""
        for worker in self._workers:
            ray.kill(worker.actor)
        for _, actor in self._early:
            ray.kill(actor)
        self._workers.clear()

    def _hire(self) -> None:
        """Start actors on nodes that have room, and drop those whose node is gone. Raises RequestError."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for worker in [worker for worker in self._workers if worker.node not in alive]:
            self._lose(worker, "its node is gone")
        there = Counter(worker.node for worker in self._workers)
        for node, about in alive.items():
            if node in self._refused:
                continue
            cores, gpus, count = share(about["Resources"], self._task.workers, self._task.device)
            if cores:
                name = f"{about['NodeManagerHostname']} ({node[:8]})"
                self._workers += [self._started(node, name, cores, gpus) for _ in range(count - there[node])]
        if not self._workers:
            if self._refused:
                raise RequestError(f"no node of the Ray cluster can compute this: {next(iter(self._refused.values()))}")
            if self._looked - self._worked > SAY_S:
                raise RequestError("the Ray cluster has no node with a CPU: start one with ray start --address")
        else:
            self._worked = self._looked
        if not any(worker.accepted for worker in self._workers) and self._looked - self._said >= SAY_S:
            if self._said > 0:
                self._progress.note("waiting for free resources on the Ray cluster")
            self._said = self._looked

    def _started(self, node: str, name: str, cores: int, gpus: int) -> Worker:
        waiting = next((pair for pair in self._early if pair[0] == node and not gpus), None)
        if waiting:
            self._early.remove(waiting)
        actor = waiting[1] if waiting else start(node, cores, gpus)
        order = (self._sent, cores, versions(), self._beacon)
        return Worker(actor, node, name, order, actor.refusal.remote(*order))

    def _assign(self) -> None:
        for depth in range(self._task.in_hand + SPARE):  # every actor its first shard before any gets a second
            for worker in self._workers:
                if worker.accepted and len(worker.shards) <= depth and self._queue:
                    self._send(worker, self._queue.popleft())

    def _send(self, worker: Worker, number: int) -> None:
        if not worker.shards:
            worker.since = time.monotonic()
        worker.shards[worker.actor.mine.remote(number, *worker.order)] = number

    def _hurry(self) -> None:
        """Stop actors that take far too long, and let idle ones repeat the shards of slow ones."""
        usual = median(self._took) if self._took else 0.0
        limit_s = max(LIMIT_S, LIMIT_RATIO * usual)
        for worker in [worker for worker in self._workers if worker.late(limit_s)]:
            self._lose(worker, f"no result after {limit_s:.0f} s")
        if self._queue or not usual:
            return
        idle = [worker for worker in self._workers if worker.accepted and not worker.shards]
        slow = [worker for worker in self._workers if worker.late(max(SLOW_S, SLOW_RATIO * usual))]
        once = {number for number, count in Counter(self._on_the_way()).items() if count == 1}
        late = [number for worker in slow for number in worker.shards.values() if number in self._left & once]
        for worker, number in zip(idle, late, strict=False):
            self._send(worker, number)

    def _on_the_way(self) -> list[int]:
        return [number for worker in self._workers for number in worker.shards.values()]

    def _settle(self, ref: Any) -> Iterator[int]:
        """Take one answer of an actor; yields the number of the shard that it made complete."""
        worker = next((worker for worker in self._workers if ref in worker.shards or ref == worker.refusal), None)
        if worker is None:  # of an actor that was lost while this answer was on its way
            return
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            if ref in worker.shards:
                self._failed(worker, worker.shards.pop(ref), _reason(error))
            else:
                self._refuse(worker, _reason(error))
        except RayError as error:
            self._lose(worker, _reason(error))
        else:
            if isinstance(answer, Computed):
                yield from self._received(worker, worker.shards.pop(ref), answer)
            elif answer is None:
                worker.accepted = True
            else:
                self._refuse(worker, answer)

    def _received(self, worker: Worker, number: int, answer: Computed) -> Iterator[int]:
        now = time.monotonic()
        self._took.append(now - worker.since)
        worker.since = now
        self._deaths.pop(worker.node, None)
        if number not in self._left:
            return
        if answer.data is not None:
            write_atomically(self._task.path(number), [answer.data], replace=False)
        self._left.discard(number)
        self._reasons.pop(number, None)
        for note in answer.notes:
            self._progress.note(note)
        self._progress.advance(self._task.photographs(number), answer.skipped)
        yield number

    def _failed(self, worker: Worker, number: int, reason: str) -> None:
        """Try the shard again, later and therefore probably elsewhere, unless it has failed too often."""
        worker.since = time.monotonic()
        if number not in self._left:
            return
        tries = self._reasons.setdefault(number, [])
        tries.append(f"{worker.name}: {reason}")
        if len(tries) < TRIES:
            self._queue.append(number)
        else:
            self._left.discard(number)
            self._progress.note(f"shard {number} failed on {tries[-1]}")

    def _lose(self, worker: Worker, reason: str) -> None:
        """Give the shards of an actor that died to others. Only the oldest can have been its death."""
        self._workers.remove(worker)
        ray.kill(worker.actor)  # it may only be out of reach, and would keep its cores
        self._progress.note(f"a process on node {worker.name} is lost: {reason}")
        oldest, *others = worker.shards.values() if worker.shards else (None,)
        on_the_way = self._on_the_way()
        self._queue.extendleft(number for number in others if number in self._left and number not in on_the_way)
        if oldest is not None and oldest not in on_the_way:
            self._failed(worker, oldest, reason)
        self._deaths[worker.node] += 1
        if self._deaths[worker.node] >= DEATHS:
            self._refused[worker.node] = f"node {worker.name}: {DEATHS} processes died one after another: {reason}"

    def _refuse(self, worker: Worker, reason: str) -> None:
        self._workers.remove(worker)
        ray.kill(worker.actor)
        if worker.node not in self._refused:
            self._progress.note(f"node {worker.name} gets no shards: {reason}")
        self._refused[worker.node] = f"node {worker.name}: {reason}"
        self._looked = -LOOK_S  # if this was the last one, say so now


def _reason(error: RayError) -> str:
    """One line of an error of Ray, in the words of the error that caused it where there is one."""
    cause = getattr(error, "cause", None) or error
    text = " ".join(str(cause).split())
    return text if isinstance(cause, PatchmineError) else f"{type(cause).__name__}: {text[:200]}"


def share(resources: Mapping[str, float], workers: int, device: str) -> tuple[int, int, int]:
    """The cores and GPUs of one actor on a node, and how many actors it gets; none if it has nothing to offer."""
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device.startswith("cuda"):
        return (min(workers, max(1, cores // gpus)), 1, gpus) if gpus and cores else (0, 0, 0)
    each = min(cores, workers)
    return each, 0, cores // each if each else 0


def start(node: str, cores: int, gpus: int) -> Any:
    """An actor on a node."""
    options = ray.remote(_Actor).options(
        num_cpus=cores,
        num_gpus=gpus,
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
        max_concurrency=CALLS,
        runtime_env={"env_vars": missing_environment()},
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )
    return options.remote()


def early(workers: int) -> list[tuple[str, Any]]:
    """Actors for a task that is not known yet, each with its node.

    None where there are GPUs: it depends on the task whether an actor needs one.
    """
    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    if any(resources.get("GPU") for resources in nodes.values()):
        return []
    shares = {node: share(resources, workers, "cpu") for node, resources in nodes.items()}
    return [(node, start(node, cores, 0)) for node, (cores, _, count) in shares.items() for _ in range(count)]


class _Actor:
    """A miner that fetches its task when it is first asked, and again when Ray has restarted its process.

    In the constructor, Ray would warn about arguments that it does not keep for restarts.
    """

    def __init__(self) -> None:
        self._miner: Miner | None = None
        self._beginning = threading.Lock()
        for name in HEAVY:
            with suppress(ImportError):
                import_module(name)

    def refusal(self, *order: Any) -> str | None:
        return self._begun(*order).refusal()

    def mine(self, number: int, *order: Any) -> Computed:
        return self._begun(*order).mine(number)

    def _begun(self, sent: Sequence[Any], workers: int, expected: dict[str, str], beacon: str) -> Miner:
        with self._beginning:
            if self._miner is None:
                task, companions = sent
                self._miner = Miner(ray.get(task), workers, expected, beacon, lambda: ray.get(companions))
            return self._miner
