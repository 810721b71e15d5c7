"""What several tests need: an index of drawn photographs whose truth is known, and ways to break things."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Where tests run side by side, torch must not spin in one while another computes. It reads this when it is loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import patchmine
from patchmine import models
from patchmine.cli import app
from patchmine.defaults import MODEL
from patchmine.index import Index
from patchmine.mining.fields import Fields
from patchmine.networks.layers import choose
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap, survey
from patchmine.owncode import script

pytest.register_assert_rewrite("tests.support")

SHAPES = "shapes:48"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of tests/slow. They stand here because pytest reads no `pytest_addoption` further down."""
    group = parser.getgroup("slow checks", "options of: python -m pytest tests/slow -m slow")
    group.addoption("--photographs", type=Path, metavar="DIR", help="photographs by class (default: those of the demo)")
    group.addoption("--limit", type=int, default=100, metavar="N", help="how many of them are indexed (100)")
    group.addoption("--index", type=Path, metavar="DIR", help="a finished index to check instead of a new one")
    group.addoption("--seed", type=int, default=0, metavar="N", help="of every random choice (0)")
    group.addoption("--units", type=int, metavar="N", help="units to check (labels 100, picks 20, synthesis 8)")
    group.addoption("--counts", default="200,800", metavar="N,M", help="photographs of the runs of test_memory.py")
    group.addoption("--model", default=MODEL, metavar="M", help="of test_faults.py and test_memory.py")
    group.addoption("--kills", type=int, default=16, metavar="N", help="how often index is killed (16)")
    group.addoption("--stops", type=int, default=4, metavar="N", help="how often index is stopped by a signal (4)")
    group.addoption("--flips", type=int, default=100, metavar="N", help="indexes with changed bytes (100)")
    group.addoption("--every", type=int, default=10, metavar="N", help="each Nth of the other hostile indexes (10)")
    group.addoption("--files", type=int, default=500, metavar="N", help="malformed photographs (500)")
    group.addoption("--seeds", type=int, default=2, metavar="N", help="studies of each network with planted truth (2)")
    group.addoption("--steps", type=int, metavar="N", help="of every ascent (default: that of the commands)")
    group.addoption("--method", metavar="M", help="of the synthetic images (default: that of the command)")
    group.addoption("--networks", choices=("quick", "all"), default="quick", help="whose receptive fields are measured")
    group.addoption("--results", type=Path, metavar="FILE", help="keep the results of test_fields.py here, and resume")


@pytest.fixture(scope="session", autouse=True)
def few_hits() -> Iterator[None]:
    """Effective fields are measured at two hits a layer: at sixteen they take most of the time of a small index."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("patchmine.mining.build.Fields", partial(Fields, hits=2))
        yield


@pytest.fixture(scope="module", autouse=True)
def forgotten_scripts() -> Iterator[None]:
    """A network from a file of the package `tests` must not make all of this repository the user's own code later."""
    yield
    script.scripts[:] = [one for one in script.scripts if not one.owns(__file__)]


@pytest.fixture(scope="session")
def shapes_index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 drawn photographs through the hand-set network, in four shards."""
    directory = tmp_path_factory.mktemp("indexes") / "shapes.patchmine"
    patchmine.build_index(SHAPES, directory, model="shapes", shard_size=12, keep=10)
    return directory


@pytest.fixture
def shapes_index(shapes_index_dir: Path) -> Index:
    return patchmine.open_index(shapes_index_dir)


@pytest.fixture(scope="session")
def network() -> Network:
    """The default one."""
    return models.load()


@pytest.fixture(scope="session")
def taps(network: Network) -> tuple[Tap, ...]:
    """Of its default layers."""
    return survey(network.module, network.blank(), choose(network, ()))


@pytest.fixture(scope="session")
def pixels() -> torch.Tensor:
    """Five soft pictures, uint8 (5, 3, 224, 224)."""
    coarse = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    soft = torch.nn.functional.interpolate(coarse, (224, 224), mode="bicubic")
    return (soft.clamp(0, 1) * 255).to(torch.uint8)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 small JPEGs and PNGs in three classes, one of them EXIF-rotated, of several sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(24):
        target = folder / ("n01443537", "n01440764", "other")[number % 3] / f"{number:02d}"
        target.parent.mkdir(exist_ok=True)
        size = [(300, 260), (260, 340), (512, 300)][number % 3]
        coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        exif = Image.Exif()
        if number == 4:
            exif[0x0112] = 6
        if number % 4:
            picture.save(target.with_suffix(".jpg"), quality=90, exif=exif)
        else:
            picture.save(target.with_suffix(".png"), exif=exif)
    return folder


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Run a command in an empty folder, in this process: loading torch anew for each would take minutes."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Done:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Done]:
    """Run a command as the user does, in a process of its own, in an empty folder."""

    def run(*words: object) -> Done:
        command = [sys.executable, "-m", "patchmine", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def jpeg(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def tarred(file: Path, members: Mapping[str, bytes], **options: Any) -> Path:
    """A tar of these members, in this order."""
    with tarfile.open(file, "w", **options) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def zipped(file: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file
