"""`index s3://...` from a server on this machine, whose connections are cut, against the index of the folder.

    python -m pytest tests/slow/test_s3.py -m slow -s [--photographs DIR --limit 800] [--kills 20]

moto's server stands in for S3. Between it and patchmine runs a relay that cuts `--kills` connections in the middle of
an answer.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchmine.sources import open_source
from patchmine.store.reading import read_manifest
from tests.conftest import tarred
from tests.support.activations import datasets
from tests.support.s3 import Relay, environment, served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with served() as port:
        yield port


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
    command = [sys.executable, "-m", "patchmine", "index", source, "-o", str(out), "--no-calibrate"]
    done = subprocess.run(command, env=environment(out.parent / "cache", port, **more), capture_output=True, text=True)
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
        ("s3://photographs/folder", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer"),
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
