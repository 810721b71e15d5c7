"""Runs the application until a signal ends it."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_urlsafe
from typing import Any

import uvicorn

from patchmine.defaults import PORT
from patchmine.errors import RequestError
from patchmine.web.live.app import Application
from patchmine.web.live.current import Current
from patchmine.web.live.guard import is_loopback

_GRACE_S = 3  # from a signal to the end, if answers are under way
_WRITING_S = 0.3  # of them, for the last words to those whose answers are not ready


def serve(current: Current, host: str, port: int, compute: bool, answers: Callable[[str], None]) -> bool:
    """Serve the index until SIGINT or SIGTERM. `answers` gets the address once the server answers there.

    Returns whether all threads have ended. If not, one draws a picture that nobody waits for.

    Beyond loopback the address holds a token, without which nothing is answered. Raises RequestError for a host or port
    that cannot be taken.
    """
    listening = listen(host, port)
    try:
        bound = listening.getsockname()[1]
        token = None if is_loopback(host) else token_urlsafe(24)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{bound}/" + (f"?token={token}" if token else "")
        app = Application(current, host, token, compute)
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
        )
        asyncio.run(_Server(config, app, lambda: answers(address)).serve([listening]))
        return app.ended()
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises RequestError that says what to type instead."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise RequestError(f"--host {host} is not an address of this machine: leave it out, or give 0.0.0.0") from None
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it each answer takes 40 ms longer.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(1024)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise RequestError(f"port {port} is in use: give another, as in --port {_free(family, address)}") from None
        if error.errno == errno.EACCES:
            raise RequestError(
                f"port {port} is reserved for the system: give one above 1023, as in --port {PORT}"
            ) from None
        raise RequestError(f"--host {host} is not an address of this machine: leave it out, or give 0.0.0.0") from None
    return found


def _free(family: socket.AddressFamily, address: tuple[Any, ...]) -> int:
    """The next port that is free now, or 0, which takes any."""
    host, port, *rest = address
    for other in range(int(port) + 1, min(int(port) + 100, 1 << 16)):
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            try:
                tried.bind((host, other, *rest))
            except OSError:
                continue
            return other
    return 0


class _Server(uvicorn.Server):
    """A server that tells when it answers, and that a signal ends soon and without an error."""

    def __init__(self, config: uvicorn.Config, app: Application, answers: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._answers = app, answers

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._answers()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which cancels answers in the end and reports each as an error. Here they are told."""
        self._app.close()
        ending = asyncio.ensure_future(self._end())
        await super().shutdown(sockets)
        ending.cancel()

    async def _end(self) -> None:
        await asyncio.sleep(_GRACE_S - 3 * _WRITING_S)
        self._app.give_up()
        await asyncio.sleep(_WRITING_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # of one that neither sends its request nor takes its answer

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises the signal again when it has ended; here the signal is what ends the command."""
        before = {which: signal.signal(which, self.handle_exit) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)


__all__ = ["serve"]
