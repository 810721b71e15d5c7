"""Several processes, or a Ray cluster of three nodes, compute one index; they are killed, and the bytes compared.

    python -m pytest tests/slow/test_together.py -m slow -s [--kills 20] [--photographs DIR --limit 800] [--model M]

Without --photographs, drawn pictures and the network of the tests are used. A log tells which process mined each
photograph: of the processes that mined one of a shard, all but one must have been killed.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from patchmine.engines import ray as engine
from patchmine.sources import open_source
from patchmine.store.reading import SHARDS
from patchmine.system.progress import Silent
from tests.support.activations import datasets
from tests.support.counted import Counted
from tests.support.large_shards import LargeShards

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHARD_SIZE = 6
STALE_S = 4.0
PROGRAM = f"""
import sys
from patchmine.engines import _claims, _ray_miner
_claims.STALE_S, _claims.BEAT_S = {STALE_S}, {STALE_S / 10}
from patchmine.__main__ import main
main()
"""
SCRIPT = ROOT / "docs/guides/slurm/patchmine.sbatch"


@dataclass
class Setting:
    """What is indexed, the index of a single local run, and where the others go."""

    source: str
    model: str
    folder: Path
    counted: Counted
    whole: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "together.patchmine"

    def environment(self) -> dict[str, str]:
        paths = [str(self.counted.site), str(ROOT), os.environ.get("PYTHONPATH", "")]
        ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        return os.environ | ray | {"PYTHONPATH": os.pathsep.join(paths)}

    def start(self, *more: str) -> subprocess.Popen[str]:
        words = ["index", self.counted.spec, "-o", str(self.out), "--model", self.model, "--json", "--workers", "1"]
        command = [sys.executable, "-c", PROGRAM, *words, "--shard-size", str(SHARD_SIZE), *more]
        started = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment()
        )
        self.running.append(started)
        return started

    def mining(self) -> bool:
        return self.counted.log.exists()

    def check(self) -> tuple[int, int]:
        """The index is that of the single run; it is removed."""
        assert datasets(self.out) == datasets(self.whole)
        assert not (self.out / SHARDS).exists()
        shutil.rmtree(self.out)
        return self.counted.check()


def finished(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors


def reached(what: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 400) -> bool:
    """Wait until it is true; False if the process ends before."""
    until = time.monotonic() + seconds
    while not what():
        if process.poll() is not None:
            return False
        assert time.monotonic() < until
        time.sleep(0.02)
    return True


@pytest.fixture
def setting(request: pytest.FixtureRequest, tmp_path: Path, whole: tuple[str, str, Path]) -> Iterator[Setting]:
    source, model, index = whole
    paths = [entry.path for entry in open_source(source).entries()]
    made = Setting(source, model, tmp_path, Counted(tmp_path, source, paths, SHARD_SIZE), index)
    yield made
    for process in made.running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """Source, model, and the index that one local run makes of them."""
    source, model = f"shapes:{request.config.getoption('--limit')}", "shapes"
    if request.config.getoption("--photographs"):
        source, model = str(request.getfixturevalue("photographs")), request.config.getoption("--model")
    index = tmp_path_factory.mktemp("whole") / "whole.patchmine"
    words = ["index", source, "-o", str(index), "--model", model, "--shard-size", str(SHARD_SIZE), "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "patchmine", *words], check=True, capture_output=True, env=environment)
    return source, model, index


def report(what: str, kills: int, indexes: int, counts: list[tuple[int, int]]) -> None:
    mined, again = (sum(numbers) for numbers in zip(*counts, strict=True))
    print(f"\n{what}: {kills} kills, {indexes} indexes compared; of {mined} shards, {again} begun again")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_claims_give_the_bytes_of_a_local_run_with_any_number_of_processes(setting: Setting, count: int) -> None:
    start = time.monotonic()
    for process in [setting.start("--engine", "claims") for _ in range(count)]:
        finished(process)
    print(f"\nclaims in {count} processes: {setting.check()} after {time.monotonic() - start:.0f} s")


def test_claims_killed_processes_lose_nothing_and_no_shard_is_computed_twice_without_cause(
    setting: Setting, request: pytest.FixtureRequest, seed: int
) -> None:
    kills, rng, killed = request.config.getoption("--kills"), random.Random(seed), 0
    counts = []
    while killed < kills:
        team = [setting.start("--engine", "claims") for _ in range(3)]
        while reached(setting.mining, team[0]) and killed < kills:
            time.sleep(rng.uniform(0, 4))
            victim = rng.choice(team)
            if all(process.poll() is None for process in team) and setting.out.joinpath(SHARDS).exists():
                victim.kill()
                victim.communicate()
                killed += 1
                setting.counted.bury()
                team[team.index(victim)] = setting.start("--engine", "claims")
            elif any(process.poll() is not None for process in team):
                break
        for process in team:
            finished(process)
        counts.append(setting.check())
    report("claims", killed, len(counts), counts)


def test_the_array_script_of_the_guide_works_as_it_stands(setting: Setting) -> None:
    """srun runs its words; scontrol writes down what is put back in the queue. SIGTERM comes as from a time limit."""
    tools = setting.folder / "bin"
    tools.mkdir()
    queue = setting.folder / "requeued"
    stubs = {
        "srun": 'exec "$@"',
        "scontrol": f'echo "$2" >> {queue}',
        "patchmine": f'exec {sys.executable} -m patchmine "$@" --shard-size {SHARD_SIZE}',
    }
    for name, line in stubs.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    environment = setting.environment() | {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "1"}
    environment |= {"SOURCE": setting.counted.spec, "INDEX": str(setting.out), "MODEL": setting.model}

    def task(number: int) -> subprocess.Popen[str]:
        words = {"SLURM_JOB_ID": str(number)}
        return subprocess.Popen(["bash", str(SCRIPT)], env=environment | words, stderr=subprocess.PIPE, text=True)

    tasks = [task(number) for number in (71, 72)]
    setting.running += tasks
    assert reached(setting.mining, tasks[0])
    time.sleep(1)
    (step,) = psutil.Process(tasks[0].pid).children()
    step.terminate()
    _, text = tasks[0].communicate(timeout=60)
    assert tasks[0].returncode == 143, text
    assert queue.read_text() == "71\n"
    setting.counted.bury()
    again = task(71)
    setting.running.append(again)
    for process in (tasks[1], again):
        finished(process)
    print(f"\nan array of two tasks, one of them put back in the queue: {setting.check()}")


class Nodes:
    """A Ray cluster on this machine, of three nodes with one core each."""

    def __init__(self, setting: Setting, count: int) -> None:
        from ray.cluster_utils import Cluster

        self.environment = {"PYTHONPATH": setting.environment()["PYTHONPATH"], "OMP_NUM_THREADS": "1"}
        common: dict[str, Any] = {"object_store_memory": 100 << 20, "include_dashboard": False}
        with pytest.MonkeyPatch.context() as patched:
            for name, value in setting.environment().items():
                patched.setenv(name, value)
            # The head computes nothing, so that any other node may die.
            self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
            self.nodes = [self.add() for _ in range(count)]

    @property
    def words(self) -> tuple[str, ...]:
        return "--engine", "ray", "--address", self.cluster.address

    def add(self, **more: str) -> Any:
        environment = self.environment | more
        return self.cluster.add_node(num_cpus=1, object_store_memory=100 << 20, env_vars=environment)

    def kill_node(self, number: int) -> None:
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self.add()

    def shut(self) -> None:
        self.cluster.shutdown()


def actors() -> list[psutil.Process]:
    """The processes of the cluster that compute."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_Actor"):
                found.append(process)
    return found


@pytest.fixture
def cluster(setting: Setting) -> Iterator[Callable[[int], Nodes]]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    made: list[Nodes] = []

    def start(count: int) -> Nodes:
        made.append(Nodes(setting, count))
        return made[-1]

    yield start
    for nodes in made:
        nodes.shut()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ray_gives_the_bytes_of_a_local_run_on_any_number_of_nodes(
    setting: Setting, cluster: Callable[[int], Nodes], count: int
) -> None:
    start = time.monotonic()
    nodes = cluster(count)
    finished(setting.start(*nodes.words))
    print(f"\nray on {count} nodes: {setting.check()} after {time.monotonic() - start:.0f} s")


@pytest.mark.parametrize("what", ["worker", "node", "driver"])
def test_ray_survives_the_death_of(
    what: str, setting: Setting, cluster: Callable[[int], Nodes], request: pytest.FixtureRequest, seed: int
) -> None:
    kills, rng, killed = request.config.getoption("--kills"), random.Random(seed), 0
    nodes, counts = cluster(3), []
    driver = setting.start(*nodes.words)
    while killed < kills:
        if not reached(setting.mining, driver):
            finished(driver)
            counts.append(setting.check())
            driver = setting.start(*nodes.words)
            continue
        time.sleep(rng.uniform(0.5, 4))
        if not setting.out.joinpath(SHARDS, "job.json").exists() or driver.poll() is not None:
            finished(driver)
            counts.append(setting.check())
            driver = setting.start(*nodes.words)
            continue
        if what == "worker":
            living = actors()
            if not living:
                continue
            with suppress(psutil.NoSuchProcess):
                victim = rng.choice(living)
                victim.kill()
                psutil.wait_procs([victim], timeout=5)
        elif what == "node":
            nodes.kill_node(rng.randrange(3))
        else:
            driver.kill()
            driver.communicate()
            until = time.monotonic() + 30
            while actors() and time.monotonic() < until:  # they die with their owner
                time.sleep(0.1)
        killed += 1
        setting.counted.bury()
        if what == "driver":
            driver = setting.start(*nodes.words)
    finished(driver)
    counts.append(setting.check())
    report(f"ray, {what}", killed, len(counts), counts)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_ray_a_signal_ends_the_run_with_its_code_and_the_shards_are_kept(
    name: str, setting: Setting, cluster: Callable[[int], Nodes]
) -> None:
    nodes = cluster(1)
    driver = setting.start(*nodes.words)
    assert reached(lambda: bool(list(setting.out.glob(f"{SHARDS}/*.shard"))), driver)
    driver.send_signal(signal.Signals[name])
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == {"SIGTERM": 143, "SIGINT": 130}[name], errors
    assert "shards are kept" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    while actors():
        time.sleep(0.1)
    setting.counted.bury()
    finished(setting.start("--engine", "local"))
    setting.check()


@pytest.fixture
def secluded(setting: Setting, cluster: Callable[[int], Nodes]) -> Iterator[Callable[[Nodes, Path], None]]:
    """Add a node to a cluster that finds an empty folder of its own at a path. Skips where only root may do so."""
    started: list[subprocess.Popen[bytes]] = []
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount of its own can be made here: run it as root")

    def add(nodes: Nodes, hidden: Path) -> None:
        ray = Path(sys.executable).with_name("ray")
        start = f"{ray} start --address {nodes.cluster.address} --num-cpus 1 --object-store-memory {100 << 20} --block"
        script = f"mount -t tmpfs tmpfs {hidden} && exec {start}"
        before = len(nodes.cluster.list_all_nodes())
        started.append(subprocess.Popen(["unshare", "-m", "sh", "-c", script], env=setting.environment()))
        time.sleep(8)
        assert started[-1].poll() is None, before

    yield add
    for process in started:
        process.terminate()
        process.wait()


def test_ray_brings_the_shards_back_from_a_node_that_does_not_see_the_folder(
    setting: Setting, cluster: Callable[[int], Nodes], secluded: Callable[[Nodes, Path], None]
) -> None:
    nodes = cluster(0)
    setting.folder = setting.folder / "hidden"
    setting.folder.mkdir()
    secluded(nodes, setting.folder)
    finished(setting.start(*nodes.words))
    print(f"\nray through the object store: {setting.check()}")


def test_ray_brings_shards_back_that_are_larger_than_the_object_store(
    setting: Setting, cluster: Callable[[int], Nodes]
) -> None:
    """Ray puts what does not fit on disk. The store of each node has 100 MiB."""
    nodes = cluster(2)
    task = LargeShards(setting.folder, 130 << 20, nodes.cluster.address)
    todo = list(range(6))
    assert sorted(engine.mine(task, todo, Silent())) == todo
    for number in todo:
        content = task.path(number).read_bytes()
        assert len(content) == content.count(number) == 130 << 20


def test_ray_names_the_node_that_does_not_see_the_photographs_and_computes_on_the_others(
    setting: Setting, cluster: Callable[[int], Nodes], secluded: Callable[[Nodes, Path], None]
) -> None:
    photographs = setting.folder / "photographs"
    photographs.mkdir()
    source = open_source(setting.counted.spec.partition(":")[2].partition(":")[2])
    for entry in source.entries():
        (photographs / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (photographs / entry.path).write_bytes(source.read(entry.path))
    nodes = cluster(0)
    secluded(nodes, photographs)
    words = ["index", str(photographs), "-o", str(setting.out), "--model", setting.model, *nodes.words]
    command = [sys.executable, "-m", "patchmine", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=setting.environment())
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "no node of the Ray cluster can compute this: node " in last, done.stderr
    assert "it does not see the photographs of" in last
    nodes.add()
    done = subprocess.run(command, capture_output=True, text=True, env=setting.environment())
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("gets no shards: it does not see the photographs of") == 1


def test_ray_names_the_node_with_another_version(setting: Setting, cluster: Callable[[int], Nodes]) -> None:
    old = setting.folder / "old/torch-1.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    nodes = cluster(0)
    nodes.add(PYTHONPATH=f"{old.parent}{os.pathsep}{nodes.environment['PYTHONPATH']}")
    _, errors = setting.start(*nodes.words).communicate(timeout=400)
    assert ": it has torch 1.0 instead of" in errors.splitlines()[-1], errors
    assert "Traceback" not in errors
