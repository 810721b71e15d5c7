"""`top --diverse` shows fewer copies, and every pick and class filter gives the answer of the sorted table.

    python -m pytest tests/slow/test_picks.py -m slow -s --photographs DIR [--units 60]

Every tenth photograph gets a copy beside it: encoded again, at 60 % of its size, or mirrored. For random units, counts
the photographs that the top 25 show twice, plain and diverse. Then asks for every pick and a class filter, compares
with the answer that sorting the table gives, and times each against the plain top of the same units, in turns.
"""

from __future__ import annotations

import io
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from PIL import Image, ImageOps

from patchmine import build_index, open_index
from patchmine.index import Index
from patchmine.labels.wordnet import ancestors
from patchmine.photographs.upright import upright
from patchmine.sources import open_source

pytestmark = pytest.mark.slow

K = 25
UNITS = 20
ANIMAL = "n00015388"
QUESTIONS: dict[str, dict[str, Any]] = {
    "top": {},
    "bottom": {"pick": "bottom"},
    "random": {"pick": "random"},
    "quantile:0.9": {"pick": "quantile:0.9"},
    "spectrum": {"pick": "spectrum"},
    "--class animal": {"of_class": "animal"},
    "--not-class animal": {"not_class": "animal"},
}


def copied(picture: Image.Image, rng: random.Random) -> bytes:
    how = rng.randrange(3)
    if how == 1:
        picture = picture.resize((picture.width * 3 // 5, picture.height * 3 // 5), Image.Resampling.BICUBIC)
    if how == 2:
        picture = ImageOps.mirror(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=(40, 85, 90)[how])
    return buffer.getvalue()


def twice(images: list[str]) -> int:
    """Photographs shown more than once, a copy being `copy-NAME` of NAME."""
    return sum(count - 1 for count in Counter(image.removeprefix("copy-") for image in images).values())


def expected(index: Index, unit: str, question: str) -> list[int]:
    """The answer by sorting."""
    found = index.unit(unit).unit
    values, _ = index.store.column(found.layer, found.channel)
    ids = list(range(len(values)))
    if "animal" in question:
        animals = {image for image in ids if ANIMAL in ancestors(index.store.image(image).class_name or "")}
        ids = [image for image in ids if (image in animals) == (question == "--class animal")]
    ranked = sorted(ids, key=lambda image: (-values[image], image))
    if question == "bottom":
        return sorted(ids, key=lambda image: (values[image], image))[:K]
    if question.startswith("quantile"):
        middle = round(0.1 * (len(ranked) - 1))
        start = min(max(0, middle - K // 2), max(0, len(ranked) - K))
        return ranked[start : start + K]
    if question == "spectrum":
        return [ranked[round(i * (len(ranked) - 1) / (K - 1))] for i in range(K)]
    return ranked[:K]


def drawn(index: Index, request: pytest.FixtureRequest, seed: int) -> list[str]:
    count = request.config.getoption("--units") or UNITS
    return [str(unit.unit) for unit in random.Random(seed).sample(list(index.units()), count)]


def test_a_diverse_top_shows_fewer_copies(
    photographs: Path, request: pytest.FixtureRequest, seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    source = open_source(str(photographs))
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, entry in enumerate(source.entries()):
        name = entry.path.replace("/", "-")
        data = source.read(entry.path)
        (folder / name).write_bytes(data)
        if number % 10 == 0:
            (folder / f"copy-{name}").write_bytes(copied(upright(data), rng))
    build_index(folder, tmp_path / "copies.patchmine")
    index = open_index(tmp_path / "copies.patchmine")
    units = drawn(index, request, seed)
    left = {}
    for diverse in (False, True):
        counts = [twice([p.image for p in index.unit(unit).top(K, diverse=diverse)]) for unit in units]
        left[diverse] = sum(counts)
        what = "diverse" if diverse else "plain"
        print(f"\n{what}: {sum(counts)} copies in the top {K} of {len(units)} units, at most {max(counts)}", end="")
    assert left[False] > 0
    assert left[True] < left[False] / 2


@dataclass
class Asked:
    """The ids that each question of each unit got and should have got, and the seconds of each answer."""

    index: Index
    answers: dict[str, list[tuple[list[int], list[int]]]]
    seconds: dict[str, list[float]]


@pytest.fixture(scope="module")
def asked(index: Index, request: pytest.FixtureRequest, seed: int) -> Asked:
    animals = any(ANIMAL in ancestors(record.class_name or "") for record in index.store.records())
    questions = {question: words for question, words in QUESTIONS.items() if animals or "animal" not in question}
    found = Asked(index, {question: [] for question in questions}, {question: [] for question in questions})
    for unit in drawn(index, request, seed):
        for question, words in questions.items():
            start = time.perf_counter()
            patches = open_index(index.directory).unit(unit).top(K, **words)
            found.seconds[question].append(time.perf_counter() - start)
            found.answers[question].append(([p.image_id for p in patches], expected(index, unit, question)))
    return found


@pytest.mark.parametrize("question", [question for question in QUESTIONS if question != "random"])
def test_every_answer_is_that_of_the_sorted_table(question: str, asked: Asked) -> None:
    if question not in asked.answers:
        pytest.skip("no photograph shows an animal: give --photographs DIR with folders such as n01443537")
    times, base = asked.seconds[question], median(asked.seconds["top"])
    print(f"\n{question}: {1000 * median(times):.1f} ms, {median(times) / base:.2f} of the top", end="")
    assert [got for got, _ in asked.answers[question]] == [right for _, right in asked.answers[question]]


def test_a_random_pick_shows_each_photograph_once(asked: Asked) -> None:
    for images, _ in asked.answers["random"]:
        assert len(set(images)) == len(images) == min(K, len(asked.index))
