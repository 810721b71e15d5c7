"""What `top --diverse` leaves of copies, and what the other picks and filters cost.

    python scripts/check_picks.py PHOTOGRAPHS [--units 60] [--seed 0] [--layers PATTERN]

Every tenth photograph gets a copy beside it: encoded again, at 60 % of its size, or mirrored. For random units, counts
the photographs that the top 25 show twice, plain and diverse. Then every pick and a class filter is asked for, compared
with the answer that the table gives by sorting it, and timed against the plain top of the same units, in turns.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from PIL import Image, ImageOps

from patchmine import build_index, open_index
from patchmine.photographs.upright import upright
from patchmine.reading.opened import Index
from patchmine.sources import open_source

K = 25
QUESTIONS: dict[str, dict[str, str]] = {
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


def expected(index: Index, unit: str, question: str) -> list[int] | None:
    """The answer by sorting; None for a random choice."""
    found = index.unit(unit).unit
    values, _ = index.store.column(found.layer, found.channel)
    ids = range(len(values))
    if "animal" in question:
        from patchmine.labels.wordnet import ancestors

        animals = {image for image in ids if "n00015388" in ancestors(index.store.image(image).class_name or "")}
        ids = [image for image in ids if (image in animals) == (question == "--class animal")]  # type: ignore[assignment]
    ranked = sorted(ids, key=lambda image: (-values[image], image))
    if question == "bottom":
        return sorted(ids, key=lambda image: (values[image], image))[:K]
    if question.startswith("quantile"):
        middle = round(0.1 * (len(ranked) - 1))
        start = min(max(0, middle - K // 2), max(0, len(ranked) - K))
        return ranked[start : start + K]
    if question == "spectrum":
        return [ranked[round(i * (len(ranked) - 1) / (K - 1))] for i in range(K)]
    return None if question == "random" else ranked[:K]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--units", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", action="append", default=[])
    options = parser.parse_args()
    rng, wrong = random.Random(options.seed), 0
    source = open_source(str(options.folder))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photographs"
        folder.mkdir()
        for number, entry in enumerate(source.entries()):
            name = entry.path.replace("/", "-")
            data = source.read(entry.path)
            (folder / name).write_bytes(data)
            if number % 10 == 0:
                (folder / f"copy-{Path(name).stem}{Path(name).suffix}").write_bytes(copied(upright(data), rng))
        build_index(folder, Path(temporary) / "copies.patchmine", layers=tuple(options.layers))
        index = open_index(Path(temporary) / "copies.patchmine")
        units = [str(unit.unit) for unit in rng.sample(list(index.units()), options.units)]
        left = {
            diverse: [twice([p.image for p in index.unit(unit).top(K, diverse=diverse)]) for unit in units]
            for diverse in (False, True)
        }
        for diverse, counts in left.items():
            print(
                f"{'diverse' if diverse else 'plain'}: {sum(counts)} copies in the top {K} of {len(units)} units, "
                f"{max(counts)} in the worst"
            )

        build_index(options.folder, Path(temporary) / "whole.patchmine", layers=tuple(options.layers))
        index = open_index(Path(temporary) / "whole.patchmine")
        seconds: dict[str, list[float]] = {question: [] for question in QUESTIONS}
        for unit in units:
            for question, words in QUESTIONS.items():
                start = time.perf_counter()
                patches = open_index(index.directory).unit(unit).top(K, **words)  # type: ignore[arg-type]
                seconds[question].append(time.perf_counter() - start)
                right = expected(index, unit, question)
                if right is not None and [p.image_id for p in patches] != right:
                    wrong += 1
                    print(f"WRONG: {question} of {unit}")
        for question, times in seconds.items():
            print(
                f"{question:20} {1000 * median(times):6.1f} ms, {median(times) / median(seconds['top']):.2f} of the top"
            )
    print(f"{wrong} answers differ from the table's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
