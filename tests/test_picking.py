"""Which photographs answer: every pick and filter against a brute-force answer from the table, and copies left out."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

import patchmine
from patchmine.defaults import Wanted
from patchmine.errors import RequestError
from patchmine.labels.matching import classes_meant
from patchmine.photographs.likeness import likeness
from patchmine.reading.picks import medoids
from tests.conftest import jpeg

NAMES = ["n01443537", "n01440764", "n02012849", "n03126707", "bolt"]


def brute(index, unit, allowed=None):
    """(value, image) best first, by the plainest of ways."""
    values, _ = index.store.column(unit.layer, unit.channel)
    pairs = [(-value, image) for image, value in enumerate(values.tolist()) if allowed is None or allowed(image)]
    return [(-value, image) for value, image in sorted(pairs)]


@pytest.fixture(scope="module")
def index(photographs, tmp_path_factory):
    """The photographs in three classes, goldfish and tench among them."""
    directory = tmp_path_factory.mktemp("picking") / "p.patchmine"
    patchmine.build_index(photographs, directory, Wanted(model="shapes", keep=5))
    return patchmine.open_index(directory)


@pytest.mark.parametrize("channel", [0, 3])
@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, {"n01443537", "n01440764", "other"}),
        ({"of_class": "goldfish"}, {"n01443537"}),
        ({"of_class": "fish"}, {"n01443537", "n01440764"}),
        ({"not_class": "n02512053"}, {"other"}),
        ({"of_class": "Fish", "not_class": "tench"}, {"n01443537"}),
    ],
)
def test_classes_restrict_every_pick_and_the_ranking_is_that_of_the_table(index, channel, options, allowed):
    unit = index.unit(f"colour:{channel}")
    ranked = brute(index, unit.unit, lambda image: index.store.image(image).class_name in allowed)
    k, middle = 7, round(0.5 * (len(ranked) - 1))
    answers = {
        "top": ranked[:k],
        "bottom": sorted(ranked, key=lambda pair: (pair[0], pair[1]))[:k],
        "spectrum": [ranked[round(i * (len(ranked) - 1) / (k - 1))] for i in range(k)],
        "quantile:0.5": ranked[middle - 3 : middle + 4],
    }
    for pick, expected in answers.items():
        found = unit.top(k, pick, **options)
        assert [(p.value, p.image_id) for p in found] == expected, pick
    drawn = unit.top(k, "random", **options)
    assert {p.image_id for p in drawn} <= {image for _, image in ranked}
    assert [p.image_id for p in drawn] == [p.image_id for p in unit.top(k, "random", **options)]


def test_words_for_classes():
    assert classes_meant("crane", NAMES).tolist() == [False, False, True, True, False]
    assert classes_meant("n01440764", NAMES).tolist() == [False, True, False, False, False]
    assert classes_meant("animal", NAMES).tolist() == [True, True, True, False, False]
    assert classes_meant("bolt", NAMES).tolist() == [False, False, False, False, True]
    with pytest.raises(RequestError, match="no photograph of class 'goldfsh'; did you mean goldfish"):
        classes_meant("goldfsh", NAMES)
    with pytest.raises(RequestError, match="the index has none"):
        classes_meant("fish", [])


def test_diverse_leaves_one_of_each_class(index):
    patches = index.unit("colour:0").top(5, diverse=True)
    assert sorted(p.class_name for p in patches) == ["goldfish", "other", "tench"]
    first = {}
    for value, image in brute(index, patches[0].unit):
        first.setdefault(index.store.image(image).class_name, (value, image))
    assert [(p.value, p.image_id) for p in patches] == sorted(first.values(), key=lambda pair: (-pair[0], pair[1]))


def test_copies_are_recognized_and_others_are_not(photographs):
    pictures = [path.read_bytes() for path in sorted(photographs.rglob("*.*"))]
    for data in pictures:
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        width, height = picture.size
        small = picture.resize((width * 3 // 5, height * 3 // 5))
        copies = [jpeg(picture, quality=40), jpeg(small, quality=85), jpeg(ImageOps.mirror(picture), quality=90)]
        for copy in copies:
            assert likeness(data).nearly(likeness(copy))
    hashes = [likeness(data) for data in pictures]
    assert not any(a.nearly(b) for number, a in enumerate(hashes) for b in hashes[:number])


def test_diverse_leaves_copies_out_where_there_are_no_classes(photographs, tmp_path):
    folder = tmp_path / "copies"
    folder.mkdir()
    for number, path in enumerate(sorted(photographs.rglob("*.*"))):
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        (folder / f"{number:02}a.jpg").write_bytes(jpeg(picture, quality=95))
        (folder / f"{number:02}b.jpg").write_bytes(jpeg(ImageOps.mirror(picture), quality=60))
    patchmine.build_index(folder, tmp_path / "c.patchmine", Wanted(model="shapes"))
    unit = patchmine.open_index(tmp_path / "c.patchmine").unit("colour:0")
    plain, diverse = ([p.image[:2] for p in unit.top(20, diverse=choice)] for choice in (False, True))
    assert len(set(plain)) < 20
    assert len(set(diverse)) == len(diverse) == 20


def test_facets_are_the_middles_of_the_groups(index):
    rng = np.random.default_rng(0)
    centers = np.eye(3, 8)
    vectors = np.concatenate([center + 0.05 * rng.standard_normal((10, 8)) for center in centers])
    order = rng.permutation(30)
    chosen = medoids(vectors[order], 3)
    assert sorted(order[chosen] // 10) == [0, 1, 2]
    assert order[chosen[0]] // 10 == order[0] // 10
    for row in chosen:
        group = order // 10 == order[row] // 10
        middle = np.linalg.norm(vectors[order][group] - vectors[order][group].mean(0), axis=1)
        assert np.linalg.norm(vectors[order][row] - vectors[order][group].mean(0)) <= np.sort(middle)[3]
    top = {p.image_id for p in index.unit("thing:2").top(5)}
    facets = index.unit("thing:2").top(2, "facets")
    assert {p.image_id for p in facets} <= top
    assert len(facets) == 2


def test_the_command_understands_them(index, cli):
    words = ["top", "-i", index.directory, "--unit", "colour:0", "-k", 3]
    done = cli(*words, "--class", "fish", "--diverse")
    assert done.returncode == 0
    assert "goldfish" in done.stdout
    done = cli(*words, "--not-class", "fsh")
    assert done.returncode == 1
    assert "did you mean" in done.stderr
