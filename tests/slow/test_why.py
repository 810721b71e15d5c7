"""The study gives the right verdict where the truth is known.

    python -m pytest tests/slow/test_why.py -m slow -s [--seeds 10] [--steps 64]

Studies the networks of `tests.support.planted`: a template that fits anywhere, one that fits only into the corners that
zero padding makes, and one that counts only in the middle of the canvas; with other noise each time. Then counts
planted peaks, 1 to 40 of them, under growing noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchmine.photographs.placement import Preprocessing
from patchmine.study.instruments.peaks import peaks
from patchmine.study.settings import Settings
from patchmine.study.trials import Laboratory, Result, Subject, Trial, plan
from patchmine.study.verdicts import Verdict, corners, pitch_or_count
from tests.support.planted import FIELD, NATIVE, STRIDE, TRUTHS

pytestmark = pytest.mark.slow

PREPROCESSING = Preprocessing(NATIVE, (NATIVE, NATIVE), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

NOISE = (0.0, 0.05, 0.1, 0.12, 0.15, 0.2)
"""In parts of a peak's height."""

EXACT_UP_TO = 0.1


def study(name: str, seed: int, steps: int, folder: Path) -> tuple[Verdict, Verdict]:
    """The verdicts on pitch or count, and on corners."""
    module = TRUTHS[name][0]().eval()
    subject = Subject(module, "unit", 0, PREPROCESSING, NATIVE, STRIDE, FIELD, name, (FIELD // 2,) * 2)
    laboratory = Laboratory(subject, Settings(steps=steps, seed=seed), folder)
    trials = [trial for trial in plan(subject) if trial.objective == "channel" and trial.method == "fourier"]
    trials = [trial for trial in trials if trial.padding != "reflect"]
    results: dict[Trial, Result] = {trial: laboratory.result(trial) for trial in trials}
    return pitch_or_count(results, subject), corners(results, subject)


@pytest.mark.parametrize("name", sorted(TRUTHS))
def test_every_verdict_is_right_where_the_truth_is_known(
    name: str, request: pytest.FixtureRequest, seed: int, tmp_path: Path
) -> None:
    _, growth, border = TRUTHS[name]
    steps = request.config.getoption("--steps") or Settings.steps
    for number in range(seed, seed + request.config.getoption("--seeds")):
        pitch, corner = study(name, number, steps, tmp_path / str(number))
        print(f"\n{name}, seed {number}: {pitch.word} ({pitch.because}); {corner.word} ({corner.because})", end="")
        assert pitch.word == growth, number
        if border is not None:
            assert corner.word == border, number


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


def test_planted_peaks_are_counted_exactly_up_to_a_tenth_of_noise() -> None:
    generator = np.random.default_rng(0)
    shares = {}
    for noise in NOISE:
        exact = [len(peaks(planted(count, noise, generator), 4)) == count for count in range(1, 41)]
        shares[noise] = float(np.mean(exact))
        print(f"\n1 to 40 planted peaks, noise {noise:.2f} of a peak: {shares[noise]:.0%} counted exactly", end="")
    assert all(share == 1 for noise, share in shares.items() if noise <= EXACT_UP_TO), shares
