"""Processes load what this one would, whatever happens to them."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchmine import build_index, models
from patchmine.defaults import Run
from patchmine.mining import task
from patchmine.photographs.decode import stacked
from patchmine.photographs.decoders import Decoders, loaded, suit
from patchmine.photographs.loading import load
from patchmine.sources import open_source
from patchmine.system.timing import Stages
from tests.support.activations import datasets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs memory files and fork")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve photographs, one of which is no picture."""
    folder = tmp_path_factory.mktemp("photographs")
    drawn = open_source("shapes:12")
    for entry in drawn.entries():
        (folder / Path(entry.path).name).write_bytes(drawn.read(entry.path))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    return open_source(str(folder))


@pytest.fixture(scope="module")
def preprocessing():
    return models.load("shapes").preprocessing


@pytest.fixture(scope="module")
def decoders(source, preprocessing):
    found = Decoders(source, preprocessing, processes=2, block=8, lent=3)
    found.wait()
    yield found
    found.close()


def paths(source):
    return ["gone.png", *(entry.path for entry in source.entries())][:8]


def children(decoders):
    first = decoders._crew._first.pid
    return [int(pid) for pid in Path(f"/proc/{first}/task/{first}/children").read_text().split()]


def test_they_load_what_this_process_would(decoders, source, preprocessing):
    here = [load(source, path, preprocessing, Stages().timed) for path in paths(source)]
    assert {one.reason is None for one in here} == {True, False}
    stages = Stages()
    with decoders.loaded(paths(source), stages) as found:
        assert found is not None
        for one, expected in zip(found, here, strict=True):
            assert (one.digest, one.reason) == (expected.digest, expected.reason)
            if expected.pixels is None:
                assert one.pixels is None
            else:
                assert torch.equal(one.pixels.tensor, expected.pixels.tensor)
                assert one.pixels.placement == expected.pixels.placement
        read = [one.pixels.tensor for one in found if one.pixels]
        assert torch.equal(stacked(read[-4:]), torch.stack(read[-4:]))
        assert stacked(read[-4:]).data_ptr() == read[-4].data_ptr()  # no copy
        apart = [read[-4], read[-1]]
        assert torch.equal(stacked(apart), torch.stack(apart))
    assert set(stages.seconds) == {"read", "decode"}


def test_they_end_with_their_owner(source, preprocessing):
    found = Decoders(source, preprocessing, processes=2, block=8, lent=3)
    found.wait()
    pids = children(found)
    assert len(pids) == 2
    del found
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_they_end_when_their_owner_is_killed(source):
    script = (
        "import sys, time; from patchmine import models; from patchmine.photographs.decoders import Decoders\n"
        "from patchmine.sources import open_source\n"
        f"found = Decoders(open_source({source.spec!r}), models.load('shapes').preprocessing, 2, 8, 3)\n"
        "found.wait(); print(found._crew._first.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        first = int(owner.stdout.readline())
        owner.kill()
    until = time.monotonic() + 10
    while running(first) and time.monotonic() < until:
        time.sleep(0.02)
    assert not running(first)


def running(pid):
    """Whether it is there, and not only its entry that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_index_is_the_same_with_them(source, tmp_path, monkeypatch):
    """All blocks go through the processes: `wait` makes mining wait for their start."""
    options = {"model": "shapes", "batch_size": 4, "shard_size": 8, "executor": "torch"}
    build_index(source.spec, tmp_path / "threads.patchmine", run=Run(workers=2), **options)
    asked = []

    def always(job, source, workers):
        found = Decoders(source, job.preprocessing, workers, job.batch_size, workers + 1)
        found.wait()
        ask = found._crew.ask
        found._crew.ask = lambda question: asked.append(ask(question)) or asked[-1]
        return found

    monkeypatch.setattr(task, "_decoders", always)
    report = build_index(source.spec, tmp_path / "processes.patchmine", run=Run(workers=2), **options)
    assert len(asked) == 4 and None not in asked
    assert [file["image"] for file in report.manifest["skipped_files"]] == ["broken.png"]
    assert datasets(tmp_path / "threads.patchmine") == datasets(tmp_path / "processes.patchmine")


def test_they_are_started_where_they_help(source, preprocessing):
    assert suit(source, preprocessing)
    assert not suit(source, replace(preprocessing, view="whole"))
    assert not suit(type("Ahead", (), {"expect": None, "read": None})(), preprocessing)  # one that fetches ahead


def test_a_process_that_is_killed_loses_nothing(decoders, source, preprocessing):
    """The last test here: it leaves no process."""
    expected = [load(source, path, preprocessing, Stages().timed) for path in paths(source)]
    for pid in children(decoders):
        os.kill(pid, signal.SIGKILL)
    for _ in range(3):  # one dies in the question, the next is dead, then there is none
        with loaded(decoders, source, paths(source), preprocessing, Stages()) as found:
            assert [one.digest for one in found] == [one.digest for one in expected]
            assert all(
                torch.equal(one.pixels.tensor, other.pixels.tensor)
                for one, other in zip(found, expected, strict=True)
                if other.pixels
            )
