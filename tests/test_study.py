"""The parts of the study whose truth can be planted."""

import numpy as np
import pytest

from patchmine.study.instruments.alike import Alike, among, patches, responses
from patchmine.study.instruments.counting import exponent, ratio, student
from patchmine.study.instruments.peaks import peaks, period, scrambled


def planted(count, seed, side=64, noise=0.0, wraps=False, apart=8):
    """A map with so many bumps, no two closer than `apart` cells."""
    generator = np.random.default_rng(seed)
    places = []
    for _ in range(100_000):
        if len(places) == count:
            break
        place = generator.integers(0 if wraps else 3, side if wraps else side - 3, 2)
        away = np.abs(np.array(places).reshape(-1, 2) - place)
        away = np.minimum(away, side - away) if wraps else away
        if not len(places) or np.hypot(*away.T).min() >= apart:
            places.append(place)
    assert len(places) == count
    ys, xs = np.mgrid[:side, :side]
    found = np.zeros((side, side))
    for y, x in places:
        down, across = np.abs(ys - y), np.abs(xs - x)
        if wraps:
            down, across = np.minimum(down, side - down), np.minimum(across, side - across)
        found += generator.uniform(0.8, 1.0) * np.exp(-(down**2 + across**2) / (2 * 1.5**2))
    return (found + noise * generator.standard_normal(found.shape)).astype(np.float32), np.array(places)


@pytest.mark.parametrize("wraps", [False, True])
def test_planted_peaks_are_counted_and_found(wraps):
    for count in (*range(1, 21), 25, 30, 35, 40):
        for seed in range(3):
            found, places = planted(count, seed, noise=0.08, wraps=wraps, apart=7)
            seen = peaks(found, 4, wraps=wraps)
            assert len(seen) == count
            off = np.abs(seen.cells[:, None] - places[None])
            off = np.minimum(off, 64 - off) if wraps else off
            assert off.max(2).min(1).max() <= 1


def test_a_map_that_is_flat_negative_or_hardly_driven():
    assert len(peaks(np.full((5, 5), -1, np.float32), 1)) == 0
    assert len(peaks(np.ones((4, 4), np.float32), 9)) == 1  # a plateau is one place
    weak = np.zeros((9, 9), np.float32)
    weak[4, 4] = 1
    assert len(peaks(weak, 1, reference=1.9)) == 1
    assert len(peaks(weak, 1, reference=2.1)) == 0


def test_neighbors_across_the_seam_of_a_torus():
    seam = np.zeros((16, 16), np.float32)
    seam[0, 8], seam[15, 8] = 1.0, 0.9
    assert len(peaks(seam, 4, wraps=True)) == 1
    assert len(peaks(seam, 4)) == 2
    far = np.zeros((16, 16), np.float32)
    far[0, 0] = far[0, 12] = 1
    assert peaks(far, 2, wraps=True).nearest() == pytest.approx([4, 4])
    assert peaks(far, 2).nearest() == pytest.approx([12, 12])


def test_the_period_of_a_grating_and_of_noise():
    across = np.cos(2 * np.pi * np.arange(60) / 12)[None].repeat(60, 0)
    found = period(across, 5)
    assert abs(found.shift[1]) % 12 == 0 and found.strength == pytest.approx(1)
    noise = period(np.random.default_rng(0).standard_normal((60, 60)), 5)
    assert noise is None or noise.strength < 0.2
    assert period(np.ones((8, 8)), 1) is None


def test_scrambled_keeps_the_spectrum_and_nothing_else():
    generator = np.random.default_rng(0)
    lattice = np.zeros((40, 60), np.float32)
    lattice[5::10, 5::12] = 1
    noise = scrambled(lattice, generator)
    assert np.abs(np.fft.fft2(noise)) == pytest.approx(np.abs(np.fft.fft2(lattice)), abs=1e-3)
    assert not np.allclose(noise, lattice, atol=0.1)
    falling = np.exp(-np.arange(33) / 4) * np.exp(-np.abs(np.fft.fftfreq(64, 1 / 64)) / 4)[:, None]
    spacings = []
    for _ in range(20):  # what is noise already stays such noise
        blurred = np.fft.irfft2(np.fft.rfft2(generator.standard_normal((64, 64))) * falling).astype(np.float32)
        both = [peaks(one, 3, wraps=True).nearest() for one in (blurred, scrambled(blurred, generator))]
        spacings.append([one.mean() for one in both if len(one)])
    first, second = np.array([pair for pair in spacings if len(pair) == 2]).mean(0)
    assert second == pytest.approx(first, rel=0.1)


def test_likeness_of_patches():
    generator = np.random.default_rng(1)
    tile = generator.integers(0, 256, (16, 16, 3), np.uint8)
    same = np.tile(tile, (4, 4, 1))
    places = np.array([[8, 8], [8, 24], [40, 56], [0, 0]], float)
    assert among(patches(same, places[:3], 9)) == pytest.approx(1)
    assert abs(among(patches(generator.integers(0, 256, (64, 64, 3), np.uint8), places, 9))) < 0.2
    assert among(patches(same, places[:1], 9)) is None


def test_what_the_layer_makes_of_repeats():
    """Three places with one pattern of channels and one with another; channel 5 is the unit and counts for nothing."""
    generator = np.random.default_rng(2)
    center, one, other = generator.standard_normal((3, 40))
    vectors = center + np.stack([one, 2 * one, 3 * one, other])
    vectors[:, 5] = 1000
    found = responses(vectors, center, 5)
    assert found.shape == (4, 39)
    assert found[0] @ found[1] == pytest.approx(1)
    a, b = np.delete(one, 5), np.delete(other, 5)
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert found[0] @ found[3] == pytest.approx(cosine)
    assert among(found) == pytest.approx((3 + 3 * cosine) / 6)
    said = Alike.of([found[:3], found[:1]], [found], found[2:])
    assert said == Alike(pytest.approx(1), pytest.approx((3 + 3 * cosine) / 6), pytest.approx(cosine))
    assert said.excess == pytest.approx(1 - said.anywhere)
    assert Alike.of([found[:1]], [found], found[:0]).excess is None
    assert among(responses(vectors[:, :1], center[:1], 0)) is None  # a layer of one channel


def test_exponents_of_counts_whose_truth_is_known():
    areas = np.repeat([1.0, 2.0, 4.0, 9.0], 4)
    generator = np.random.default_rng(0)
    covered = 0
    for truth in (0.0, 0.5, 1.0):
        for _ in range(100):
            found = exponent(areas, generator.poisson(4 * areas**truth))
            covered += found.low <= truth <= found.high
    assert covered >= 0.9 * 300
    fixed = exponent(areas, [3] * 16)
    assert fixed.value == pytest.approx(0) and fixed.high < 0.3
    pitch = exponent(areas, (4 * areas).astype(int))
    assert pitch.value == pytest.approx(1) and pitch.low > 0.8
    assert exponent(areas, [0] * 16) is None and exponent([1, 1, 1], [1, 2, 3]) is None


def test_ratios_of_counts():
    same = ratio([6, 5, 7, 6], [6, 6, 5, 7])
    assert same.low < 1 < same.high and same.high < 2
    gone = ratio([0, 0, 0], [6, 6, 6])
    assert gone.high < 0.5
    assert ratio([0], [0]) is None and ratio([], [1]) is None


def test_student():
    for freedom, table in ((3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)):
        assert student(freedom) == pytest.approx(table, rel=0.01)
