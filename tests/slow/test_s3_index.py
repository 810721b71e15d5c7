"""`index -o s3://...` against the index in a folder: connections are cut, the run is killed, other machines resume it.

    python -m pytest tests/slow/test_s3_index.py -m slow -s [--photographs DIR --limit 100] [--kills 20]

moto's server stands in for S3, folders for the caches of two machines. Every object is compared byte by byte.
"""

from __future__ import annotations

import importlib.util
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from patchmine.store.reading import ACTIVATIONS, PATCHES, SHARDS
from tests.support.s3 import Relay, environment, served

pytestmark = pytest.mark.slow

SHARD_SIZE = 4
SIGKILLS = 5


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with served() as port:
        yield port


@pytest.fixture(scope="module")
def store(server: int) -> Any:
    import s3fs

    store = s3fs.S3FileSystem(key="testing", secret="testing", endpoint_url=f"http://127.0.0.1:{server}")
    store.mkdir("indexes")
    return store


class Machine:
    """Runs commands with a cache of its own; S3 is at this port."""

    def __init__(self, cache: Path, port: int) -> None:
        self.environment = environment(cache, port)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "patchmine", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *words: str) -> tuple[str, float]:
        """What the command prints, and how long it takes."""
        start = time.monotonic()
        process = self.begin(*words)
        printed, errors = process.communicate()
        assert process.returncode == 0, errors
        return printed, time.monotonic() - start


def words(photographs: Path, out: str | Path) -> list[str]:
    more = ["--shard-size", str(SHARD_SIZE), "--no-calibrate", "--json"]
    return ["index", str(photographs), "-o", str(out), *more]


@pytest.fixture(scope="module")
def whole(photographs: Path, server: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The index in a folder, and its images a second."""
    place = tmp_path_factory.mktemp("whole")
    machine = Machine(place / "cache", server)
    printed, _ = machine.run(*words(photographs, place / "whole.patchmine"))
    return place / "whole.patchmine", json.loads(printed)["images_per_second"]


def check(store: Any, name: str, whole: Path) -> None:
    """The bucket holds the index, byte for byte, and nothing else; no upload is left unfinished."""
    store.invalidate_cache()
    assert sorted(Path(path).name for path in store.find(name)) == [ACTIVATIONS, "manifest.json", PATCHES]
    for file in (ACTIVATIONS, PATCHES):
        assert store.cat_file(f"{name}/{file}") == (whole / file).read_bytes()
    assert store.list_multipart_uploads("indexes") == []


def shards(store: Any, name: str) -> set[str]:
    store.invalidate_cache()
    return {Path(path).name for path in store.find(f"{name}/{SHARDS}") if path.endswith(".shard")}


def test_connections_that_are_cut_while_writing_change_no_byte(
    server: int,
    store: Any,
    photographs: Path,
    whole: tuple[Path, float],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    seed: int,
) -> None:
    relay, cuts = Relay(server, random.Random(seed)), request.config.getoption("--kills")
    for cut in (0, cuts):
        relay.to_cut, relay.cut, relay.passed = cut, 0, 0
        name = f"indexes/cut-{cut}.patchmine"
        printed, _ = Machine(tmp_path / f"cache-{cut}", relay.port).run(*words(photographs, f"s3://{name}"))
        check(store, name, whole[0])
        assert relay.cut == cut
        rate = json.loads(printed)["images_per_second"]
        print(f"\n{cut} connections cut, {relay.passed >> 20} MiB, {rate / whole[1]:.2f} of local", end="")


def test_a_killed_run_is_resumed_on_another_machine(
    server: int, store: Any, photographs: Path, whole: tuple[Path, float], tmp_path: Path, seed: int
) -> None:
    rng, name = random.Random(seed), "indexes/killed.patchmine"
    machines = [Machine(tmp_path / f"machine-{number}", server) for number in range(2)]
    for kill in range(SIGKILLS):
        before = shards(store, name)
        process = machines[kill % 2].begin(*words(photographs, f"s3://{name}"))
        while process.poll() is None and not shards(store, name) - before:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if store.exists(f"{name}/manifest.json"):  # it was published, and its shards removed
            break
        assert before <= shards(store, name), "a shard was lost"
        print(f"\nkill {kill + 1}: {len(shards(store, name))} shards in the bucket", end="")
    kept = len(shards(store, name)) or store.exists(f"{name}/manifest.json")
    printed, _ = machines[SIGKILLS % 2].run(*words(photographs, f"s3://{name}"))
    assert json.loads(printed)["resumed"] is bool(kept)
    check(store, name, whole[0])


def test_ray_computes_into_the_bucket(server: int, store: Any, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'patchmine[ray]'")
    machine = Machine(tmp_path / "cache", server)
    machine.environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    asked = ["index", "shapes:40", "--model", "shapes", "--shard-size", "8", "--no-calibrate", "--json", "-o"]
    machine.run(*asked, str(tmp_path / "whole.patchmine"))
    printed, _ = machine.run(*asked, "s3://indexes/ray.patchmine", "--engine", "ray")
    assert json.loads(printed)["images"] == 40
    check(store, "indexes/ray.patchmine", tmp_path / "whole.patchmine")


def test_an_index_is_fetched_once(server: int, store: Any, whole: tuple[Path, float], tmp_path: Path) -> None:
    name = "indexes/read.patchmine"
    for file in (ACTIVATIONS, PATCHES, "manifest.json"):
        store.put_file(str(whole[0] / file), f"{name}/{file}")
    machine = Machine(tmp_path / "cache", server)
    top = ["top", "--unit", "blocks.6:33", "--json", "-i"]
    answers = []
    for where in (str(whole[0]), f"s3://{name}", f"s3://{name}", str(whole[0]), f"s3://{name}"):
        printed, seconds = machine.run(*top, where)
        answers.append({**json.loads(printed), "index": None})
        print(f"\ntop -i {where.rpartition('/')[0][-20:]}: {seconds:.2f} s", end="")
    assert all(answer == answers[0] for answer in answers)
    machine.run("verify", "-i", f"s3://{name}")


@pytest.mark.parametrize(
    ("out", "more", "line"),
    [
        ("s3://not-there/x.patchmine", {}, "no such bucket; create it first"),
        ("s3://indexes/photographs", {}, "holds other files and is not an index"),
        (
            "s3://indexes/x.patchmine",
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
            "needs credentials",
        ),
        ("s3://indexes/x.patchmine", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer"),
        ("s3://indexes/x.patchmine", {"auth": "on"}, "cannot be read with these credentials"),
    ],
)
def test_what_is_wrong_with_a_target_is_one_line(
    server: int, store: Any, tmp_path: Path, out: str, more: dict[str, str], line: str
) -> None:
    store.pipe("indexes/photographs/note.txt", b"note")
    machine = Machine(tmp_path / "cache", server)
    machine.environment |= {"HOME": str(tmp_path), **more}
    asked = (
        ["index", "shapes:8", "--model", "shapes", "-o", out],
        ["top", "--unit", "colour:0", "-i", out],
    )

    def checks_keys_after(requests: int) -> None:
        address, plain = f"http://127.0.0.1:{server}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urlopen(Request(address, str(requests).encode(), plain, method="POST")).close()

    for words in asked if more else asked[:1]:
        if "auth" in more:
            checks_keys_after(0)  # it knows none
        process = machine.begin(*words)
        _, errors = process.communicate()
        checks_keys_after(1_000_000)
        assert process.returncode == 1, errors
        assert line in errors, errors
        assert len(errors.splitlines()) == 1, errors
