"""Decode photographs that may be malformed in processes that are watched, and compare with Pillow.

A crash, more than CPU_S seconds of processor time, HANG_S seconds on the clock, or more than PEAK_MIB above the memory
in use before is held against the file that was being decoded, for mining and for a crop. Where patchmine has pixels,
Pillow alone must have the same; where it calls a file damaged, Pillow must not have a picture. Such a process is
`python -m tests.support.examining`.
"""

from __future__ import annotations

import ctypes
import io
import json
import selectors
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]

CPU_S = 10.0
HANG_S = 90.0  # generous: other processes share the machine
PEAK_MIB = 1600.0
LEVELS = 1  # by how much of 255 a pixel may differ from Pillow's

Outcome = dict[str, Any]
"""`outcome`, the reason of a refusal or "decoded"; `problem`, empty where all is well; seconds `s`, peak `mib`."""


def examine() -> None:
    """Read paths from stdin, one a line; answer each with an `Outcome` as a line of JSON on stdout."""
    import torch

    from patchmine.errors import PhotographError
    from patchmine.models.shapes import PREPROCESSING
    from patchmine.photographs.decode import full_size, prepare
    from patchmine.photographs.upright import KINDS, upright
    from tests.support.viewed import viewed

    def attempt(function: Any, data: bytes) -> Any:
        try:
            return function(data)
        except PhotographError as error:
            return str(error)

    def of_pillow(data: bytes) -> NDArray[np.uint8] | None:
        """The picture as a viewer shows it; None if Pillow does not read it."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _some(viewed(data, KINDS))
        except Exception:  # noqa: BLE001
            return None

    torch.set_num_threads(1)
    attempt(lambda _: prepare(_small(), PREPROCESSING), b"")
    print("ready", flush=True)

    for line in sys.stdin:
        data = Path(line.rstrip("\n")).read_bytes()
        before, start = _forget_peak(), time.process_time()
        pixels, picture = attempt(lambda data: prepare(data, PREPROCESSING), data), attempt(upright, data)
        seconds, peak = time.process_time() - start, _peak_mib() - before
        problem = ""
        if isinstance(picture, str):
            outcome = picture
            if picture.startswith(("damaged", "cannot be")) and of_pillow(data) is not None:
                problem = "Pillow reads it"
            if not isinstance(pixels, str):
                problem = "prepare reads what upright refuses"
        else:
            outcome = "decoded" if not isinstance(pixels, str) else pixels
            shown = _some(picture)
            del picture, pixels
            ours, theirs = _some(full_size(data).permute(1, 2, 0).numpy()), of_pillow(data)
            if theirs is None:
                problem = "Pillow does not read it"
            elif not theirs.shape == shown.shape == ours.shape:
                problem = f"sizes differ: {ours.shape}, {shown.shape} for crops, {theirs.shape} by Pillow"
            else:
                apart = max(_apart(ours, theirs), _apart(shown, theirs))
                problem = f"pixels differ by {apart}" if apart > LEVELS else ""
        if "\n" in outcome or not outcome:
            problem = f"reason is not one line: {outcome!r}"
        print(json.dumps({"outcome": outcome, "problem": problem, "s": seconds, "mib": peak}), flush=True)


def _some(picture: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All pixels of a small picture, a sample of a large one: several copies of that would be the peak of memory."""
    array = np.asarray(picture)
    step = 1 if array.size < 10_000_000 else 7
    return array[::step, ::step].copy()


def _apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    return int(np.abs(a.astype(np.int16) - b).max())


def _small() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def _forget_peak() -> float:
    """Give freed memory back and start the peak anew; the memory in use now, in MiB."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_mib(field="VmRSS:")


def _peak_mib(process: str = "self", field: str = "VmHWM:") -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


class Watched:
    """A process that runs `examine`, and is replaced when a file kills it. Its stderr goes to a file."""

    def __init__(self, said: IO[bytes]) -> None:
        self.said = said
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, path: Path) -> Outcome:
        process = self._running()
        assert process.stdin and process.stdout
        process.stdin.write(f"{path}\n".encode())
        process.stdin.flush()
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            start = time.monotonic()
            while time.monotonic() - start < HANG_S:
                if ready.select(0.05):
                    line = process.stdout.readline()
                    if line:
                        found: Outcome = json.loads(line)
                        if found["s"] > CPU_S:
                            found["problem"] = f"took {found['s']:.1f} s"
                        if found["mib"] > PEAK_MIB:
                            found["problem"] = f"took {found['mib']:.0f} MiB"
                        return found
                    return self._lost(f"crashed with {process.wait()}")
                # Comparing with Pillow alone takes memory as well, and is not the file's fault.
                if _resident(process.pid) > 3 * PEAK_MIB:
                    return self._lost(f"more than {3 * PEAK_MIB:.0f} MiB of memory")
        return self._lost("hangs")

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            command = [sys.executable, "-m", "tests.support.examining"]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.said, cwd=ROOT)
            assert self.process.stdout
            self.process.stdout.readline()
        return self.process

    def _lost(self, problem: str) -> Outcome:
        self.close()
        return {"outcome": "lost", "problem": problem, "s": HANG_S, "mib": 0.0}

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _resident(pid: int) -> float:
    try:
        return _peak_mib(str(pid), "VmRSS:")
    except OSError:
        return 0.0


def examined(paths: list[Path], workers: int, said: IO[bytes]) -> dict[Path, Outcome]:
    """The outcome of every file, by so many processes at once."""

    def share(number: int) -> list[tuple[Path, Outcome]]:
        watched = Watched(said)
        try:
            return [(path, watched.ask(path)) for path in paths[number::workers]]
        finally:
            watched.close()

    with ThreadPoolExecutor(workers) as pool:
        return dict(pair for pairs in pool.map(share, range(workers)) for pair in pairs)


if __name__ == "__main__":
    examine()
