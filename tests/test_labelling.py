"""Labels by evidence, on tables whose truth is known."""

import numpy as np
import pytest

from patchmine.labels.evidence import ALPHA, LEAST, Labels, Separation, label_units, lower_bound
from patchmine.labels.imagenet import imagenet_wnids
from patchmine.labels.wordnet import ancestors, word

FISH, DOGS = imagenet_wnids()[:6], imagenet_wnids()[151:175]


def slow_auroc(values, inside):
    pairs = [(a > b) + 0.5 * (a == b) for a in values[inside] for b in values[~inside]]
    return np.mean(pairs)


def drawn(images, seed=0):
    return np.random.default_rng(seed).normal(size=images).astype(np.float32)


def labeled(column, codes, classes):
    found = label_units([column[:, None]], codes, Labels.of_classes(classes))
    row = int(found.label[0])
    return (found.keys[row] if row >= 0 else None), float(found.auroc[0])


@pytest.mark.parametrize("values", [drawn(60), drawn(60).round(), np.maximum(drawn(60), 1), np.zeros(60, np.float32)])
def test_areas_count_ties_half(values):
    codes = np.arange(60) % 3
    labels = Labels.of_classes(["a", "b", "c"])
    found = Separation.of(values, codes, labels)
    assert found.auroc == pytest.approx([slow_auroc(values, codes == code) for code in range(3)], abs=1e-12)


def test_a_unit_gets_the_class_that_it_separates():
    values, codes = drawn(400), np.arange(400) % 8
    values[codes == 5] += 3
    key, auroc = labeled(values, codes, list("abcdefgh"))
    assert key == "f"
    assert auroc == pytest.approx(slow_auroc(values, codes == 5), abs=1e-6)


def test_one_lucky_photograph_names_nothing():
    codes = np.r_[np.zeros(400, int), 1]
    values = drawn(401)
    values[-1] = 100
    assert labeled(values, codes, ["many", "one"])[0] is None
    assert LEAST > 1


def test_few_photographs_above_all_others_are_believed_within_bounds():
    assert lower_bound(np.array([1.0]), np.array([5.0]), np.array([795.0]))[0] == pytest.approx(0.752, abs=0.001)
    more = lower_bound(np.ones(4), np.array([5.0, 10, 100, 1000]), np.full(4, 795.0))
    assert (np.diff(more) > 0).all()


def test_a_unit_for_all_fish_gets_the_noun_and_one_for_a_fish_the_class():
    classes = sorted({*FISH, *DOGS})
    codes = np.repeat(np.arange(len(classes)), 20)
    fish = np.isin(codes, [classes.index(name) for name in FISH])
    values = drawn(len(codes))
    key, _ = labeled(values + 4 * fish, codes, classes)
    assert word(key) == "fish"
    key, _ = labeled(values + 6 * (codes == classes.index(FISH[1])), codes, classes)
    assert word(key) == "goldfish"


def test_nouns_above_the_same_classes_are_tried_once_and_the_most_specific_stands():
    labels = Labels.of_classes(["n01443537", "other"])
    assert labels.keys == ("n01443537", "other")
    assert "n01443537" not in ancestors("n01443537")
    assert len({row.tobytes() for row in Labels.of_classes(list(imagenet_wnids())).members}) == len(
        Labels.of_classes(list(imagenet_wnids())).keys
    )


def test_what_is_not_finite_or_has_no_class_takes_no_part():
    values, codes = drawn(400), np.arange(400) % 4
    values[codes == 1] += 3
    plain = labeled(values, codes, list("abcd"))
    more = np.r_[values, np.full(50, 100, np.float32), np.array([np.nan, np.inf, -np.inf], np.float32)]
    assert labeled(more, np.r_[codes, np.full(50, -1), 0, 0, 1], list("abcd")) == plain
    nothing = np.full(400, np.nan, np.float32)
    assert labeled(nothing, codes, list("abcd"))[0] is None
    assert labeled(np.ones(400, np.float32), codes, list("abcd"))[0] is None


def test_without_classes_or_with_a_single_one_there_is_no_label():
    assert labeled(drawn(50), np.full(50, -1), ["a"])[0] is None
    assert labeled(drawn(50), np.zeros(50, int), ["a"])[0] is None
    assert labeled(drawn(50), np.full(50, -1), [])[0] is None


@pytest.mark.parametrize("positive", [1.0, 0.5, 0.03])
def test_shuffled_classes_give_labels_less_often_than_stated(positive):
    """Also to units that are 0 nearly everywhere, to which a normal approximation gives far too many."""
    rng = np.random.default_rng(3)
    table = rng.normal(size=(300, 600)).astype(np.float32)
    table = np.where(table > np.quantile(table, 1 - positive, axis=0), table, 0)
    classes = [*imagenet_wnids()[:30]]
    found = label_units([table], rng.permutation(np.arange(300) % 30), Labels.of_classes(classes))
    assert (found.label >= 0).mean() <= ALPHA


def test_blocks_and_the_order_of_images_change_nothing():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(400, 20)).astype(np.float32)
    codes = np.arange(400) % 8
    table += (codes[:, None] == np.arange(20) % 8) * 2
    labels = Labels.of_classes(list("abcdefgh"))
    whole = label_units([table], codes, labels)
    parts = label_units([table[:, :7], table[:, 7:]], codes, labels)
    order = rng.permutation(400)
    mixed = label_units([table[order]], codes[order], labels)
    for other in (parts, mixed):
        assert other.label.tolist() == whole.label.tolist()
        assert other.auroc.tobytes() == whole.auroc.tobytes()
    assert (whole.label >= 0).all()


def test_words_are_distinct():
    keys = [*imagenet_wnids(), *set().union(*(ancestors(wnid) for wnid in imagenet_wnids()))]
    assert len({word(key) for key in keys}) == len(keys) == 1860
    assert word("n02012849") == "crane (wading bird)"
    assert word("n01484850") == "great white shark"
    assert word("my own class") == "my own class"
