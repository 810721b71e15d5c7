"""`--engine claims`: several runs share one index through its folder; dead ones lose their claims."""

import os
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

import patchmine
from patchmine import engines
from patchmine.defaults import Run, Wanted
from patchmine.engines import _claims, claims
from patchmine.errors import RequestError, SourceError, StoreError
from patchmine.mining import build, task
from patchmine.mining.workspace import Workspace
from patchmine.store import reading as store
from patchmine.system.progress import Silent
from tests.conftest import SHAPES
from tests.support.activations import datasets

WANTED = Wanted(model="shapes", shard_size=12, keep=10)
CLAIMS = Run(engine="claims", workers=1)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(claims, "POLL_S", 0.01)


class Shards:
    """A task whose shards are empty files. `slow` computes some of them until it is set."""

    def __init__(self, folder, slow=()):
        self.folder, self.slow, self.computed = folder, dict(slow), Counter()

    def work(self, todo, progress):
        for number in todo:
            if number in self.slow:
                self.slow[number].wait(20)
            self.computed[number] += 1
            (self.folder / f"{number:06d}.shard").touch()
            progress.advance(1)
            yield number

    def on_disk(self):
        return {int(path.stem) for path in self.folder.glob("*.shard")}

    def photographs(self, number):
        return 1


class Counting(Silent):
    count = 0

    def advance(self, count, skipped=()):
        self.count += count


def test_runs_share_the_shards_and_each_computes_another_part(tmp_path):
    runs = [Shards(tmp_path) for _ in range(4)]
    progress = [Counting() for _ in runs]
    found = [[] for _ in runs]
    todo = list(range(200))

    def work(number):
        found[number] += claims.mine(runs[number], todo, progress[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum((run.computed for run in runs), Counter()) == Counter(todo)
    assert all(sorted(numbers) == todo for numbers in found)
    assert [one.count for one in progress] == [200] * 4


def left_behind(folder, piece, age_s):
    """A piece of work as a process leaves it that was killed."""
    dead = _claims.Claims(folder)
    dead.prepare([piece, "other"])
    assert dead.take([piece]) == piece
    (held,) = (folder / "held").iterdir()
    os.utime(held, times=(time.time() - age_s,) * 2)


@pytest.mark.parametrize(("age_s", "taken"), [(_claims.STALE_S + 5, "one"), (_claims.STALE_S - 5, None)])
def test_a_claim_is_taken_back_once_its_process_has_not_touched_it_for_a_minute(tmp_path, age_s, taken):
    folder = tmp_path / "claims"
    left_behind(folder, "one", age_s)
    takers = [_claims.Claims(folder) for _ in range(3)]
    assert [taker.take(["one"]) for taker in takers] == [taken, None, None]


def test_a_living_process_keeps_its_claims_however_long_its_work_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(_claims, "BEAT_S", 0.02)
    monkeypatch.setattr(_claims, "STALE_S", 0.5)
    folder = tmp_path / "claims"
    one, other = _claims.Claims(folder), _claims.Claims(folder)
    one.prepare(["work"])
    with one.kept():
        assert one.take(["work"]) == "work"
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert other.take(["work"]) is None
            time.sleep(0.05)
    assert other.take(["work"]) == "work", "given back at the end"


def test_a_run_waits_for_the_last_shard_of_another_and_computes_it_if_that_one_dies(tmp_path):
    left_behind(tmp_path / "claims", "000000", _claims.STALE_S - 1)
    run = Shards(tmp_path)
    start = time.monotonic()
    assert list(claims.mine(run, [0], Silent())) == [0]
    assert run.computed == {0: 1}
    assert time.monotonic() - start > 0.5


def test_an_interrupted_run_gives_its_claims_back(tmp_path):
    run = Shards(tmp_path)
    shards = claims.mine(run, [0, 1, 2], Silent())
    next(shards)
    shards.close()
    assert len(list((tmp_path / "claims/todo").iterdir())) == 3  # two shards and the publishing
    assert not list((tmp_path / "claims/held").iterdir())


def test_a_shard_whose_file_was_damaged_and_removed_is_computed_again(tmp_path):
    run = Shards(tmp_path)
    list(claims.mine(run, [0, 1], Silent()))
    (tmp_path / "000001.shard").unlink()
    assert list(claims.mine(run, [1], Silent())) == [1]
    assert run.computed == {0: 1, 1: 2}


def test_one_run_publishes_and_the_next_one_only_if_that_fails(tmp_path):
    claims_folder = tmp_path / "claims"
    _claims.Claims(claims_folder).prepare([claims.PUBLISHING])
    with pytest.raises(SourceError), claims.publishing(tmp_path) as mine:
        assert mine
        raise SourceError
    with claims.publishing(tmp_path) as mine:
        assert mine
        for file in sorted(claims_folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        claims_folder.rmdir()
        tmp_path.rename(tmp_path.with_name("published"))
        with claims.publishing(tmp_path) as theirs:
            assert not theirs


def test_runs_at_a_time_give_the_index_of_one_run(shapes_index_dir, tmp_path):
    out = tmp_path / "shared.patchmine"
    reports = []
    threads = [
        threading.Thread(target=lambda: reports.append(patchmine.build_index(SHAPES, out, WANTED, CLAIMS)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.images for report in reports] == [48, 48]
    assert datasets(out) == datasets(shapes_index_dir)
    assert not (out / store.SHARDS).exists()
    assert (out / "index.log").read_text().count("publishing") == 1
    assert patchmine.build_index(SHAPES, out, WANTED, CLAIMS).mined == 0


@pytest.mark.parametrize(("first", "then"), [("local", "claims"), ("claims", "local")])
def test_a_run_begun_with_one_engine_is_finished_with_another(shapes_index_dir, tmp_path, monkeypatch, first, then):
    real, written = task.write_shard, []

    def dies(*args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(real(*args))

    out = tmp_path / "both.patchmine"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(task, "write_shard", dies)
        patchmine.build_index(SHAPES, out, WANTED, Run(engine=first))
    assert "2 of 4 shards are kept" in Workspace(out).kept()
    report = patchmine.build_index(SHAPES, out, WANTED, Run(engine=then))
    assert report.mined == 24
    assert datasets(out) == datasets(shapes_index_dir)


def test_the_settings_of_the_first_run_count_for_those_that_begin_at_the_same_time(tmp_path, monkeypatch):
    out = tmp_path / "shared.patchmine"
    real = Workspace.joined

    def overtaken(space, job):
        return real(space, replace(job, batch_size=5) if not space.shards.exists() else job)

    monkeypatch.setattr(Workspace, "joined", overtaken)
    patchmine.build_index(SHAPES, out, WANTED, CLAIMS)
    assert patchmine.open_index(out).job.batch_size == 5
    with pytest.raises(StoreError, match="its batch_size is 5, not 7"):
        patchmine.build_index(SHAPES, out, replace(WANTED, batch_size=7), CLAIMS)


def test_a_missing_shard_is_named_and_not_published(tmp_path, monkeypatch):
    class Forgetful:
        HELP = "forgetful: all but one"

        def mine(self, task, todo, progress):
            yield from task.work([number for number in todo if number != 2], progress)

    monkeypatch.setitem(engines.kinds._loaded, "local", Forgetful())
    out = tmp_path / "x.patchmine"
    with pytest.raises(StoreError, match=r"1 of the 4 shards of .* are missing \(2\): run the same command again"):
        patchmine.build_index(SHAPES, out, WANTED)
    monkeypatch.undo()
    assert patchmine.build_index(SHAPES, out, WANTED).mined == 12


def test_fresh_is_refused_because_it_would_delete_the_shards_of_others(cli, monkeypatch):
    monkeypatch.setattr(build, "build_index", None)
    done = cli("index", SHAPES, "--engine", "claims", "--fresh")
    assert done.returncode == 1
    assert "--fresh and --engine claims exclude each other" in done.stderr
    with pytest.raises(RequestError):
        claims.check(replace(CLAIMS, fresh=True))
