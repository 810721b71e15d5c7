"""The sketch of many distributions: its error, its order-independence, and what it does with odd numbers."""

import numpy as np
import pytest

from patchmine.quantiles import BINS, ERROR, LARGEST, SMALLEST, Sketch

LEVELS = np.array([0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0])


def heavy(rng, images=40, units=12, cells=49):
    """Values whose spread differs from unit to unit by many orders of magnitude; some units are rectified."""
    values = rng.standard_normal((images, units, cells)) * np.exp(4 * rng.standard_normal((1, units, 1)))
    values[:, :3] = np.maximum(values[:, :3], 0)
    return values.astype(np.float32)


def sketched(*parts):
    sketch = Sketch(parts[0].shape[1])
    for part in parts:
        sketch.add(part)
    return sketch


def exact(values):
    return np.quantile(values.transpose(1, 0, 2).reshape(values.shape[1], -1).astype(np.float64), LEVELS, axis=1).T


@pytest.mark.parametrize("seed", range(5))
def test_a_quantile_is_off_by_no_more_than_the_width_of_a_bin(seed):
    values = heavy(np.random.default_rng(seed))
    truth, found = exact(values), sketched(values).quantiles(LEVELS)
    # Between two ranks numpy mixes two values, each with an error of its own.
    sides = np.abs(np.sort(values.transpose(1, 0, 2).reshape(values.shape[1], -1), axis=1))
    ranks = LEVELS * (sides.shape[1] - 1)
    size = np.maximum(sides[:, np.floor(ranks).astype(int)], sides[:, np.ceil(ranks).astype(int)])
    assert (np.abs(found - truth) <= np.maximum(ERROR * size, SMALLEST)).all()


def test_the_ends_are_exact():
    values = heavy(np.random.default_rng(1))
    found = sketched(values).quantiles(np.array([0.0, 1.0]))
    assert (found[:, 0] >= values.min((0, 2))).all()
    assert (found[:, 1] <= values.max((0, 2))).all()
    assert np.allclose(found[:, 1], values.max((0, 2)), rtol=ERROR)


def test_parts_in_any_order_and_merged_sketches_are_equal():
    rng = np.random.default_rng(2)
    parts = [heavy(rng, images) for images in (1, 7, 30)]
    whole = sketched(*parts)
    merged = sketched(parts[2])
    merged.merge(sketched(parts[1], parts[0]))
    assert np.array_equal(whole.counts, merged.counts)
    assert np.array_equal(whole.quantiles(LEVELS), merged.quantiles(LEVELS))


def test_values_that_are_not_finite_do_not_count():
    values = heavy(np.random.default_rng(3))
    spoilt = np.concatenate([values, np.full((2, 12, 49), np.nan, np.float32)])
    spoilt[-1] = np.inf
    assert np.array_equal(sketched(values).quantiles(LEVELS), sketched(spoilt).quantiles(LEVELS))
    assert np.isnan(sketched(spoilt[-2:]).quantiles(LEVELS)).all()


def test_values_outside_the_bins_stay_in_the_range_of_the_data():
    values = np.array([[[-3 * LARGEST, 0.0, SMALLEST / 4, 3 * LARGEST]]], np.float32)
    found = sketched(values).quantiles(LEVELS)
    assert found.min() >= -3 * LARGEST
    assert found.max() <= 3 * LARGEST
    assert abs(found[0, 3]) <= SMALLEST


def test_the_size_does_not_depend_on_the_number_of_values():
    sketch = sketched(heavy(np.random.default_rng(4), images=200))
    assert sketch.counts.shape == (12, BINS)
    assert sketch.counts.nbytes < 66_000 * 12
