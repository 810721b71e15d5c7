"""A server on this machine that stands in for S3, and a relay before it that cuts connections."""

from __future__ import annotations

import importlib.util
import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


class Relay:
    """Passes connections on to a port, and cuts as many as it is told to, in the middle of a request or an answer."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port, self.target, self.rng = self.server.getsockname()[1], port, rng
        self.to_cut = self.cut = self.passed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            with suppress(OSError):
                here = self.server.accept()[0]
                threading.Thread(target=self._pass, args=(here,), daemon=True).start()

    def _pass(self, here: socket.socket) -> None:
        with here, suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as there:
            left = self.rng.randrange(2_000, 200_000)
            while True:
                for one in select.select([here, there], [], [])[0]:
                    data = one.recv(1 << 14)
                    if not data:
                        return
                    (there if one is here else here).sendall(data)
                    self.passed += len(data)
                    left -= len(data)
                    if left < 0 and self.cut < self.to_cut:
                        self.cut += 1
                        return
                    if left < 0:
                        left = self.rng.randrange(2_000, 200_000)


@contextmanager
def served() -> Iterator[int]:
    """The port of moto's server. Skips the test if it is not installed."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("s3fs") is None:
        pytest.skip("moto or s3fs is not installed: pip install 'moto[server]' s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.2)
    yield port
    process.terminate()
    process.wait()


def environment(cache: Path, port: int | None, **more: str) -> dict[str, str]:
    """That of a command which reaches S3 at this port, with a cache of its own."""
    found = os.environ | KEYS | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)} | more
    return found if port is None else {**found, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
