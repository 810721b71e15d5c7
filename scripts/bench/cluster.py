"""What `--engine ray` and `--engine claims` cost beside the local engine, in turns, and the memory of the driver.

    python -m scripts.bench.cluster PHOTOGRAPHS [--images 4000] [--repeat 3] [--small] [--memory 800,8000,50000]

All engines get the same cores: the local one as threads of one process, claims as one process with the same threads,
Ray as a cluster of one node on this machine. Times are those of the whole call. As root, the CPU seconds of all
processes are counted too, in a control group, and by kind of process: they depend little on what else the machine does.
On a busy machine do not compare times: Ray's processes lead sessions of their own, to which Linux gives more of the
cores than to one process. Memory is the peak of the process that was started, with small pictures and a small network,
so that many photographs take no hours; `--small` measures times with that network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from patchmine.sources import open_source

NETWORK = """
from dataclasses import replace
import torch
from patchmine.models.file import PREPROCESSING

def build():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 5, 2), torch.nn.Tanh(), torch.nn.Conv2d(16, 32, 3, 2))
    return module, replace(PREPROCESSING, resize=36, crop=(32, 32))
"""


@dataclass(frozen=True)
class Cost:
    """Of one call: seconds, CPU seconds of all processes (NaN without root), peak MiB of the one that was started.

    `kinds` are the CPU seconds of processes by the name of their kind, as they were seen last.
    """

    seconds: float
    cpu: float
    peak: float
    kinds: dict[str, float]


class Group:
    """A control group for the processes of one call. Without root it counts nothing."""

    def __init__(self) -> None:
        first = Path("/sys/fs/cgroup/cpuacct")
        root, self._tasks = (first, "tasks") if first.is_dir() else (Path("/sys/fs/cgroup"), "cgroup.procs")
        self._folder: Path | None = root / f"patchmine-{os.getpid()}"
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError:
            self._folder = None
        self._seen: dict[str, tuple[str, float]] = {}
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def _look(self) -> None:
        """Note what each process has used so far, ten times a second."""
        while self._folder is not None and not self._over.wait(0.1):
            for process in (self._folder / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
                    used = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
                    if kind := kind_of(words):
                        self._seen[process] = kind, sum(map(int, used)) / os.sysconf("SC_CLK_TCK")

    def joining(self, command: list[str]) -> list[str]:
        """The command, which joins the group first."""
        if self._folder is None:
            return command
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._folder / self._tasks), *command]

    def spent(self) -> float:
        """The CPU seconds, once the last process has ended."""
        if self._folder is None:
            return float("nan")
        while (self._folder / self._tasks).read_text():
            time.sleep(0.2)
        if (usage := self._folder / "cpuacct.usage").exists():
            seconds = int(usage.read_text()) / 1e9
        else:
            seconds = int((self._folder / "cpu.stat").read_text().split()[1]) / 1e6
        self._over.set()
        self._watch.join()
        self._folder.rmdir()
        return seconds

    def kinds(self) -> dict[str, float]:
        """The CPU seconds of processes by kind."""
        found: dict[str, float] = defaultdict(float)
        for kind, seconds in self._seen.values():
            found[kind] += seconds
        return found


def kind_of(words: list[str]) -> str:
    """What a process is, by its command line: `index`, `ray::_Actor`, `raylet`, `log_monitor.py` and the like."""
    if words[0].startswith("ray::"):
        return words[0].partition(".")[0].strip()
    if "patchmine" in words:
        return "index"
    return next((Path(word).name for word in words if "/ray/" in word), "")


def index(listing: Path, out: Path, engine: str, *more: str) -> Cost:
    """Run `patchmine index`."""
    words = ["index", str(listing), "-o", str(out), "--engine", engine, "--no-calibrate", *more]
    group, start = Group(), time.perf_counter()
    command = group.joining([sys.executable, "-m", "patchmine", *words])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, errors
    seconds = time.perf_counter() - start
    return Cost(seconds, group.spent(), usage.ru_maxrss / 1024, group.kinds())


def repeated(paths: list[Path], count: int, file: Path) -> Path:
    """A list of `count` photographs, which repeats the paths as often as it takes."""
    file.write_text("\n".join(map(str, islice(cycle(paths), count))))
    return file


def overhead(photographs: Path, images: int, repeat: int, engines: list[str], place: Path, *words: str) -> None:
    paths = [photographs.absolute() / entry.path for entry in open_source(str(photographs)).entries()]
    listing = repeated(paths, images, place / "photographs.txt")
    costs: dict[str, list[Cost]] = {engine: [] for engine in engines}
    for turn in range(repeat):
        for engine, found in costs.items():
            found.append(index(listing, place / f"{engine}-{turn}.patchmine", engine, *words))
        shown = ", ".join(
            f"{engine} {costs[engine][-1].seconds:.1f} s ({costs[engine][-1].cpu:.1f} CPU)" for engine in costs
        )
        print(f"{images} photographs, turn {turn + 1}, load {os.getloadavg()[0]:.1f}: {shown}", flush=True)
    for engine, found in costs.items():
        names = {kind for cost in found for kind in cost.kinds}
        medians = {kind: median(cost.kinds.get(kind, 0.0) for cost in found) for kind in names}
        shown = ", ".join(f"{kind} {medians[kind]:.1f}" for kind in sorted(names, key=medians.__getitem__)[::-1])
        print(f"{engine}, CPU s: {shown}", flush=True)
    for engine in engines[1:]:
        for what in ("seconds", "cpu"):
            pairs = zip(costs[engine], costs[engines[0]], strict=True)
            ratios = [getattr(one, what) / getattr(other, what) for one, other in pairs]
            shown = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            print(f"{engine} against {engines[0]}, {what}: {shown}", flush=True)


def memory(counts: list[int], place: Path) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(200):
        paths.append(place / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(paths[-1])
    for count in counts:
        listing = repeated(paths, count, place / f"{count}.txt")
        for engine in ("local", "ray"):
            out = place / f"memory-{engine}-{count}.patchmine"
            words = ["--model", f"{place / 'net.py'}:build", "--no-table"]
            cost = index(listing, out, engine, *words)
            print(f"{engine}, {count} small pictures: peak {cost.peak:.0f} MiB, {cost.seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--engines", default="local,claims,ray")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--memory", default="800,8000,50000")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        (Path(folder) / "net.py").write_text(NETWORK)
        words = ["--model", f"{Path(folder) / 'net.py'}:build"] if options.small else []
        if options.repeat:
            overhead(
                options.photographs, options.images, options.repeat, options.engines.split(","), Path(folder), *words
            )
        memory([int(count) for count in filter(None, options.memory.split(","))], Path(folder))


if __name__ == "__main__":
    main()
