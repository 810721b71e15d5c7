"""What several tests need: an index of drawn photographs whose truth is known, and ways to break things."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchmine
from patchmine.index import Index

SHAPES = "shapes:48"


@pytest.fixture(scope="session")
def shapes_index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 drawn photographs through the hand-set network, in four shards."""
    directory = tmp_path_factory.mktemp("indexes") / "shapes.patchmine"
    patchmine.build_index(SHAPES, directory, model="shapes", shard_size=12, keep=10)
    return directory


@pytest.fixture
def shapes_index(shapes_index_dir: Path) -> Index:
    return patchmine.open_index(shapes_index_dir)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 small JPEGs and PNGs in three classes, one of them EXIF-rotated, of several sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(24):
        target = folder / ("n01443537", "n01440764", "other")[number % 3] / f"{number:02d}"
        target.parent.mkdir(exist_ok=True)
        size = [(300, 260), (260, 340), (512, 300)][number % 3]
        coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        exif = Image.Exif()
        if number == 4:
            exif[0x0112] = 6
        if number % 4:
            picture.save(target.with_suffix(".jpg"), quality=90, exif=exif)
        else:
            picture.save(target.with_suffix(".png"), exif=exif)
    return folder


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in an empty folder."""

    def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "patchmine", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, **options)  # type: ignore[call-overload]

    return run


def jpeg(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()
