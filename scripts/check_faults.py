"""Kill, stop and starve `patchmine index`, go on, and compare with an uninterrupted run, byte by byte.

    python scripts/check_faults.py PHOTOGRAPHS [--kills 200] [--stops 40] [--seed 0] [--shard-size 25]

- SIGKILL at seeded random moments of mining, an eighth of them during publishing; whenever an index is finished, it is
  compared with the uninterrupted one and a new one begun.
- SIGTERM and SIGINT likewise, from the very start of the command on: each must end with 143 or 130 and one line.
- A disk that is full, at several sizes, and a target that cannot be written: one line, and the same command goes on
  once there is room. Both need a tmpfs, so root; without it they are said to be left out.

Each run is a process of its own, forked from one that has loaded torch already, which saves the seconds of start-up;
those that are stopped from the very start are begun from nothing. Exits with 1 when any dataset differs, a shard is
lost (mined again though it was finished), or anything prints a traceback.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from patchmine.mining.workspace import LOG
from patchmine.store.reading import ACTIVATIONS, MANIFEST, SHARDS


def words(options: argparse.Namespace, out: Path) -> list[str]:
    layers = [word for pattern in options.layers for word in ("--layers", pattern)]
    rest = ["--model", options.model, "--shard-size", str(options.shard_size), "--json"]
    return ["index", str(options.folder), "-o", str(out), *layers, *rest]


def forked(command: list[str], errors: Path) -> int:
    """Start the command in a child that has everything loaded; its messages go to the file. Returns its id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        with errors.open("ab") as file:
            os.dup2(file.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["patchmine", *command]
        from patchmine.cli import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  the child must end here, whatever happens
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def differing(a: Path, b: Path) -> list[str]:
    """Names of the datasets of two activations.h5 that are not equal to the byte."""
    with h5py.File(a / ACTIVATIONS) as left, h5py.File(b / ACTIVATIONS) as right:
        names: set[str] = set()
        for file in (left, right):
            file.visititems(lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None)
        return sorted(
            name
            for name in names
            if name not in left or name not in right or not np.array_equal(_bytes(left[name]), _bytes(right[name]))
        )


def _bytes(dataset: h5py.Dataset) -> np.ndarray:
    array = np.asarray(dataset[()])
    return array if array.dtype == object else np.frombuffer(array.tobytes(), np.uint8)


@dataclass
class Check:
    """What was found so far."""

    options: argparse.Namespace
    place: Path
    rng: random.Random
    shards: int = 0
    failures: list[str] = field(default_factory=list)
    compared: int = 0

    @property
    def whole(self) -> Path:
        return self.place / "whole.patchmine"

    def fail(self, text: str) -> None:
        self.failures.append(text)
        print(f"FAILED: {text}", flush=True)

    def wait(self, child: int) -> int:
        """The exit status as a shell would give it."""
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def said(self, errors: Path) -> str:
        text = errors.read_text(errors="replace") if errors.exists() else ""
        errors.unlink(missing_ok=True)
        if "Traceback" in text:
            self.fail(f"a traceback: {text[-600:]}")
        return text

    def compare(self, out: Path) -> None:
        different = differing(self.whole, out)
        if different:
            self.fail(f"datasets differ: {different}")
        if list(out.rglob(".*.tmp")) or (out / SHARDS).exists():
            self.fail(f"left over: {[path.name for path in out.iterdir()]}")
        self.compared += 1
        shutil.rmtree(out)

    def publishing(self, out: Path) -> bool:
        with suppress(OSError):
            return (out / LOG).read_text().rstrip().endswith("publishing")
        return False


def shards(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob(f"{SHARDS}/*.shard")}


def kill(check: Check, mining: float, publishing: float) -> None:
    out, errors, killed, in_publish = check.place / "killed.patchmine", check.place / "errors", 0, 0
    when: Counter[str] = Counter()
    while killed < check.options.kills or out.exists():
        before = shards(out)
        child = forked(words(check.options, out), errors)
        spare = killed >= check.options.kills
        publish = not spare and in_publish * 8 < killed
        left = 1 - len(before) / check.shards
        spare = spare or (not publish and not left)
        moment = check.rng.uniform(0, publishing if publish else mining * left)
        start, ended = time.monotonic(), False
        while not spare:
            pid, status = os.waitpid(child, os.WNOHANG)
            ended = pid != 0
            if ended or time.monotonic() - start > moment:
                break
            if publish and not check.publishing(out):
                start = time.monotonic()
            time.sleep(0.002)
        if spare:
            status = os.waitpid(child, 0)[1]
            ended = True
        if ended:
            code = os.waitstatus_to_exitcode(status)
            text = check.said(errors)
            if code:
                check.fail(f"a resumed run ended with {code}: {text[-400:]}")
                break
            check.compare(out)
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
        here = "tidying" if (out / MANIFEST).exists() else "publishing" if check.publishing(out) else "mining"
        when[here if out.exists() else "start-up"] += 1
        in_publish += here != "mining"
        check.said(errors)
        kept = shards(out)
        if (out / SHARDS).exists() and here != "tidying":
            lost = [name for name, stamp in before.items() if kept.get(name) != stamp]
            if lost:
                check.fail(f"shards lost or mined again: {lost}")
        if killed % 20 == 0:
            print(f"{killed} kills ({dict(when)}), {check.compared} indexes compared", flush=True)
    print(f"SIGKILL: {killed} ({dict(when)})", flush=True)


def stop(check: Check, lasts: float) -> None:
    out = check.place / "stopped.patchmine"
    codes: Counter[int] = Counter()
    for number in range(check.options.stops):
        which = (signal.SIGTERM, signal.SIGINT)[number % 2]
        command = [sys.executable, "-m", "patchmine", *words(check.options, out)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        moment = check.rng.uniform(1, lasts)
        try:
            _, text = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(which)
            asked = time.monotonic()
            if number % 4 == 1:  # somebody impatient
                time.sleep(0.1)
                process.send_signal(which)
            _, text = process.communicate()
            if time.monotonic() - asked > 30:
                check.fail(f"{which.name} took {time.monotonic() - asked:.0f} s")
        codes[process.returncode] += 1
        if "Traceback" in text or "Exception ignored" in text:
            check.fail(f"{which.name} after {moment:.1f} s: {text[-600:]}")
        # Before patchmine runs at all, a signal ends Python itself.
        if process.returncode not in (0, 143, 130, -signal.SIGTERM, -signal.SIGINT):
            check.fail(f"{which.name} after {moment:.1f} s ended with {process.returncode}: {text[-300:]}")
        if process.returncode == 0:
            check.compare(out)
    if out.exists():
        subprocess.run([sys.executable, "-m", "patchmine", *words(check.options, out)], check=True, capture_output=True)
        check.compare(out)
    print(f"SIGTERM, SIGINT: {check.options.stops}, exit codes {dict(codes)}", flush=True)


def starve(check: Check) -> None:
    mount = check.place / "small"
    mount.mkdir()
    size = sum(path.stat().st_size for path in check.whole.rglob("*") if path.is_file())
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={3 * size}", "tmpfs", mount], capture_output=True
    ).returncode:
        print("disk full, read-only target: left out, because a tmpfs cannot be mounted here", flush=True)
        return
    out, errors, full = mount / "full.patchmine", check.place / "errors", 0
    try:
        for share in (0.02, 0.1, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8):
            subprocess.run(["mount", "-o", f"remount,size={int(share * size)}", mount], capture_output=True)
            before = shards(out)
            code = check.wait(forked(words(check.options, out), errors))
            text = check.said(errors)
            if code == 0:
                break
            full += 1
            if code != 1 or "cannot be written: No space left on device" not in text.splitlines()[-1]:
                check.fail(f"full at {share:.0%}: {code}: {text[-400:]}")
            if not before.items() <= shards(out).items():
                check.fail("shards lost on a full disk")
        subprocess.run(["mount", "-o", f"remount,size={4 * size}", mount], check=True)
        if out.exists() and not (out / MANIFEST).exists():
            check.wait(forked(words(check.options, out), errors))
            check.said(errors)
        check.compare(out)
        print(f"disk full: {full} times", flush=True)
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        code = check.wait(forked(words(check.options, mount / "new.patchmine"), errors))
        text = check.said(errors)
        if code != 1 or "cannot be written: Read-only file system" not in text:
            check.fail(f"read-only target: {code}: {text[-300:]}")
        print(f"read-only target: exit code {code}", flush=True)
    finally:
        subprocess.run(["umount", mount])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--stops", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-size", type=int, default=25)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--layers", action="append", default=[])
    options = parser.parse_args()
    import timm  # noqa: F401  loaded here once, for all that are forked; it starts no thread

    import patchmine.mining.build  # noqa: F401

    with tempfile.TemporaryDirectory() as temporary:
        check = Check(options, Path(temporary), random.Random(options.seed))
        start = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "patchmine", *words(options, check.whole)], check=True, capture_output=True
        )
        lasts = time.monotonic() - start
        child, begun = forked(words(options, check.place / "w.patchmine"), check.place / "errors"), time.monotonic()
        while not check.publishing(check.place / "w.patchmine") and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.005)
        mining = time.monotonic() - begun
        with suppress(ChildProcessError):
            check.wait(child)
        publishing = time.monotonic() - begun - mining
        log = (check.whole / LOG).read_text()
        check.shards = int(log.split(" shards")[0].rsplit(maxsplit=1)[-1])
        print(f"uninterrupted {lasts:.1f} s; forked: mining {mining:.1f} s, publishing {publishing:.1f} s", flush=True)
        check.compare(check.place / "w.patchmine")
        starve(check)
        stop(check, lasts)
        kill(check, mining, publishing)
        print(f"{check.compared} indexes compared with the uninterrupted one, {len(check.failures)} failures")
    return 1 if check.failures else 0


if __name__ == "__main__":
    sys.exit(main())
