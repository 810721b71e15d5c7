"""Spectra of planted pictures, and of gradients whose form is known."""

import numpy as np
import pytest
import torch
from torch import nn

from patchmine.errors import RequestError
from patchmine.networks.taps import survey
from patchmine.study.instruments.gradients import gradient_power, gradients, phases
from patchmine.study.instruments.spectra import STRIDES, mean_power, power, radial, slope, stride_energy, stride_share
from patchmine.units import Position


def noise(exponent, seed=0, side=224, around=3):
    """Noise with a power spectrum of frequency**exponent, cut out of a larger field: its edges do not meet."""
    large = side * around
    distance = np.hypot(np.fft.fftfreq(large)[:, None], np.fft.fftfreq(large)[None])
    distance[0, 0] = 1
    white = np.random.default_rng(seed).standard_normal((large, large))
    return np.fft.ifft2(np.fft.fft2(white) * distance ** (exponent / 2)).real[:side, :side]


def as_photograph(values):
    scaled = (values - values.min()) / np.ptp(values) * 255
    return np.repeat(scaled.round().astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("exponent", [0, -1, -2, -3])
def test_the_slope_of_planted_noise_is_found_within_its_error(exponent):
    found = [slope(power(noise(exponent, seed))) for seed in range(12)]
    off = np.array([one.value - exponent for one in found]) / [one.error for one in found]
    assert np.abs(off).max() < 3.5
    assert 0.4 < np.sqrt((off**2).mean()) < 1.6
    assert all(0.03 < one.error < 0.2 for one in found)
    together = slope(mean_power(noise(exponent, seed) for seed in range(12)), pictures=12)
    assert together.error < 0.06
    assert together.value == pytest.approx(exponent, abs=4 * together.error)


def test_photographs_of_eight_bits_have_the_same_slope():
    found = slope(power(as_photograph(noise(-2))))
    assert found.value == pytest.approx(-2, abs=3 * found.error)
    assert (found.low, found.high) == (4 / 224, 0.4)


def test_without_a_window_edges_leak():
    steep = noise(-4, seed=1)
    assert slope(power(steep)).value == pytest.approx(-4, abs=0.4)
    assert slope(power(steep, "none")).value > -3.3
    on_torus = noise(-4, seed=1, around=1)  # has no edges
    assert slope(power(on_torus, "none"), window="none").value == pytest.approx(-4, abs=0.2)


def test_power_is_the_variance_of_white_noise_and_finds_a_wave():
    white = np.random.default_rng(0).normal(5, 3, (96, 128))
    for window in ("hann", "none"):
        assert power(white, window).mean() == pytest.approx(9, rel=0.1)
    wave = np.sin(2 * np.pi * np.arange(128) / 8) * np.ones((96, 1))
    for window in ("hann", "none"):
        found = power(wave, window)
        assert np.unravel_index(found[:, :64].argmax(), (96, 64)) == (0, 16)
    rings = radial(power(wave))
    assert rings.frequency[rings.power.argmax()] == pytest.approx(1 / 8, abs=0.01)
    assert rings.frequency[-1] <= 0.5
    assert (np.diff(rings.frequency) > 0).all()


def stride_shares(picture):
    """Of one picture; not a number for strides that it is too small for."""
    enough = {stride: min(picture.shape[:2]) >= 5 * stride for stride in STRIDES}
    return {s: stride_share(power(picture, "hann", s), s) if enough[s] else float("nan") for s in STRIDES}


def checkerboard(period, side=320):
    half = np.arange(side) // (period // 2)
    return ((half[:, None] + half[None]) % 2).astype(float)


@pytest.mark.parametrize("exponent", [0, -2])
@pytest.mark.parametrize("period", [2, 4, 8, 16, 32])
def test_a_checkerboard_is_seen_at_its_own_stride_alone(period, exponent):
    plain = noise(exponent, side=320, around=1)
    marked = stride_shares(plain + 0.4 * np.ptp(plain) * checkerboard(period))
    before = stride_shares(plain)
    for stride in STRIDES:
        if stride == period:
            assert marked[stride] > 3
        else:
            # A square wave's law is not the noise's, so what is divided by changes a little.
            assert marked[stride] == pytest.approx(before[stride], rel=0.15), stride


def test_columns_alone_are_seen_too():
    plain = noise(-2, side=320)
    lines = np.ptp(plain) * (np.arange(320) % 8 == 0)
    assert stride_shares(plain + lines[None])[8] > 3
    assert stride_shares(plain + lines[:, None])[8] > 3


def test_noise_has_nothing_at_the_strides():
    found = [stride_shares(noise(-2, seed)) for seed in range(20)]
    for stride, scatter in zip(STRIDES, (0.51, 0.20, 0.11, 0.06, 0.03), strict=True):
        shares = np.array([one[stride] for one in found])
        assert shares.mean() == pytest.approx(1, abs=4 * scatter / np.sqrt(20))
        assert shares.std() == pytest.approx(scatter, rel=0.5)


def test_pictures_that_are_too_small_or_do_not_divide():
    shares = stride_shares(noise(-2, side=101))
    assert [stride for stride in STRIDES if np.isnan(shares[stride])] == [32]
    with pytest.raises(ValueError, match="no bins at multiples of 1/32"):
        stride_share(power(noise(-2, side=100)), 32)
    with pytest.raises(ValueError, match="smaller than 32"):
        power(np.zeros((31, 40)), multiple=32)
    with pytest.raises(ValueError, match="not finite"):
        power(np.full((8, 8), np.nan))
    with pytest.raises(ValueError, match="four rings"):
        slope(power(np.ones((64, 64))))
    with pytest.raises(ValueError, match="one size"):
        mean_power([np.zeros((8, 8)), np.zeros((9, 8))])


def strided(first):
    """A first layer with a stride of 2, and one that looks at 25x25 of its cells with a smooth window."""
    smooth = nn.Conv2d(3, 1, 25, padding=12, bias=False)
    bump = torch.hann_window(27, periodic=False)[1:-1]
    smooth.weight.data[:] = bump[:, None] * bump[None]
    return nn.Sequential(first, smooth).eval()


def test_a_gradient_is_the_kernel_where_there_is_nothing_else():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2))
    inputs = torch.randn(2, 3, 32, 32)
    (tap,) = survey(network, inputs, ["0"])
    found = gradients(network, tap, 3, Position(10, 20), inputs)
    assert found.shape == (2, 32, 32, 3)
    kernel = network[0].weight[3].detach().permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found[:, 8:13, 18:23], np.stack([kernel] * 2), rtol=1e-5)
    assert np.count_nonzero(found) == 2 * kernel.size
    assert network[0].weight.grad is None


def test_a_stride_that_skips_pixels_leaves_its_frequency_in_the_gradient_and_an_average_does_not():
    energy = {}
    inputs = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    skipping = nn.Conv2d(3, 3, 1, stride=2, bias=False)
    nn.init.dirac_(skipping.weight)
    for name, first in (("skipping", skipping), ("averaging", nn.AvgPool2d(2)), ("maximum", nn.MaxPool2d(2))):
        network = strided(first)
        (tap,) = survey(network, inputs, ["1"])
        spectrum = gradient_power(network, tap, 0, Position(16, 16), inputs)
        energy[name] = {stride: stride_energy(spectrum, stride) for stride in (2, 4, 8)}
        if first is skipping:  # a quarter of its energy is where it should be, at the mean
            assert stride_share(spectrum, 2) > 10
    assert energy["skipping"][2] > 0.7
    assert energy["averaging"][2] < 0.02
    assert energy["averaging"][2] < energy["maximum"][2] < 0.2  # one pixel of four, but not always the same one
    assert all(found[4] < 0.1 and found[8] < 0.25 for found in energy.values())


def test_the_phases_tell_how_often_a_pixel_is_taken():
    inputs = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    inputs[3] = 0
    skipping = nn.Conv2d(3, 3, 1, stride=2, bias=False)
    uneven = nn.Conv2d(3, 3, 3, stride=2, padding=1, groups=3, bias=False)  # middles once, sides twice, corners 4 times
    for layer in (skipping, uneven):
        layer.weight.data[:] = 1
    expected = {skipping: [[4, 0], [0, 0]], nn.AvgPool2d(2): 1, uneven: [[0.16, 0.64], [0.64, 2.56]]}
    for first, known in expected.items():
        network = strided(first)
        network[1].weight.data[:] = 1 / 625
        (tap,) = survey(network, inputs, ["1"])
        found = phases(gradients(network, tap, 0, Position(16, 16), inputs), 2)
        np.testing.assert_allclose(found, np.broadcast_to(known, (2, 2)), atol=0.12)
        assert found.mean() == pytest.approx(1)
    with pytest.raises(ValueError, match="64x64 pixels do not divide into cells of 5"):
        phases(np.ones((1, 64, 64, 3), np.float32), 5)
    with pytest.raises(ValueError, match="no input has a gradient"):
        phases(np.zeros((1, 64, 64, 3), np.float32), 2)


def test_the_energy_of_white_noise_at_a_stride_is_the_share_of_its_bins():
    white = np.random.default_rng(0).standard_normal((256, 256))
    for stride, frequencies in ((2, 3), (8, 48)):
        expected = frequencies * 9 / 256**2
        assert stride_energy(power(white), stride) == pytest.approx(expected, rel=0.5)
    assert np.isnan(stride_energy(power(white[:64, :64]), 16))


def test_a_unit_that_is_shut_has_no_gradient():
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())
    network[0].bias.data[:] = -100
    inputs = torch.randn(2, 3, 32, 32)
    (tap,) = survey(network, inputs, ["1"])
    assert not gradients(network, tap, 1, Position(4, 4), inputs).any()
    with pytest.raises(RequestError, match="1:1 at .* no gradient on any of 2 inputs"):
        gradient_power(network, tap, 1, Position(4, 4), inputs)
