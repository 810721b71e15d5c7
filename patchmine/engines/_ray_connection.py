"""The connection of this process to a Ray cluster. Ray allows one at a time."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patchmine.errors import RequestError
from patchmine.system import allocator

CONNECT_S = 5.0

_OF_A_CLUSTER_HERE = {
    "RAY_worker_niceness": "0",  # by default workers wait for every other process of the machine
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",  # a process for each core, before it is known how many actors there are
    **allocator.ENVIRONMENT,
}
_lock = threading.RLock()
_ours = False
"""Whether this module made the connection, and not the caller's own program."""

_started_here = False
"""Whether it is a connection to a cluster that this module started."""


def address_of(given: str | None) -> str | None:
    """The address of the cluster: as given, else that of RAY_ADDRESS; None for a new one on this machine."""
    return given or os.environ.get("RAY_ADDRESS")


def connect(address: str | None, then: Callable[[], None] = lambda: None) -> None:
    """Connect, unless there is a connection, and only then do what comes `then`. Whoever else connects waits for both.

    Raises RequestError.
    """
    global _ours, _started_here
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports to nobody
    import ray

    with _lock:
        if ray.is_initialized():
            return
        _refuse_silent(address)
        local: dict[str, Any] = {} if address else {"include_dashboard": False}
        try:
            with _own_signals(), _inherited({} if address else _OF_A_CLUSTER_HERE):
                ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **local)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RequestError(_no_cluster(address, reason) + (_token() if address else "")) from None
        _ours, _started_here = True, not address
        then()


def disconnect() -> None:
    """End the connection, if `connect` made it, and the cluster with it if it was a new one. It takes a second."""
    global _ours, _started_here
    import ray

    with _lock:
        if _ours:
            ray.shutdown()
        _ours = _started_here = False


def missing_environment() -> dict[str, str]:
    """What the environment of an actor lacks: of a cluster that started here it is inherited, which is faster."""
    return {} if _started_here else allocator.ENVIRONMENT


@contextmanager
def _inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Add environment variables that are not set, for the processes that start during the block."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


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


def _token() -> str:
    """What else to try: `ray start` asks for a token once there is one, but a driver with an address sends none."""
    if "RAY_AUTH_MODE" in os.environ or not Path.home().joinpath(".ray/auth_token").is_file():
        return ""
    return "; if it asks for a token, set RAY_AUTH_MODE=token"


def _no_cluster(address: str | None, reason: str) -> str:
    if address is None:
        return f"Ray cannot start on this machine: {reason}"
    return (
        f"no Ray cluster answers at --address {address!r} ({reason}): give HOST:PORT of its head node, as ray start "
        "--head prints it, or leave out --address to use this machine"
    )
