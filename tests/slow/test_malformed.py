"""Malformed photographs do not stop `index`, hang it, eat the memory, or change a value of the good ones.

    python -m pytest tests/slow/test_malformed.py -m slow -s --photographs DIR [--files 5000] [--limit 60]

First each malformed file (`tests.support.malformed`) is decoded in a process that is watched
(`tests.support.examining`). Then `patchmine index --model shapes` runs over photographs with the malformed ones between
them, and over the same photographs alone. Prints the outcomes, and the slowest and hungriest files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pytest

from patchmine.sources import open_source
from tests.support.examining import Outcome, examined
from tests.support.malformed import malformed

pytestmark = pytest.mark.slow

WORKERS = 2
GOOD = 60


@dataclass
class Files:
    """Folders with the good photographs alone, and with the malformed ones between; the latter in order."""

    alone: Path
    between: Path
    good: list[str]
    bad: list[Path]


@pytest.fixture(scope="module")
def files(
    photographs: Path, request: pytest.FixtureRequest, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> Files:
    folder = tmp_path_factory.mktemp("malformed")
    found = Files(folder / "alone", folder / "between", [], [])
    for number, file in enumerate(malformed(request.config.getoption("--files"), seed)):
        path = found.between / f"{number % 7}" / f"{number:05d}-{file.name}.{file.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
        found.bad.append(path)
    for number, entry in enumerate(open_source(str(photographs)).entries()[:GOOD]):
        name = f"{number % 7}/{number * 83:05d}-good{Path(entry.path).suffix}"
        found.good.append(name)
        for root in (found.alone, found.between):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photographs / entry.path, root / name)
    return found


def test_no_malformed_file_crashes_hangs_eats_memory_or_decodes_otherwise_than_in_pillow(
    files: Files, tmp_path: Path
) -> None:
    with (tmp_path / "stderr").open("w+b") as said:
        outcomes = examined(files.bad, WORKERS, said)
        said.seek(0)
        lines = Counter(said.read().decode("utf-8", "replace").splitlines())
    show(outcomes)
    print(f"{lines.total()} lines on stderr: {lines.most_common(5)}")
    assert len(outcomes) == len(files.bad)
    assert {path.name: found for path, found in outcomes.items() if found["problem"]} == {}


def show(outcomes: dict[Path, Outcome]) -> None:
    words = Counter(" ".join(found["outcome"].split()[:3]) for found in outcomes.values())
    print(f"\n{len(outcomes)} files: {', '.join(f'{count} {word} ...' for word, count in words.most_common(14))}")
    for title, key, unit in (("slowest", "s", "s"), ("hungriest", "mib", "MiB")):
        worst = sorted(outcomes.items(), key=lambda item: -item[1][key])[:6]
        print(f"{title}:", ", ".join(f"{path.name} {found[key]:.1f} {unit}" for path, found in worst))


@dataclass
class Indexed:
    """The reports of `index --json` for both folders, and the indexes."""

    alone: dict[str, Any]
    between: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def indexed(files: Files) -> Indexed:
    folder = files.alone.parent
    alone, between = (run(part, part.with_suffix(".patchmine")) for part in (files.alone, files.between))
    return Indexed(alone, between, folder)


def run(photographs: Path, out: Path) -> dict[str, Any]:
    """The report of `patchmine index`."""
    command = [sys.executable, "-m", "patchmine", "index", str(photographs), "-o", str(out), "--model", "shapes"]
    with (out.parent / "errors").open("wb") as errors:
        words = [*command, "--json", "--no-calibrate"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors)
    assert process.stdout
    with process.stdout:
        answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = (out.parent / "errors").read_text(errors="replace")
    print(f"\nindex {photographs.name}: peak {usage.ru_maxrss / 1024:.0f} MiB", end="")
    assert process.returncode == 0, said[-600:]
    assert "Traceback" not in said
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


def test_every_file_is_indexed_or_skipped_with_a_reason(files: Files, indexed: Indexed) -> None:
    skipped = {entry["image"]: entry["reason"] for entry in indexed.between["skipped_files"]}
    print(f"\n{indexed.between['images']} indexed, {len(skipped)} skipped")
    assert indexed.alone["images"] == len(files.good)
    assert indexed.between["images"] + len(skipped) == len(files.good) + len(files.bad)
    assert all(reason.strip() for reason in skipped.values())
    assert not skipped.keys() & set(files.good)


def test_good_photographs_have_the_values_that_they_have_alone(files: Files, indexed: Indexed) -> None:
    good = set(files.good)
    pairs = [rows(indexed.folder / f"{name}.patchmine", good) for name in ("alone", "between")]
    compared = 0
    for left, right in zip(*pairs, strict=True):
        assert left == right, left[:2]
        compared += 1
    assert compared > 0
