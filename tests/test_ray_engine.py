"""`--engine ray` without a cluster: what it refuses, and the process that computes. tests/slow has real clusters."""

import os
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import patchmine
from patchmine.defaults import Run, Wanted
from patchmine.engines import _ray_connection, _ray_miner, check, local, started
from patchmine.engines import ray as engine
from patchmine.errors import PatchmineError, RequestError, StoreError


@dataclass(frozen=True)
class Letters:
    """A task whose shards are files with one letter. `works` counts how often a pipeline was begun."""

    folder: Path
    works: list
    workers: int = 1
    broken: int = -1
    gate: threading.Event | None = None

    def ready(self):
        return self

    def path(self, number):
        return self.folder / f"{number:06d}.shard"

    def work(self, todo, progress):
        self.works.append(threading.current_thread())
        if self.gate:
            self.gate.wait(10)
        for number in todo:
            if number == self.broken:
                raise StoreError("no letter")
            self.path(number).write_bytes(bytes([65 + number]))
            progress.advance(1, [(f"{number}.jpg", "empty file")])
            yield number


@pytest.fixture
def beacon(tmp_path):
    (tmp_path / "beacon").touch()
    return "beacon"


def test_shards_that_wait_together_pass_through_one_pipeline(tmp_path, beacon):
    works, gate, answers = [], threading.Event(), {}
    miner = _ray_miner.Miner(Letters(tmp_path, works, gate=gate), 3, _ray_miner.versions(), beacon)
    assert miner.refusal() is None

    def ask(number):
        answers[number] = miner.mine(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while miner._waiting.qsize() < 7:  # the first is taken
        time.sleep(0.001)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == list(range(8))
    assert len(works) == 1
    assert {path for answer in answers.values() for path, _ in answer.skipped} == {f"{n}.jpg" for n in range(8)}
    assert all(answer.data is None for answer in answers.values())
    assert (tmp_path / "000007.shard").read_bytes() == b"H"


@pytest.mark.parametrize(("shard_size", "batch_size"), [(4, 64), (4, 32), (4, 16), (10, 8)])
def test_a_process_asks_for_as_many_shards_ahead_as_its_task_says(monkeypatch, tmp_path, shard_size, batch_size):
    """The driver sends that many: with fewer, the pipeline would run empty again and again, and forget its rankings."""
    most = []

    def mine(task, todo, progress):
        asked = []
        work = task.work((asked.append(number) or number for number in todo), progress)
        most.append((max(len(asked) - yielded for yielded, _ in enumerate(work)), task.in_hand))
        raise StoreError("enough")  # nothing need be published

    monkeypatch.setattr(local, "mine", mine)
    wanted = Wanted(model="shapes", shard_size=shard_size, batch_size=batch_size, executor="torch", keep=4)
    with pytest.raises(StoreError, match="enough"):
        patchmine.build_index(f"shapes:{8 * shard_size}", tmp_path / "x.patchmine", wanted, run=Run(workers=1))
    assert most[0][0] == most[0][1]


def test_an_actor_gets_what_it_has_in_hand_and_one_to_spare(tmp_path):
    crew_module = pytest.importorskip("patchmine.engines._ray_crew")
    crew = object.__new__(crew_module.Crew)
    actors = [SimpleNamespace(accepted=accepted, shards={}) for accepted in (True, False, True)]
    crew._workers, crew._queue, crew._task = actors, deque(range(20)), SimpleNamespace(in_hand=4)
    crew._send = lambda worker, number: worker.shards.update({object(): number})
    crew._assign()
    assert [list(actor.shards.values()) for actor in actors] == [[0, 2, 4, 6, 8], [], [1, 3, 5, 7, 9]]


def test_a_cluster_that_starts_here_inherits_what_actors_elsewhere_are_given(monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "3")
    before = dict(os.environ)
    assert _ray_connection.missing_environment() == {"MALLOC_ARENA_MAX": "2"}
    with _ray_connection._inherited(_ray_connection._OF_A_CLUSTER_HERE):
        inside = dict(os.environ)
    assert inside["MALLOC_ARENA_MAX"] == "2"
    assert inside["RAY_worker_niceness"] == "3"
    assert dict(os.environ) == before


def test_a_node_without_the_folder_returns_the_file_and_keeps_none(tmp_path):
    miner = _ray_miner.Miner(Letters(tmp_path / "elsewhere", []), 1, _ray_miner.versions(), "beacon")
    assert miner.mine(2).data == b"C"
    assert not list(miner._task.folder.iterdir())


def test_a_shard_that_fails_raises_and_the_next_one_is_computed(tmp_path, beacon):
    miner = _ray_miner.Miner(Letters(tmp_path, [], broken=1), 1, _ray_miner.versions(), beacon)
    with pytest.raises(StoreError, match="no letter"):
        miner.mine(1)
    assert miner.mine(0).number == 0


@pytest.mark.parametrize("package", ["torch", "patchmine"])
def test_a_process_with_another_version_says_which(tmp_path, beacon, package):
    expected = {**_ray_miner.versions(), package: "0.0.1"}
    miner = _ray_miner.Miner(Letters(tmp_path, []), 1, expected, beacon)
    assert miner.refusal().startswith(f"it has {package} ")
    assert miner.refusal().endswith("instead of 0.0.1")
    with pytest.raises(PatchmineError):
        miner.mine(0)


def test_without_the_extra_one_line_says_what_to_install(cli, monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    done = cli("index", "shapes:3", "--engine", "ray")
    assert done.returncode == 1
    assert done.stderr == "patchmine: --engine ray needs Ray: pip install 'patchmine[ray]'\n"


def test_an_address_without_the_engine_is_refused():
    with pytest.raises(RequestError, match=r"--address 'a:1' is that of a Ray cluster: add --engine ray"):
        check(Run(address="a:1"))


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_answers_is_one_line(scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RequestError, match=rf"no Ray cluster answers at --address '{address}' \(Connection refused\)"):
        _ray_connection._refuse_silent(address)


def test_where_there_is_a_token_the_refusal_says_how_to_send_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert _ray_connection._token() == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").touch()
    assert _ray_connection._token().endswith("set RAY_AUTH_MODE=token")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert _ray_connection._token() == ""


def test_a_run_inside_of_a_run_starts_its_engine_once(monkeypatch):
    begun = []

    @contextmanager
    def begin(run):
        begun.append(run)
        yield

    monkeypatch.setattr(local, "started", begin, raising=False)
    with started(Run()), started(Run()):
        pass
    with started(Run()):
        pass
    assert len(begun) == 2


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_process_that_computes_no_shards_builds_no_executor(monkeypatch, tmp_path, elsewhere):
    built = []

    def mine(task, todo, progress):
        built.append(task.here is not None)
        yield from task.work(todo, progress)

    monkeypatch.setattr(local, "mine", mine)
    monkeypatch.setattr(local, "ELSEWHERE", elsewhere, raising=False)
    patchmine.build_index("shapes:5", tmp_path / "x.patchmine", Wanted(model="shapes"))
    assert built == [not elsewhere]
