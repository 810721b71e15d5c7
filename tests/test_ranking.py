import itertools

import numpy as np
import pytest

from patchmine.ranking import NO_IMAGE, Leaders, TopK, rank_column, sort_keys


def brute(values, positions, images, k):
    """The contract in plain Python: value descending, then image ascending; what is not finite never ranks."""
    ranked = sorted((-v, i, p) for v, i, p in zip(values, images, positions, strict=True) if np.isfinite(v))
    return [(-v, i, p) for v, i, p in ranked[:k]]


def listed(top, unit):
    filled = top.filled[unit]
    rows = zip(top.values[unit][filled], top.images[unit][filled], top.positions[unit][filled], strict=True)
    return [(float(v), int(i), int(p)) for v, i, p in rows]


@pytest.fixture
def stream():
    rng = np.random.default_rng(7)
    # Few distinct values, so that ties decide most places; one unit always negative, one with NaN and infinities.
    values = rng.integers(-3, 4, (90, 5)).astype(np.float32)
    values[:, 1] = -np.abs(values[:, 1]) - 1
    values[::7, 2] = np.nan
    values[1::7, 2] = np.inf
    values[:, 3] = rng.normal(size=90)
    values[::2, 4] = -0.0
    return values, rng.integers(0, 49, (90, 5)), np.arange(90)


@pytest.mark.parametrize("k", [1, 7, 200])
def test_of_batch_is_the_contract(stream, k):
    values, positions, images = stream
    top = TopK.of_batch(values, positions, images, k)
    for unit in range(5):
        assert listed(top, unit) == brute(values[:, unit], positions[:, unit], images, k)
        assert top.keys.shape == (5, k)


def test_any_order_of_merging_gives_the_same(stream):
    values, positions, images = stream
    whole = TopK.of_batch(values, positions, images, 10)
    parts = [TopK.of_batch(values[s::4], positions[s::4], images[s::4], 10) for s in range(4)]
    for order in itertools.permutations(range(4)):
        a, b, c, d = (parts[i] for i in order)
        for merged in (
            a.merge(b).merge(c).merge(d),
            a.merge(b.merge(c.merge(d))),
            a.merge(b).merge(c.merge(d)),
        ):
            assert np.array_equal(merged.keys, whole.keys)
            assert np.array_equal(merged.positions, whole.positions)


def test_empty_is_neutral_and_minus_infinity(stream):
    values, positions, images = stream
    top = TopK.of_batch(values, positions, images, 10)
    assert np.array_equal(TopK.empty(5, 10).merge(top).keys, top.keys)
    assert (TopK.empty(2, 3).values == -np.inf).all()
    assert (TopK.empty(2, 3).images == NO_IMAGE).all()


def test_a_unit_that_is_always_negative_has_a_top(stream):
    values, positions, images = stream
    assert (TopK.of_batch(values, positions, images, 10).values[1] < 0).all()


def test_keys_sort_as_the_contract_over_extreme_floats():
    values = np.array([3e38, 1.0, 1.0, 1e-45, 0.0, -0.0, -1e-45, -1.0, -3e38], np.float32)
    images = np.array([5, 1, 2, 0, 3, 4, 0, 0, 0])
    keys = sort_keys(values, images)
    assert (np.diff(keys.astype(object)) > 0).all()


def test_rank_column_descends_or_ascends_with_ties_by_image():
    values = np.array([2, 1, np.nan, 2, 0, -np.inf], np.float32)
    assert rank_column(values).tolist() == [0, 3, 1, 4]
    assert rank_column(values, descending=False).tolist() == [4, 1, 0, 3]


@pytest.mark.parametrize("k", [1, 7, 200])
def test_a_ranking_after_any_batches_is_that_of_all_at_once(stream, k):
    values, positions, images = stream
    top = TopK.empty(5, k)
    for part in np.array_split(np.random.default_rng(2).permutation(90), 11):
        top = top.with_batch(values[part], positions[part], images[part])
    whole = TopK.of_batch(values, positions, images, k)
    assert np.array_equal(top.keys, whole.keys)
    assert np.array_equal(top.positions, whole.positions)


@pytest.mark.parametrize("k", [1, 7, 200])
def test_leaders_are_those_of_the_ranking_after_any_batches(stream, k):
    values, positions, images = stream
    order = np.random.default_rng(1).permutation(90)
    leaders = Leaders.empty(5, k)
    for part in np.array_split(order, 11):
        leaders = leaders.with_batch(values[part], images[part])
    whole = TopK.of_batch(values, positions, images, k)
    assert np.array_equal(np.sort(leaders.keys, 1), whole.keys)
    for mine, theirs in zip(leaders.bound, (whole.values, whole.images), strict=True):
        assert np.array_equal(mine, theirs[:, -1])
    asked = np.array([3, 4, 9, 40, 88])
    expected = [[image in whole.images[unit][whole.filled[unit]] for unit in range(5)] for image in asked]
    assert leaders.among(asked).tolist() == expected
    assert leaders.among(asked[:0]).shape == (0, 5)
    assert not leaders.among(np.array([1000, 1001])).any()
