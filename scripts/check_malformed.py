"""Malformed photographs: none may stop `patchmine index`, hang it, eat the memory, or change what good ones say.

    python scripts/check_malformed.py PHOTOGRAPHS [--files 5000] [--good 60] [--seed 0] [--workers 2] [--out DIR]

First each of the malformed files (see malformed.py) is decoded, for mining and for a crop, in processes that are
watched. A crash, more than CPU_S seconds of processor time, HANG_S seconds on the clock, or more than PEAK_MIB above
the memory that was taken before is held against the file that was being decoded. Where patchmine has pixels, Pillow
alone must have the same; where it calls a file damaged, Pillow must not have a picture.

Then `patchmine index --model shapes` runs over photographs from PHOTOGRAPHS with the malformed ones between them, and
over the same photographs alone: every file must be accounted for, and the good ones' rows must be equal.

Prints the outcomes, the slowest and the hungriest files, and exits with 1 on any violation.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from malformed import malformed
from numpy.typing import NDArray
from PIL import Image, ImageOps

CPU_S = 10.0
HANG_S = 90.0  # the clock of a machine that others use says little
PEAK_MIB = 1600.0
LEVELS = 1  # by how much of 255 a pixel may differ from Pillow's

Outcome = dict[str, Any]


# Inside the watched processes


def examine() -> None:
    """Read paths from stdin, one a line; answer each with a line of JSON on stdout."""
    import torch

    from patchmine.errors import PhotographError
    from patchmine.models.shapes import PREPROCESSING
    from patchmine.photographs.decode import full_size, prepare
    from patchmine.photographs.upright import KINDS, upright

    def attempt(function: Any, data: bytes) -> Any:
        try:
            return function(data)
        except PhotographError as error:
            return str(error)

    def of_pillow(data: bytes) -> NDArray[np.uint8] | None:
        """What Pillow alone makes of it, greys deeper than 8 bits scaled as patchmine promises."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(io.BytesIO(data), formats=KINDS)
                ImageOps.exif_transpose(image, in_place=True)
                if image.mode[0] == "I":
                    grey = (np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8)
                    return np.repeat(grey[:, :, None], 3, 2)
                return _some(image.convert("RGB"))
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
    """Give back what was freed, begin to measure anew; what is taken now, in MiB."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_mib(field="VmRSS:")


def _peak_mib(process: str = "self", field: str = "VmHWM:") -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


# Watching them


class Watched:
    """A process that examines, and is replaced when a file kills it."""

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
            command = [sys.executable, __file__, "--examine"]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said)
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
    """The outcome of every file."""

    def share(number: int) -> list[tuple[Path, Outcome]]:
        watched = Watched(said)
        try:
            return [(path, watched.ask(path)) for path in paths[number::workers]]
        finally:
            watched.close()

    with ThreadPoolExecutor(workers) as pool:
        return dict(pair for pairs in pool.map(share, range(workers)) for pair in pairs)


# The whole way


def indexed(folder: Path, out: Path, problems: list[str]) -> dict[str, Any]:
    """Run `patchmine index`; its report, with what went wrong appended to `problems`."""
    command = [sys.executable, "-m", "patchmine", "index", str(folder), "-o", str(out), "--model", "shapes", "--json"]
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        start = time.monotonic()
        process = subprocess.Popen([*command, "--no-calibrate"], stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        answer, said = stdout.read(), stderr.read().decode("utf-8", "replace")
    print(f"index {folder.name}: {time.monotonic() - start:.0f} s, peak {usage.ru_maxrss / 1024:.0f} MiB")
    if process.returncode or "Traceback" in said:
        problems.append(f"index {folder.name} exited with {process.returncode}: {said[-600:]}")
        return {"images": 0, "skipped_files": []}
    report: dict[str, Any] = json.loads(answer)
    return report


def rows(index: Path, wanted: set[str]) -> Iterator[tuple[str, str, bytes, bytes]]:
    """Layer, path, values and positions of the photographs wanted, in the order of their paths."""
    with h5py.File(index / "activations.h5") as file:
        paths = [path.decode() for path in file["images/path"][:]]
        order = sorted((path, row) for row, path in enumerate(paths) if path in wanted)
        for layer, group in file["layers"].items():
            values, positions = group["value"][:], group["position"][:]
            for path, row in order:
                yield layer, path, values[row].tobytes(), positions[row].tobytes()


def compared(alone: Path, between: Path, bad: list[Path], problems: list[str]) -> None:
    """Index the good photographs alone and with the bad ones between them."""
    with tempfile.TemporaryDirectory() as temporary:
        outs = [Path(temporary) / name for name in ("alone.patchmine", "between.patchmine")]
        reports = [indexed(folder, out, problems) for folder, out in zip((alone, between), outs, strict=True)]
        if problems:
            return
        good = {str(path.relative_to(alone)) for path in alone.rglob("*.*")}
        skipped = {entry["image"]: entry["reason"] for entry in reports[1]["skipped_files"]}
        print(f"{reports[1]['images']} indexed, {len(skipped)} skipped of {len(good) + len(bad)}")
        if reports[0]["images"] != len(good):
            problems.append(f"{len(good)} good photographs, but {reports[0]['images']} indexed alone")
        if reports[1]["images"] + len(skipped) != len(good) + len(bad):
            problems.append("some files are neither indexed nor skipped")
        problems += [f"{path} is skipped without a reason" for path, reason in skipped.items() if not reason.strip()]
        for left, right in zip(rows(outs[0], good), rows(outs[1], good), strict=True):
            if left != right:
                problems.append(f"{left[1]}: {left[0]} differs with malformed files between")


# All of it


def written(options: argparse.Namespace, folder: Path) -> tuple[Path, Path, list[Path]]:
    """Write `alone` and `between` into the folder; the bad files of the second in order."""
    alone, between = folder / "alone", folder / "between"
    bad = []
    for number, file in enumerate(malformed(options.files, options.seed)):
        path = between / f"{number % 7}" / f"{number:05d}-{file.name}.{file.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
        bad.append(path)
    photographs = [
        path for path in sorted(options.folder.rglob("*.*")) if path.suffix.lower() in (".jpeg", ".jpg", ".png")
    ]
    for number, path in enumerate(photographs[:: max(1, len(photographs) // options.good)][: options.good]):
        for root in (alone, between):
            target = root / f"{number % 7}" / f"{number * 83:05d}-good{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return alone, between, bad


def report(outcomes: dict[Path, Outcome], said: IO[bytes]) -> list[str]:
    """Print what came out; the violations."""
    words = Counter(" ".join(found["outcome"].split()[:3]) for found in outcomes.values())
    kinds = Counter(_kind(found["outcome"]) for found in outcomes.values())
    print("outcomes:", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    for words_of, count in words.most_common(14):
        print(f"  {count:6} {words_of} ...")
    for title, key, unit in (("slowest", "s", "s"), ("hungriest", "mib", "MiB")):
        worst = sorted(outcomes.items(), key=lambda item: -item[1][key])[:6]
        print(f"{title}:", ", ".join(f"{path.name} {found[key]:.1f} {unit}" for path, found in worst))
    said.seek(0)
    lines = Counter(said.read().decode("utf-8", "replace").splitlines())
    print(
        f"{lines.total()} lines on stderr",
        *(f"  {count:6} {line[:100]}" for line, count in lines.most_common(8)),
        sep="\n",
    )
    return [
        f"{path.name}: {found['problem']} ({found['outcome']})" for path, found in outcomes.items() if found["problem"]
    ]


def _kind(outcome: str) -> str:
    return next(
        (word for word in ("decoded", "lost", "damaged", "empty file", "not an image") if outcome.startswith(word)),
        "refused",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--good", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the files here and leave them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryFile() as said:
        alone, between, bad = written(options, options.out or Path(temporary))
        start = time.monotonic()
        outcomes = examined(bad, options.workers, said)
        print(f"{len(bad)} files examined in {time.monotonic() - start:.0f} s")
        problems = report(outcomes, said)
        compared(alone, between, bad, problems)
    print(f"{len(problems)} violations", *problems[:40], sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--examine"]:
        examine()
    else:
        sys.exit(main())
