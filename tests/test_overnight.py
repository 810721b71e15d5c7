"""The overnight job: locks, logs, replaced indexes, photographs that come and go, indexes merged."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
from PIL import Image

import patchmine
from patchmine.defaults import Run, Wanted
from patchmine.errors import RequestError, SourceError, StoreError
from patchmine.mining import publish as publishing
from patchmine.mining.workspace import LOG, Workspace
from patchmine.store import reading as store
from patchmine.system.log import Lines
from patchmine.system.progress import Silent, pace
from tests.conftest import SHAPES
from tests.support.activations import datasets

WANTED = Wanted(model="shapes", shard_size=5, keep=6)
EXTEND = Run(extend=True)


def same(one, other, atol=1e-4):
    """Equal but for the last bit, which may depend on who else was in the batch."""
    left, right = datasets(one), datasets(other)
    assert left.keys() == right.keys()
    with h5py.File(one / store.ACTIVATIONS) as a, h5py.File(other / store.ACTIVATIONS) as b:
        for name in left:
            first, second = a[name][()], b[name][()]
            if isinstance(first, np.ndarray) and first.dtype.kind == "f":
                np.testing.assert_allclose(first, second, atol=atol, rtol=1e-2, err_msg=name)
            else:
                assert left[name] == right[name], name


# What it says meanwhile


def test_lines_of_progress_come_every_half_minute_and_show_slow_rates(monkeypatch):
    clock, lines = [0.0], []
    monkeypatch.setattr("patchmine.system.log.monotonic", lambda: clock[0])
    shown = Lines(lines.append)
    shown.begin(927, 0, "tight crops")
    shown.committed(0, 1)
    for clock[0], count in ((10.0, 2), (40.0, 8), (50.0, 900)):
        shown.advance(count)
    assert lines == ["927 tight crops", "1 shard", "10/927 tight crops, 0.25/s, 1:01:08 left, shard 0 of 1"]
    lines.clear()
    for total, what in ((1, "layers for scores"), (1, "patches of crops_3"), (2, "layers for scores"), (0, "crops")):
        shown.begin(total, 0, what)
    assert lines == ["1 layer for scores", "1 patch of crops_3", "2 layers for scores", "0 crops"]
    assert [pace(rate) for rate in (0.012, 3.25, 93.4)] == ["0.012/s", "3.2/s", "93/s"]


# Who writes


def test_two_runs_into_one_index_are_refused_and_a_dead_one_holds_no_lock(tmp_path):
    out = tmp_path / "x.patchmine"
    program = (
        "import sys, time; from pathlib import Path; from patchmine.mining.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])).taken(): print('taken', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "taken\n"
        with pytest.raises(StoreError, match="another process is writing to .*x.patchmine"):
            patchmine.build_index(SHAPES, out, WANTED)
        process.kill()
    assert patchmine.build_index(SHAPES, out, WANTED).images == 48


def test_what_a_killed_run_has_half_written_is_removed(tmp_path, shapes_index_dir):
    out = tmp_path / "x.patchmine"
    (out / store.SHARDS).mkdir(parents=True)
    for left in (out / ".activations.h5.1.tmp", out / store.SHARDS / ".000001.shard.7.tmp"):
        left.write_bytes(b"half")
    patchmine.build_index(SHAPES, out, replace(WANTED, shard_size=12, keep=10))
    assert not list(out.rglob(".*"))
    assert datasets(out) == datasets(shapes_index_dir)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_target_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot be written: Permission denied"):
        patchmine.build_index(SHAPES, tmp_path / "locked" / "x.patchmine", WANTED)


def test_a_full_disk_says_what_is_kept_and_the_same_command_goes_on(tmp_path, monkeypatch, shapes_index_dir):
    real, written = os.fsync, []

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "x.patchmine"
    wanted = replace(WANTED, shard_size=12, keep=10)
    with pytest.raises(StoreError, match=r"No space left on device; 2 of 4 shards are kept .* to resume"):
        patchmine.build_index(SHAPES, out, wanted)
    monkeypatch.setattr(os, "fsync", real)
    assert patchmine.build_index(SHAPES, out, wanted).mined == 24
    assert datasets(out) == datasets(shapes_index_dir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_done(tmp_path, number):
    out = tmp_path / "c.patchmine"
    words = ["index", "shapes:400", "-o", str(out), "--model", "shapes", "--shard-size", "4"]
    with subprocess.Popen([sys.executable, "-m", "patchmine", *words], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob("shards/*.shard")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert errors.strip().splitlines()[-1].startswith("patchmine: interrupted: ")
    assert "Traceback" not in errors
    log = (out / LOG).read_text()
    assert f"started by process {process.pid} on " in log
    assert "stopped by " in log
    assert not list(out.rglob(".*.tmp"))


# What a reader sees


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_reader_sees_the_old_index_or_the_new_but_never_half(tmp_path, monkeypatch):
    out, new = tmp_path / "x.patchmine", replace(WANTED, keep=3)
    patchmine.build_index(SHAPES, out, WANTED)
    reader = patchmine.open_index(out)
    before = [patch.value for patch in reader.unit("colour:0").top(6)]

    def die(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(publishing.writing, "write_manifest", die)
        with pytest.raises(Killed):
            patchmine.build_index(SHAPES, out, new, Run(fresh=True))
    # activations.h5 is new, the manifest old.
    assert patchmine.open_index(out).manifest["job"]["keep"] == 3
    assert [patch.value for patch in patchmine.open_index(out).unit("colour:0").top(3)] == before[:3]
    assert [patch.value for patch in reader.unit("colour:0").top(6)] == before
    # Without --fresh the killed run resumes; the index that it replaces does not prevent that.
    assert patchmine.build_index(SHAPES, out, new).mined == 0
    assert store.read_manifest(out)["job"]["keep"] == 3


def test_a_run_that_died_while_it_tidied_up_is_finished(tmp_path):
    out = tmp_path / "x.patchmine"
    patchmine.build_index(SHAPES, out, WANTED)
    (out / store.SHARDS).mkdir()
    (out / store.SHARDS / "000003.shard").write_bytes(b"left over")
    assert patchmine.build_index(SHAPES, out, WANTED).mined == 0
    assert not (out / store.SHARDS).exists()


# What the log and the source tell


def test_the_log_names_each_photograph_that_was_skipped(photographs, tmp_path):
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    (folder / "other" / "zz.jpg").write_bytes(b"junk")
    report = patchmine.build_index(folder, tmp_path / "x.patchmine", WANTED)
    assert "skipped other/zz.jpg: not an image" in (tmp_path / "x.patchmine" / LOG).read_text()
    assert list(report.manifest["skipped"].values()) == [1]


def test_a_source_that_vanishes_stops_the_run_and_loses_nothing(photographs, tmp_path):
    folder, out = tmp_path / "photographs", tmp_path / "x.patchmine"
    shutil.copytree(photographs, folder)

    class Unmounting(Silent):
        def committed(self, shards, of):
            if shards == 2 and folder.exists():
                folder.rename(tmp_path / "away")

    with pytest.raises(SourceError, match="have disappeared: .*run the same command to resume"):
        patchmine.build_index(folder, out, replace(WANTED, batch_size=1), Run(workers=1), Unmounting())
    (tmp_path / "away").rename(folder)
    patchmine.build_index(folder, out, replace(WANTED, batch_size=1))
    assert len(patchmine.open_index(out)) == 24


# Photographs that come and go


@pytest.fixture
def growing(photographs, tmp_path):
    """A folder of half of the photographs, indexed."""
    folder = tmp_path / "growing"
    shutil.copytree(photographs, folder)
    later = sorted(folder.rglob("*.*"))[::2]
    aside = {path: path.read_bytes() for path in later}
    for path in later:
        path.unlink()
    patchmine.build_index(folder, tmp_path / "g.patchmine", WANTED)
    return folder, aside


def test_extending_computes_only_what_is_new_and_gives_what_a_new_index_gives(growing, tmp_path, monkeypatch):
    folder, aside = growing
    out = tmp_path / "g.patchmine"
    for path, data in aside.items():
        path.write_bytes(data)
    with pytest.raises(StoreError, match="photographs are 12, not 24; update it with --extend"):
        patchmine.build_index(folder, out, WANTED)
    computed = counted(monkeypatch)
    report = patchmine.build_index(folder, out, WANTED, EXTEND)
    assert report.images == 24
    assert sum(computed) == 12
    patchmine.build_index(folder, tmp_path / "whole.patchmine", WANTED)
    same(out, tmp_path / "whole.patchmine")
    assert patchmine.build_index(folder, out, WANTED, EXTEND).mined == 0


def counted(monkeypatch):
    """The sizes of the batches that are computed from now on."""
    from patchmine.executors.torch import TorchExecutor

    real, sizes = TorchExecutor.run, []

    def run(self, pixels, images, bounds):
        sizes.append(len(pixels))
        return real(self, pixels, images, bounds)

    monkeypatch.setattr(TorchExecutor, "run", run)
    return sizes


def test_extending_lets_photographs_leave_and_notices_changed_ones(growing, tmp_path):
    folder, aside = growing
    out = tmp_path / "g.patchmine"
    there = sorted(path for path in folder.rglob("*.*"))
    there[0].unlink()
    there[1].write_bytes(next(iter(aside.values())))  # another picture under the same name
    assert patchmine.build_index(folder, out, WANTED, EXTEND).images == 11
    patchmine.build_index(folder, tmp_path / "whole.patchmine", WANTED)
    same(out, tmp_path / "whole.patchmine")


def test_extending_notices_a_photograph_that_has_changed_and_who_moves_up_for_it(growing, tmp_path):
    folder, _ = growing
    out = tmp_path / "g.patchmine"
    changed = sorted(folder.rglob("*.jpg"))[0]
    Image.new("RGB", (300, 260), "black").save(changed)  # hardly a unit's strongest any more
    with pytest.raises(StoreError, match="1 photographs have changed, .* --fresh"):
        patchmine.build_index(folder, out, WANTED, EXTEND)
    (folder / "other" / "zz.png").write_bytes(next(folder.rglob("*.png")).read_bytes())
    assert patchmine.build_index(folder, out, WANTED, EXTEND).images == 13
    patchmine.build_index(folder, tmp_path / "whole.patchmine", WANTED)
    same(out, tmp_path / "whole.patchmine")


def test_extending_refuses_another_job_and_an_index_without_a_table(growing, tmp_path):
    folder, aside = growing
    for path, data in aside.items():
        path.write_bytes(data)
    with pytest.raises(StoreError, match="keep is 6, not 7"):
        patchmine.build_index(folder, tmp_path / "g.patchmine", replace(WANTED, keep=7), EXTEND)
    bare = replace(WANTED, table=False)
    patchmine.build_index(folder, tmp_path / "n.patchmine", bare)
    next(iter(aside)).unlink()
    with pytest.raises(StoreError, match="--no-table"):
        patchmine.build_index(folder, tmp_path / "n.patchmine", bare, EXTEND)


# Merging


@pytest.fixture
def halves(photographs, tmp_path):
    """Two folders that share the photographs, each indexed, and one of both."""
    parts = [tmp_path / "one", tmp_path / "two"]
    for number, path in enumerate(sorted(photographs.rglob("*.*"))):
        target = parts[number % 2] / path.relative_to(photographs)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (parts[0] / "other" / "broken.jpg").write_bytes(b"junk")
    for part in parts:
        patchmine.build_index(part, part.with_suffix(".patchmine"), WANTED)
    return [part.with_suffix(".patchmine") for part in parts]


def test_merged_indexes_are_one_run_over_both(halves, tmp_path, monkeypatch):
    spec = f'union:["{tmp_path / "one"}", "{tmp_path / "two"}"]'
    patchmine.build_index(spec, tmp_path / "run.patchmine", WANTED)
    computed = counted(monkeypatch)
    out = tmp_path / "both.patchmine"
    report = patchmine.merge_indexes(halves[::-1], out)
    assert computed == []
    assert report.images == 24
    assert [entry["image"] for entry in report.manifest["skipped_files"]] == ["other/broken.jpg"]
    same(out, tmp_path / "run.patchmine", atol=1e-4)
    index = patchmine.open_index(out)
    assert index.unit("colour:0").top(3)[0].crop().size[0] > 0
    assert patchmine.merge_indexes(halves, out).mined == 0


def test_a_photograph_in_both_is_an_error_unless_one_is_to_go(halves, tmp_path):
    twin = next((tmp_path / "one").rglob("*.jpg"))
    shutil.copy(twin, tmp_path / "two" / "twin.jpg")
    patchmine.build_index(tmp_path / "two", halves[1], WANTED, EXTEND)
    out = tmp_path / "both.patchmine"
    with pytest.raises(RequestError, match=r"'twin\.jpg' is the same photograph as .*--dedupe"):
        patchmine.merge_indexes(halves, out)
    report = patchmine.merge_indexes(halves, out, dedupe=True)
    assert report.images == 24
    assert "the same photograph as" in str(report.manifest["skipped_files"])


def test_indexes_that_do_not_fit_are_not_merged(halves, tmp_path, shapes_index_dir):
    with pytest.raises(StoreError, match="cannot be merged: shard_size is 5 in the first and 12 in"):
        patchmine.merge_indexes([halves[0], shapes_index_dir], tmp_path / "x.patchmine")
    with pytest.raises(RequestError, match="needs at least two indexes"):
        patchmine.merge_indexes([halves[0], halves[0]], tmp_path / "x.patchmine")
    clash = tmp_path / "two" / "clash.jpg"
    shutil.copy(next((tmp_path / "two").rglob("0*.jpg")), clash)
    (tmp_path / "one" / "clash.jpg").write_bytes(next((tmp_path / "one").rglob("0*.jpg")).read_bytes())
    for half in halves:
        patchmine.build_index(half.with_suffix(""), half, WANTED, EXTEND)
    with pytest.raises(RequestError, match=r"different photographs at the path 'clash\.jpg'"):
        patchmine.merge_indexes(halves, tmp_path / "x.patchmine")
    assert not (tmp_path / "x.patchmine").exists()


def test_the_workspace_knows_its_own(tmp_path):
    out = tmp_path / "x.patchmine"
    with Workspace(out).taken():
        pass
    Workspace(out).refuse()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="holds other files"):
        Workspace(out).refuse()
