"""Kill, stop and starve `patchmine index`, resume it, and compare with an uninterrupted run, byte by byte.

    python -m pytest tests/slow/test_faults.py -m slow -s --photographs DIR [--kills 200] [--stops 40] [--limit 800]

Kills come at seeded random moments of mining, an eighth of them during publishing; whenever an index is finished, it is
compared with the uninterrupted one and a new one begun. A shard that was finished must never be mined again.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchmine.mining.workspace import LOG
from patchmine.store.reading import MANIFEST, SHARDS
from tests.support.activations import datasets
from tests.support.forked import Command

pytestmark = pytest.mark.slow

SHARD_SIZE = 10
STOP_S = 30.0
"""How long a stopped command may take to end."""


@dataclass
class Whole:
    """An uninterrupted run, to compare with."""

    photographs: Path
    model: str
    directory: Path
    lasts: float = 0.0
    mining: float = 0.0
    publishing: float = 0.0
    shards: int = 0

    def words(self, out: Path) -> list[str]:
        rest = ["--model", self.model, "--shard-size", str(SHARD_SIZE), "--json"]
        return ["index", str(self.photographs), "-o", str(out), *rest]

    def check(self, out: Path) -> None:
        """The index is finished, and equal to the uninterrupted one; it is deleted."""
        assert datasets(out) == datasets(self.directory)
        assert not list(out.rglob(".*.tmp"))
        assert not (out / SHARDS).exists()
        shutil.rmtree(out)


def patchmine(*more: str) -> list[str]:
    return [sys.executable, "-m", "patchmine", *more]


def shards(out: Path) -> dict[str, int]:
    """The finished shards, and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob(f"{SHARDS}/*.shard")}


def publishing(out: Path) -> bool:
    with suppress(OSError):
        return (out / LOG).read_text().rstrip().endswith("publishing")
    return False


@pytest.fixture(scope="module")
def whole(photographs: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    place = tmp_path_factory.mktemp("whole")
    found = Whole(photographs, request.config.getoption("--model"), place / "whole.patchmine")
    start = time.monotonic()
    subprocess.run(patchmine(*found.words(found.directory)), check=True, capture_output=True)
    found.lasts = time.monotonic() - start
    again = place / "again.patchmine"
    command = Command(found.words(again), place / "errors")
    begun = command.wait_until(again.exists)
    mined = command.wait_until(lambda: publishing(again))
    code, text = command.wait()
    assert code == 0, text
    found.mining, found.publishing = mined - begun, time.monotonic() - mined
    found.shards = int((found.directory / LOG).read_text().split(" shards")[0].rsplit(maxsplit=1)[-1])
    print(f"\nuninterrupted {found.lasts:.1f} s; mining {found.mining:.1f} s, publishing {found.publishing:.1f} s")
    found.check(again)
    return found


def test_a_killed_run_resumes_without_losing_a_shard_and_ends_in_the_same_bytes(
    whole: Whole, request: pytest.FixtureRequest, seed: int, tmp_path: Path
) -> None:
    kills, rng = request.config.getoption("--kills"), random.Random(seed)
    out, errors = tmp_path / "killed.patchmine", tmp_path / "errors"
    when: Counter[str] = Counter()
    compared = 0
    while when.total() < kills or out.exists():
        before = shards(out)
        late = (when["publishing"] + when["tidying"]) * 8 < when.total()
        left = 1 - len(before) / whole.shards
        spared = when.total() >= kills or (not late and not left)
        moment = rng.uniform(0, whole.publishing if late else whole.mining * left)
        command = Command(whole.words(out), errors)
        if not spared:
            command.wait_until(lambda late=late: publishing(out) if late else out.exists())  # type: ignore[misc]
        if spared or command.ended_within(moment):
            code, text = command.wait()
            assert code == 0, text
            assert "Traceback" not in text
            whole.check(out)
            compared += 1
            continue
        command.kill()
        _, text = command.wait()
        assert "Traceback" not in text
        here = "tidying" if (out / MANIFEST).exists() else "publishing" if publishing(out) else "mining"
        when[here] += 1
        if (out / SHARDS).exists() and here != "tidying":
            assert before.items() <= shards(out).items(), "shards lost or mined again"
    print(f"\n{when.total()} kills ({dict(when)}), {compared} indexes compared")


def test_a_signal_ends_a_run_with_its_code_and_no_traceback_and_the_run_resumes(
    whole: Whole, request: pytest.FixtureRequest, seed: int, tmp_path: Path
) -> None:
    out, rng = tmp_path / "stopped.patchmine", random.Random(seed)
    codes: Counter[int] = Counter()
    for number in range(request.config.getoption("--stops")):
        which = (signal.SIGTERM, signal.SIGINT)[number % 2]
        process = subprocess.Popen(
            patchmine(*whole.words(out)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        moment = rng.uniform(1, whole.lasts)
        try:
            _, text = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(which)
            asked = time.monotonic()
            if number % 4 == 1:  # somebody impatient
                time.sleep(0.1)
                process.send_signal(which)
            _, text = process.communicate()
            assert time.monotonic() - asked <= STOP_S, which.name
        codes[process.returncode] += 1
        assert "Traceback" not in text, f"{which.name} after {moment:.1f} s"
        assert "Exception ignored" not in text, f"{which.name} after {moment:.1f} s"
        # Before patchmine runs at all, a signal ends Python itself.
        assert process.returncode in (0, 143, 130, -signal.SIGTERM, -signal.SIGINT), text
        if process.returncode == 0:
            whole.check(out)
    if out.exists():
        subprocess.run(patchmine(*whole.words(out)), check=True, capture_output=True)
        whole.check(out)
    print(f"\nSIGTERM, SIGINT: exit codes {dict(codes)}")


@pytest.fixture
def small_disk(whole: Whole, tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, three times as large as the index. Skips where only root may make one."""
    mount = tmp_path / "small"
    mount.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={3 * size_of(whole.directory)}", "tmpfs", str(mount)]
    if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here: run it as root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def remount(mount: Path, how: str) -> bool:
    return subprocess.run(["mount", "-o", f"remount,{how}", str(mount)], capture_output=True).returncode == 0


def test_a_full_disk_is_one_line_and_the_run_resumes_once_there_is_room(
    whole: Whole, small_disk: Path, tmp_path: Path
) -> None:
    out, size, full = small_disk / "full.patchmine", size_of(whole.directory), 0
    for share in (0.02, 0.1, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8):
        remount(small_disk, f"size={int(share * size)}")
        before = shards(out)
        code, text = Command(whole.words(out), tmp_path / "errors").wait()
        assert "Traceback" not in text
        if code == 0:
            break
        full += 1
        assert code == 1, f"full at {share:.0%}: {text}"
        assert "cannot be written: No space left on device" in text.splitlines()[-1], f"full at {share:.0%}"
        assert before.items() <= shards(out).items(), "shards lost on a full disk"
    assert remount(small_disk, f"size={4 * size}")
    if out.exists() and not (out / MANIFEST).exists():
        assert Command(whole.words(out), tmp_path / "errors").wait()[0] == 0
    whole.check(out)
    print(f"\ndisk full: {full} times")
    assert full > 0


def test_a_target_that_cannot_be_written_is_one_line(whole: Whole, small_disk: Path, tmp_path: Path) -> None:
    assert remount(small_disk, "ro")
    code, text = Command(whole.words(small_disk / "new.patchmine"), tmp_path / "errors").wait()
    assert code == 1, text
    assert len(text.splitlines()) == 1, text
    assert "cannot be written: Read-only file system" in text
