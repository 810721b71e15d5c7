"""Whether the study is right where the truth is known.

    python scripts/check_why.py [--seeds 10] [--steps 64]

Studies hand-set networks (`patchmine.study.known`): a template that fits anywhere, one that fits only into the corners
that zero padding makes, and one that counts only in the middle of the canvas; with other noise each time. Prints how
many verdicts are right. Then counts planted peaks, 1 to 40 of them, under growing noise, and prints the share that is
counted exactly. Exits with 1 when a verdict is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from patchmine.fields.field import Preprocessing
from patchmine.study.instruments.peaks import peaks
from patchmine.study.known import FIELD, NATIVE, STRIDE, TRUTHS
from patchmine.study.settings import Settings
from patchmine.study.trials import Laboratory, Result, Subject, Trial, plan
from patchmine.study.verdicts import corners, pitch_or_count

PREPROCESSING = Preprocessing(NATIVE, (NATIVE, NATIVE), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def study(name: str, seed: int, steps: int, folder: Path) -> tuple[str, str, str]:
    """The words of both verdicts, and the numbers behind them."""
    module = TRUTHS[name][0]().eval()
    subject = Subject(module, "unit", 0, PREPROCESSING, NATIVE, STRIDE, FIELD, name, (FIELD // 2,) * 2)
    laboratory = Laboratory(subject, Settings(steps=steps, seed=seed), folder)
    trials = [trial for trial in plan(subject) if trial.objective == "channel" and trial.method == "fourier"]
    trials = [trial for trial in trials if trial.padding != "reflect"]
    results: dict[Trial, Result] = {trial: laboratory.result(trial) for trial in trials}
    grows, border = pitch_or_count(results, subject), corners(results, subject)
    return grows.word, border.word, f"{grows.because}; {border.because}"


def planted(count: int, noise: float, generator: np.random.Generator, side: int = 64) -> np.ndarray:
    """A map with so many bumps of 0.8 to 1, no two closer than 7 cells, and normal noise."""
    places = np.zeros((0, 2), int)
    while len(places) < count:
        place = generator.integers(3, side - 3, 2)
        if not len(places) or np.hypot(*(places - place).T).min() >= 7:
            places = np.vstack([places, place])
    ys, xs = np.mgrid[:side, :side]
    found = sum(generator.uniform(0.8, 1) * np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / (2 * 1.5**2)) for y, x in places)
    return (found + noise * generator.standard_normal((side, side))).astype(np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--show", action="store_true", help="the numbers of every study")
    options = parser.parse_args()
    wrong = 0
    for name, (_, growth, border) in TRUTHS.items():
        right = [0, 0]
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                found = study(name, seed, options.steps, Path(folder))
            right[0] += found[0] == growth
            right[1] += border is None or found[1] == border
            if options.show:
                print(f"  {name}, seed {seed}: {found}", flush=True)
        said = f"{right[0]} of {options.seeds} right on pitch or count ({growth})"
        if border is not None:
            said += f", {right[1]} on corners ({border})"
        print(f"{name}: {said}", flush=True)
        wrong += 2 * options.seeds - sum(right)
    generator = np.random.default_rng(0)
    for noise in (0.0, 0.05, 0.1, 0.12, 0.15, 0.2):
        exact = [len(peaks(planted(count, noise, generator), 4)) == count for count in range(1, 41)]
        print(f"planted peaks, 1 to 40, noise {noise:.2f} of a peak: {np.mean(exact):.0%} counted exactly")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
