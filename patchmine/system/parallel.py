"""Work in threads, in order and with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(pool: Executor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """The result of `work` on each item, in order. At most `ahead` items are in work or waiting to be taken.

    `Executor.map` would take all items at once.
    """
    running: deque[Future[R]] = deque()
    for item in items:
        running.append(pool.submit(work, item))
        if len(running) == ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
