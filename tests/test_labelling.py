"""Labels by evidence, on tables whose truth is known."""

from fractions import Fraction

import numpy as np
import pytest

from patchmine.labels.candidates import Labels
from patchmine.labels.evidence import ALPHA, Trial, auroc, label_units, least_hits, needed_hits, window
from patchmine.labels.imagenet import imagenet_wnids
from patchmine.labels.wordnet import ancestors, word
from tests.support.labels_anew import by_the_rule, photographs_by_label, slow_auroc, tail

FISH, DOGS = imagenet_wnids()[:6], imagenet_wnids()[151:175]
EVERY = sorted(imagenet_wnids())


def drawn(images, seed=0):
    return np.random.default_rng(seed).normal(size=images).astype(np.float32)


def labeled(column, codes, classes):
    """The key of one unit's label, and its numbers."""
    labels = Labels.of_classes(classes)
    found = label_units([column[:, None]], np.asarray(codes), labels)
    row = int(found.label[0])
    return (labels.keys[row] if row >= 0 else None), found


def same(one, other):
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in vars(one))


@pytest.mark.parametrize("count", [6, 9, 34, 40, 200, 5000, 50_000])
def test_the_window_grows_with_the_photographs_up_to_25(count):
    size = window(count)
    assert size == {6: 5, 9: 5, 34: 5, 40: 5, 200: 25, 5000: 25, 50_000: 25}[count]
    assert [window(few) for few in range(6)] == [0] * 6
    assert least_hits(size) == {5: 2, 25: 8}[size]
    assert least_hits(12) == 4


@pytest.mark.parametrize(("count", "size"), [(9, 5), (34, 5), (200, 25), (1000, 25)])
@pytest.mark.parametrize("alpha", [ALPHA, ALPHA / 100])
def test_the_hits_needed_are_those_of_the_hypergeometric_distribution(count, size, alpha):
    inside = np.arange(1, count)
    exact = Fraction(alpha)
    expected = [
        next((k for k in range(least_hits(size), size + 1) if tail(count, m, size, k) <= exact), size + 1)
        for m in inside.tolist()
    ]
    assert needed_hits(count, inside, size, alpha).tolist() == expected


def test_the_hits_needed_on_imagenet_are_those_of_the_study():
    """50,000 photographs of 1,000 classes: 8 for a class, more for broad nouns."""
    trial = Trial.of(Labels.of_classes(EVERY), np.full(1000, 50))
    need = dict(zip((trial.inside // 50).tolist(), trial.need[0].tolist(), strict=True))
    assert len(trial.rows) == 1391
    assert (need[1], need[20], need[118], need[398]) == (8, 8, 13, 22)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.1, 0.05, 0.02, 0.01])
def test_a_unit_of_half_to_a_hundredth_of_the_photographs_gets_their_class(share):
    images = 1000
    codes = np.where(np.arange(images) < share * images, 0, 1 + np.arange(images) % 7)
    values = drawn(images)
    values[codes == 0] += 4
    key, found = labeled(values, codes, list("abcdefgh"))
    assert key == "a"
    top = np.argsort(-values)[:25]
    assert found.hits[0] == (codes[top] == 0).sum()
    assert found.of[0] == 25
    assert found.lift[0] == pytest.approx(found.hits[0] / 25 / share)
    inside = frozenset(np.flatnonzero(codes == 0).tolist())
    assert found.auroc[0] == pytest.approx(slow_auroc(values, inside, range(images)), abs=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.1, 0.05, 0.02, 0.01])
def test_a_noun_on_half_to_a_hundredth_of_the_photographs_is_found(share):
    """2,000 photographs of 1,000 classes; the units fire for every class below one noun."""
    labels, codes = Labels.of_classes(EVERY), np.arange(2000) // 2
    sizes = np.where(labels.nouns & (labels.members.sum(axis=1) <= 500), labels.members.sum(axis=1), 0)
    noun = int(np.abs(sizes / 1000 - share).argmin())
    inside = labels.members[noun, codes]
    table = np.stack([drawn(2000, seed) + 4 * inside for seed in range(20)], axis=1)
    found = label_units([table], codes, labels)
    assert (found.label == noun).mean() >= 0.6  # or a label below it that all of the top 25 carry
    assert all(not (labels.members[row] & ~labels.members[noun]).any() for row in found.label)
    assert (found.hits >= 15).all()


def test_a_unit_for_all_fish_gets_the_noun_and_one_for_a_fish_the_class():
    classes = sorted({*FISH, *DOGS})
    codes = np.repeat(np.arange(len(classes)), 20)
    fish = np.isin(codes, [classes.index(name) for name in FISH])
    values = drawn(len(codes))
    assert word(labeled(values + 4 * fish, codes, classes)[0]) == "fish"
    assert word(labeled(values + 6 * (codes == classes.index(FISH[1])), codes, classes)[0]) == "goldfish"


def test_with_the_same_top_photographs_the_more_specific_label_is_chosen():
    """All 25 are goldfish; the other fish come next, so that the noun correlates better."""
    classes = sorted({*FISH, *DOGS})
    codes = np.repeat(np.arange(len(classes)), 30)
    goldfish, fish = codes == classes.index(FISH[1]), np.isin(codes, [classes.index(name) for name in FISH])
    values = np.where(goldfish, 3.1, np.where(fish, 3, 0)).astype(np.float32) + drawn(len(codes)) / 100
    trial = Trial.of(Labels.of_classes(classes), np.full(len(classes), 30))
    r = trial._correlations(values[None], codes)[0]
    keys = [word(Labels.of_classes(classes).keys[row]) for row in trial.rows]
    assert r[keys.index("fish")] > r[keys.index("goldfish")]
    assert word(labeled(values, codes, classes)[0]) == "goldfish"


def test_broad_nouns_are_not_tried_but_a_broad_class_is():
    classes = sorted({*FISH, *DOGS[:6]})
    counts = np.full(12, 20)
    labels = Labels.of_classes(classes)
    tried = {word(labels.keys[row]) for row in labels.tried(counts)}
    assert {"goldfish", "fish"} <= tried
    assert not {"animal", "vertebrate", "entity"} & tried
    two = Labels.of_classes(["a", "b"])
    assert two.tried(np.array([90, 10])).tolist() == [0, 1]
    assert two.tried(np.array([90, 4])).tolist() == []


def test_in_a_set_of_two_classes_each_unit_gets_its_own():
    values, codes = drawn(200), np.arange(200) % 2
    assert labeled(values + 3 * (codes == 1), codes, ["cat", "dog"])[0] == "dog"
    assert labeled(values + 3 * (codes == 0), codes, ["cat", "dog"])[0] == "cat"
    assert labeled(values, codes, ["cat", "dog"])[0] is None


def test_eight_of_the_25_are_needed():
    codes = np.arange(1000) // 10
    classes = [f"{number:03}" for number in range(100)]
    for hits, expected in ((7, None), (8, "005")):
        values = np.linspace(0, 1, 1000, dtype=np.float32)[np.random.default_rng(1).permutation(1000)]
        values[codes == 5] = 0
        values[50 : 50 + hits] += 5
        key, found = labeled(values, codes, classes)
        assert key == expected
        if key:
            assert (found.hits[0], found.of[0]) == (8, 25)


def test_one_lucky_photograph_names_nothing():
    codes = np.r_[np.zeros(400, int), 1]
    values = drawn(401)
    values[-1] = 100
    assert labeled(values, codes, ["many", "one"])[0] is None


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_dead_and_constant_units_have_no_label_with_images_sorted_by_class(classes):
    """The first 25 by their ids are all of the first class."""
    codes = np.repeat(np.arange(classes), 1000 // classes)
    names = [f"{number:03}" for number in range(classes)]
    for values in (np.zeros(1000), np.full(1000, -2.5), np.full(1000, 0.1)):
        key, found = labeled(values.astype(np.float32), codes, names)
        assert key is None
        assert found.common_hits[0] == pytest.approx(25 / classes)
    nearly = np.zeros(1000, np.float32)
    nearly[-3:] = 1
    assert labeled(nearly, codes, names)[0] is None


def test_ties_across_the_cut_count_by_their_share():
    """10 photographs of a class alone are positive; the other 15 places are drawn from 990 zeros."""
    codes = np.arange(1000) // 20
    values = np.zeros(1000, np.float32)
    values[:10] = 1
    key, found = labeled(values, codes, [f"{number:03}" for number in range(50)])
    assert key == "000"
    assert found.hits[0] == pytest.approx(10 + 15 / 990 * 10)
    saturated = np.where(codes == 3, 6, drawn(1000).clip(0, 3)).astype(np.float32)
    key, found = labeled(np.where(np.arange(1000) < 600, saturated, 0), codes, [f"{n:03}" for n in range(50)])
    assert (key, found.hits[0]) == ("003", 20)
    many = np.where(codes < 3, 6, 0).astype(np.float32)
    key, found = labeled(many, codes, [f"{number:03}" for number in range(50)])
    assert found.hits[0] == pytest.approx(25 / 3) or key is None


def test_a_tie_doubles_the_probability():
    classes = np.full(100, 10)
    trial = Trial.of(Labels.of_classes([f"{number:03}" for number in range(100)]), classes)
    assert (trial.need[1] >= trial.need[0]).all()
    few = Trial.of(Labels.of_classes(["a", "b"]), np.array([20, 100]))
    exact = [next(k for k in range(16) if tail(120, 20, 15, k) <= Fraction(ALPHA) / times) for times in (2, 4)]
    assert few.window == 15
    assert exact[0] < exact[1]
    assert [int(need[0]) for need in few.need] == exact


@pytest.mark.parametrize("count", [9, 34, 200])
def test_small_sets_are_judged_by_a_smaller_window(count):
    values, codes = drawn(count), np.arange(count) % 4
    key, found = labeled(values + 10 * (codes == 1), codes, list("abcd"))
    assert found.of[0] == window(count)
    assert key == {9: None, 34: "b", 200: "b"}[count]
    if key:
        assert found.hits[0] == found.of[0]
        assert found.lift[0] == pytest.approx(count / (codes == 1).sum())


def test_one_photograph_of_each_class_can_name_by_nouns_only():
    codes = np.arange(1000)
    labels = Labels.of_classes(EVERY)
    dogs = np.isin(EVERY, DOGS)
    key, found = labeled(drawn(1000) + 6 * dogs, codes, EVERY)
    assert key not in EVERY
    assert set(np.flatnonzero(labels.members[labels.keys.index(key)])) <= set(range(1000))
    assert found.hits[0] >= 8
    assert labeled(drawn(50), np.arange(50), [f"{number:02}" for number in range(50)])[0] is None


def test_without_classes_or_with_a_single_one_there_is_no_label():
    assert labeled(drawn(50), np.full(50, -1), ["a"])[0] is None
    assert labeled(drawn(50), np.zeros(50, int), ["a"])[0] is None
    key, found = labeled(drawn(50), np.full(50, -1), [])
    assert key is None
    assert (found.of[0], found.common[0]) == (0, -1)
    assert labeled(drawn(5), np.arange(5) % 2, ["a", "b"])[0] is None
    assert len(label_units([], np.zeros(0, int), Labels.of_classes([])).label) == 0


def test_what_is_not_finite_or_has_no_class_takes_no_part():
    values, codes = drawn(400), np.arange(400) % 4
    values[codes == 1] += 3
    key, plain = labeled(values, codes, list("abcd"))
    more = np.r_[values, np.full(50, 100, np.float32), np.array([np.nan, np.inf, -np.inf], np.float32)]
    other, found = labeled(more, np.r_[codes, np.full(50, -1), 0, 0, 1], list("abcd"))
    assert key == other == "b"
    assert same(found, plain)
    nothing = np.full(400, np.nan, np.float32)
    assert labeled(nothing, codes, list("abcd"))[0] is None


def test_a_unit_with_values_that_are_not_finite_changes_no_other_unit():
    codes = np.arange(400) % 4
    table = np.stack([drawn(400, seed) + 3 * (codes == seed) for seed in range(3)], axis=1)
    labels = Labels.of_classes(list("abcd"))
    plain = label_units([table], codes, labels)
    table[:350, 1] = np.nan
    found = label_units([table], codes, labels)
    assert found.label.tolist() == [plain.label[0], 1, plain.label[2]]
    assert found.of.tolist() == [25, 6, 25]
    assert found.hits.tolist()[::2] == plain.hits.tolist()[::2]


@pytest.mark.parametrize("positive", [1.0, 0.5, 0.03])
@pytest.mark.parametrize("classes", [2, 30, 300])
def test_shuffled_classes_give_labels_to_at_most_one_unit_in_a_hundred(positive, classes):
    """Also to units that are 0 nearly everywhere, and to units whose strongest photographs are alike."""
    rng = np.random.default_rng(3)
    table = rng.standard_t(3, size=(300, 1000)).astype(np.float32)
    table = np.where(table > np.quantile(table, 1 - positive, axis=0), table, 0)
    found = label_units([table], rng.permutation(np.arange(300) % classes), Labels.of_classes(EVERY[:classes]))
    assert (found.label >= 0).mean() <= ALPHA


@pytest.mark.parametrize(("images", "classes"), [(34, 2), (60, 12), (200, 40), (400, 40), (400, 10)])
@pytest.mark.parametrize("rounded", [False, True])
def test_labels_are_those_of_the_rule_written_anew(images, classes, rounded):
    rng = np.random.default_rng(images + classes)
    names = EVERY[100 : 100 + classes] if classes > 2 else ["a", "b"]
    codes = rng.integers(0, classes, images)
    labels = Labels.of_classes(names)
    rows = rng.integers(0, len(labels.keys), 24)
    strength = rng.uniform(0, 4, 24)
    table = rng.normal(size=(images, 24)) + strength * labels.members[rows][:, codes].T
    table = (np.maximum(table, 0).round() if rounded else table).astype(np.float32)
    table[rng.random(table.shape) < 0.003] = np.nan
    found = label_units([table], codes, labels)
    given = [names[code] for code in codes]
    carried = photographs_by_label(given)
    for unit in range(24):
        truth = by_the_rule(table[:, unit].tolist(), given)
        assert (found.label[unit] >= 0) == (truth is not None)
        if truth is not None and not truth.close:
            finite = frozenset(np.flatnonzero(np.isfinite(table[:, unit])).tolist())
            assert carried[labels.keys[found.label[unit]]] & finite == truth.label
            assert found.hits[unit] == np.float32(float(truth.hits))
            assert found.of[unit] == truth.of
            assert found.lift[unit] == pytest.approx(truth.lift, rel=1e-6)
            assert found.r[unit] == pytest.approx(truth.r, abs=1e-6)
            area = slow_auroc(table[:, unit].tolist(), truth.label, sorted(finite))
            assert found.auroc[unit] == pytest.approx(area, abs=1e-6)


def test_the_commonest_class_is_counted_in_the_window():
    values, codes = drawn(400), np.arange(400) % 8
    top = np.argsort(-values)[:25]
    _, found = labeled(values, codes, list("abcdefgh"))
    counts = np.bincount(codes[top], minlength=8)
    assert (found.common[0], found.common_hits[0]) == (counts.argmax(), counts.max())


@pytest.mark.parametrize("rounded", [False, True])
def test_blocks_and_the_order_of_images_change_nothing(rounded):
    rng = np.random.default_rng(0)
    codes = np.arange(400) % 8
    table = rng.normal(size=(400, 40)) + (codes[:, None] == np.arange(40) % 8) * 2
    table = (np.maximum(table, 0).round(1) if rounded else table).astype(np.float32)
    table[7, 3] = np.nan
    labels = Labels.of_classes(list("abcdefgh"))
    whole = label_units([table], codes, labels)
    assert same(label_units([table[:, :7], table[:, 7:]], codes, labels), whole)
    for _ in range(5):
        order = rng.permutation(400)
        assert same(label_units([table[order]], codes[order], labels), whole)
    assert (whole.label >= 0).mean() > 0.9


@pytest.mark.parametrize("values", [drawn(60), drawn(60).round(), np.maximum(drawn(60), 1), np.zeros(60, np.float32)])
def test_areas_count_ties_half(values):
    inside = np.arange(60) % 3 == 1
    truth = slow_auroc(values, frozenset(np.flatnonzero(inside).tolist()), range(60))
    assert auroc(values, inside) == pytest.approx(truth, abs=1e-12)


def test_nouns_above_the_same_classes_are_tried_once_and_the_most_specific_stands():
    labels = Labels.of_classes(["n01443537", "other"])
    assert labels.keys == ("n01443537", "other")
    assert "n01443537" not in ancestors("n01443537")
    every = Labels.of_classes(list(imagenet_wnids()))
    assert len({row.tobytes() for row in every.members}) == len(every.keys)
    without = np.r_[np.full(500, 20), np.zeros(500, int)]
    rows = every.tried(without)
    assert len({every.members[row, :500].tobytes() for row in rows}) == len(rows)


def test_words_are_distinct():
    keys = [*imagenet_wnids(), *set().union(*(ancestors(wnid) for wnid in imagenet_wnids()))]
    assert len({word(key) for key in keys}) == len(keys) == 1860
    assert word("n02012849") == "crane (wading bird)"
    assert word("n01484850") == "great white shark"
    assert word("my own class") == "my own class"
