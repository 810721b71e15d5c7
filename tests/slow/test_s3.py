"""`index s3://...` from a server on this machine, whose connections are cut, against the index of the folder.

    python -m pytest tests/slow/test_s3.py -m slow -s [--photographs DIR --limit 800] [--kills 20]

moto's server stands in for S3. Between it and patchmine runs a relay that cuts `--kills` connections in the middle of
an answer.
"""

from __future__ import annotations

import importlib.util
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from patchmine.sources import open_source
from patchmine.store.reading import read_manifest
from tests.conftest import tarred
from tests.support.activations import datasets

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


class Relay:
    """Passes connections on to a port, and cuts those that it is told to after some kilobytes of the answer."""

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
                    if one is there:
                        self.passed += len(data)
                        left -= len(data)
                        if left < 0 and self.cut < self.to_cut:
                            self.cut += 1
                            return
                        if left < 0:
                            left = self.rng.randrange(2_000, 200_000)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
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


@pytest.fixture(scope="module")
def bucket(server: int, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The photographs in a bucket, as a folder and as two tars: for each source, the same one on disk."""
    import s3fs

    store = s3fs.S3FileSystem(key="testing", secret="testing", endpoint_url=f"http://127.0.0.1:{server}")
    store.mkdir("photographs")
    entries = open_source(str(photographs)).entries()
    place = tmp_path_factory.mktemp("tars")
    for entry in entries:
        store.pipe(f"photographs/folder/{entry.path}", (photographs / entry.path).read_bytes())
    for number in range(2):
        part = {entry.path: (photographs / entry.path).read_bytes() for entry in entries[number::2]}
        store.put(str(tarred(place / f"part-{number}.tar", part)), f"photographs/part-{number}.tar")
    store.mkdir("empty")
    tars = "part-{0..1}.tar"
    return {"s3://photographs/folder": str(photographs), f"s3://photographs/{tars}": str(place / tars)}


def index(source: str, out: Path, port: int | None, **more: str) -> tuple[int, str, float]:
    """Run `patchmine index`: its exit code, its messages, and the images a second of mining."""
    environment = os.environ | KEYS | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(out.parent / "cache")} | more
    if port is not None:
        environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "patchmine", "index", source, "-o", str(out), "--no-calibrate"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    rate = 0.0
    if done.returncode == 0:
        manifest = read_manifest(out)
        rate = manifest["images"] / manifest["stages"]["mining"]
    return done.returncode, done.stderr, rate


def test_a_bucket_gives_the_bytes_of_the_folder_while_its_connections_are_cut(
    server: int, bucket: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest, seed: int
) -> None:
    relay = Relay(server, random.Random(seed))
    for number, (source, on_disk) in enumerate(bucket.items()):
        whole, out = tmp_path / f"local-{number}.patchmine", tmp_path / "s3.patchmine"
        code, errors, local = index(on_disk, whole, None)
        assert code == 0, errors
        for cuts in (0, request.config.getoption("--kills")):
            relay.to_cut, relay.cut, relay.passed = cuts, 0, 0
            code, errors, rate = index(source, out, relay.port)
            assert code == 0, errors
            assert relay.cut == cuts
            assert datasets(out) == datasets(whole)
            print(f"\n{source}: {cuts} connections cut, {relay.passed >> 20} MiB, {rate / local:.2f} of local", end="")
            shutil.rmtree(out)
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)


@pytest.mark.parametrize(
    ("source", "more", "line"),
    [
        ("s3://empty", {}, "no images in 's3://empty'"),
        ("s3://not-there", {}, "not found"),
        ("s3://photographs/none", {}, "not found"),
        ("s3://photographs/part-9.tar", {}, "not found"),
        (
            "s3://photographs/folder",
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
            "needs credentials",
        ),
        ("s3://photographs/folder", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_one_line(
    server: int, bucket: dict[str, str], tmp_path: Path, source: str, more: dict[str, str], line: str
) -> None:
    port = None if "AWS_ENDPOINT_URL" in more else server
    code, errors, _ = index(source, tmp_path / "x.patchmine", port, HOME=str(tmp_path), **more)
    assert code == 1
    assert line in errors.splitlines()[-1], errors
    assert len(errors.splitlines()) == 1, errors
