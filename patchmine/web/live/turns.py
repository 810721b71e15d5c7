"""The threads that answer requests. What waits for one is dropped when its browser goes away or the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, TypeVar

from starlette.requests import Request

from patchmine.errors import RequestError

T = TypeVar("T")
Check = Callable[[], None]


class GoneError(RequestError):
    """Nobody waits for the answer any more."""


class EndingError(RequestError):
    """The server ends."""


class Turns:
    """A few threads, and the requests that wait for them in the order in which they came."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._leaving: set[asyncio.Future[None]] = set()
        self._running: set[object] = set()

    async def take(self, request: Request, work: Callable[[Check], T]) -> T:
        """The result of the work, in its turn. The work gets a function that raises GoneError once nobody waits.

        The body of the request, if any matters, has been read: what comes of it now is dropped.

        Raises GoneError for a browser that goes away, EndingError if the server ends first, and what the work raises.
        """
        left = Event()

        def check() -> None:
            if left.is_set():
                raise _gone()

        def begun() -> T:
            self._running.add(check)
            try:
                check()
                return work(check)
            finally:
                self._running.discard(check)

        try:
            answer = asyncio.get_running_loop().run_in_executor(self._pool, begun)
        except RuntimeError:  # the pool is closed
            raise _ending() from None
        leaving = asyncio.ensure_future(_left(request))
        self._leaving.add(leaving)
        try:
            either: list[asyncio.Future[Any]] = [answer, leaving]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if answer.done() and not answer.cancelled():
                return answer.result()
            if answer.cancelled() or leaving.cancelled():
                raise _ending()
            raise _gone()
        finally:
            left.set()
            answer.cancel()
            leaving.cancel()
            self._leaving.discard(leaving)

    def close(self) -> None:
        """Begin nothing more. What has begun ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def give_up(self) -> None:
        """Answer, with EndingError, all who still wait."""
        for leaving in self._leaving:
            leaving.cancel()

    @property
    def busy(self) -> bool:
        """Whether a thread is still at work."""
        return bool(self._running)


async def _left(request: Request) -> None:
    """Return when the browser has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _gone() -> GoneError:
    return GoneError("the browser no longer waits")


def _ending() -> EndingError:
    return EndingError("the server ends: start patchmine serve again")


__all__ = ["Check", "EndingError", "GoneError", "Turns"]
