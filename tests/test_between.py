"""`patchmine between`: right where it is known what became of each unit, and the same formulas written apart."""

import json
import math
import shutil

import numpy as np
import pytest

import patchmine
from patchmine.between.correlation import correlations
from patchmine.between.overlap import PERSISTENCE, overlap
from patchmine.between.shared import best, sides
from patchmine.sheets.layouts.between import between_page
from tests.conftest import SHAPES
from tests.support import colors
from tests.support.commands import failed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The indexes of a network before and after its training, on the same photographs."""
    folder = tmp_path_factory.mktemp("trained")
    for name in ("before", "after"):
        model = f"{colors.__file__}:{name}"
        patchmine.build_index(SHAPES, folder / f"{name}.patchmine", model=model, layers=["units"], keep=12)
    return folder


def opened(folder, *names):
    return [patchmine.open_index(folder / f"{name}.patchmine") for name in names]


@pytest.mark.parametrize("depth", [1, 2, 7, 25])
def test_the_overlap_is_that_of_the_definition(depth):
    rng = np.random.default_rng(depth)
    one, other = (rng.permutation(40)[:depth] for _ in range(2))
    agreed = [len({*one[:d].tolist()} & {*other[:d].tolist()}) / d for d in range(1, depth + 1)]
    p = PERSISTENCE
    expected = (1 - p) * sum(share * p**d for d, share in enumerate(agreed)) + agreed[-1] * p**depth
    assert overlap(one, other) == pytest.approx(expected)
    assert overlap(one, one) == pytest.approx(1)
    assert overlap(one, one + 40) == 0


def test_the_overlap_counts_the_first_ranks_most():
    ranking = np.arange(25)
    first, last = ranking.copy(), ranking.copy()
    first[0], last[-1] = 99, 99
    assert overlap(ranking, first) < overlap(ranking, last) < 1
    assert overlap(ranking, ranking[:0]) is None
    assert overlap(ranking, ranking[:9]) == pytest.approx(1)


def test_correlations_are_those_of_numpy_and_leave_out_what_is_not_finite():
    rng = np.random.default_rng(0)
    one, other = (rng.normal(5, 1, (9000, units)).astype(np.float32) for units in (3, 4))
    other[:, 0] = one[:, 2] * 2 - 1
    found = correlations(one, other)
    assert found == pytest.approx(np.corrcoef(one.T, other.T)[:3, 3:], abs=1e-6)
    assert found[2, 0] == pytest.approx(1, abs=1e-9)
    one[5:100, 1], other[50:200, 3], other[:, 1] = np.nan, np.inf, 7
    found = correlations(one, other)
    known = np.isfinite(one[:, 1]) & np.isfinite(other[:, 3])
    assert found[1, 3] == pytest.approx(np.corrcoef(one[known, 1], other[known, 3])[0, 1], abs=1e-6)
    assert np.isnan(found[:, 1]).all()


def test_an_index_is_the_same_as_itself(cli, shapes_index_dir):
    document = json.loads(cli("between", shapes_index_dir, shapes_index_dir, "--json").stdout)
    index = patchmine.open_index(shapes_index_dir)
    assert [entry["layer"] for entry in document["layers"]] == list(index.layers)
    for entry in document["layers"]:
        assert [unit["channel"] for unit in entry["units"]] == list(range(index.layers[entry["layer"]]))
        for unit in entry["units"]:
            dead = index.unit(patchmine.Unit(entry["layer"], unit["channel"])).statistics.dead
            assert unit["fate"] == ("dead" if dead else "kept")
            assert unit["overlap"] == 1.0
            varies = unit["correlation"] is not None
            if varies:
                assert unit["correlation"] == unit["partner"]["correlation"] == 1.0
                assert (unit["partner"]["layer"], unit["partner"]["channel"]) == (entry["layer"], unit["channel"])
            assert varies or dead


def fates(first, second):
    found = first.between(second, k=8)
    return {fate.unit.channel: (fate.fate, fate.partner and fate.partner.unit.channel) for fate in found.fates}, found


def test_what_became_of_each_unit_is_told(trained):
    before, after = opened(trained, "before", "after")
    told, found = fates(before, after)
    split = ("split", told[3][1])
    assert told == {0: ("kept", 0), 1: ("moved", 2), 2: ("moved", 1), 3: split, 4: ("moved", 3), 5: ("woke", None)}
    assert sorted(str(unit) for unit in found.fates[3].others) == ["units:4", "units:5"]
    told, found = fates(after, before)
    assert {channel: told[channel][0] for channel in range(6)} == {
        0: "kept",
        1: "moved",
        2: "moved",
        3: "moved",
        4: "merged",
        5: "died",
    }
    assert list(map(str, found.fates[4].others)) == ["units:5"]
    assert told[6] == ("lost", None) or told[6] == ("dead", None)
    assert 0 < found.chance["units"] < 0.9


def test_one_unit_and_one_layer_are_told_as_in_the_whole(trained, shapes_index):
    before, after = opened(trained, "before", "after")
    whole = before.between(after)
    assert before.between(after, unit="units:3").fates == [whole.fates[3]]
    everything = shapes_index.between(shapes_index)
    layer = shapes_index.between(shapes_index, layer="thing")
    assert layer.fates == list(everything.layers["thing"]) and layer.chance["thing"] == everything.chance["thing"]
    assert layer.to_pandas()["partner"][0] == "thing:0"


def test_photographs_that_only_one_index_has_are_left_out(cli, shapes_index_dir, tmp_path):
    patchmine.build_index("shapes:30", tmp_path / "few.patchmine", model="shapes", keep=10)
    done = cli("between", shapes_index_dir, "few.patchmine", "--layer", "thing", "--json")
    assert "48 photographs and few.patchmine 30: compared on the 30 that both have" in done.stderr
    document = json.loads(done.stdout)
    assert document["photographs"] == {"a": 48, "b": 30, "shared": 30}
    assert {unit["overlap"] for entry in document["layers"] for unit in entry["units"]} == {1.0}
    patchmine.build_index("shapes:30@1", tmp_path / "others.patchmine", model="shapes", keep=10)
    line = failed(cli("between", "few.patchmine", "others.patchmine"))
    assert "share 0 photographs, fewer than 50% of the 30 of the smaller one: index the same photographs" in line


def test_copies_of_a_photograph_meet_each_other(shapes_index, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(12):
        data = shapes_index.photograph(number)
        (folder / f"{number:02d}.png").write_bytes(data)
        if number < 3:
            (folder / f"z{number}.png").write_bytes(data)
    copies = patchmine.build_index(folder, tmp_path / "copies.patchmine", model="shapes")
    index = patchmine.open_index(copies.directory)
    one, other = sides(index, index)
    assert one.images.tolist() == other.images.tolist() == list(range(15))
    assert len(sides(shapes_index, index)[0].images) == 12


def test_without_a_table_rankings_are_compared_and_the_rest_is_lacking(cli, trained, tmp_path):
    model = f"{colors.__file__}:before"
    patchmine.build_index(SHAPES, tmp_path / "bare.patchmine", model=model, layers=["units"], keep=12, table=False)
    done = cli("between", "bare.patchmine", trained / "before.patchmine", "-k", 8, "--json")
    document = json.loads(done.stdout)
    assert document["lacking"] == "bare.patchmine was built with --no-table and keeps only its top patches"
    (entry,) = document["layers"]
    assert [unit["fate"] for unit in entry["units"]] == ["kept"] * 5 + ["dead"]
    assert all(unit["overlap"] == 1.0 for unit in entry["units"])
    assert {unit["correlation"] for unit in entry["units"]} == {unit["partner"] for unit in entry["units"]} == {None}


def test_the_text_counts_the_fates_of_each_layer_and_a_layer_lists_its_units(cli, trained):
    words = ("between", trained / "before.patchmine", trained / "after.patchmine", "-k", 8)
    head, header, row = cli(*words).stdout.splitlines()
    assert head.endswith("on 48 photographs, top 8")
    assert header.split()[-5:] == ["chance", "kept", "moved", "split", "woke"]
    assert row.split()[:2] == ["units", "6"] and row.split()[-4:] == ["1", "3", "1", "1"]
    lines = cli(*words, "--layer", "units").stdout.splitlines()
    assert len(lines) == 9 and "by chance the best partner reaches r = 0." in lines[-1]
    assert len(cli(*words, "--csv").stdout.splitlines()) == 7


def test_a_sheet_shows_one_unit_over_checkpoints(cli, trained, tmp_path):
    before, after = trained / "before.patchmine", trained / "after.patchmine"
    done = cli("between", before, after, before, "--unit", "units:1", "-k", 8, "-o", "rows.pdf", "--json")
    found = json.loads(done.stdout)["comparisons"]
    assert [each["layers"][0]["units"][0]["fate"] for each in found] == ["moved", "kept"]
    assert (tmp_path / "rows.pdf").stat().st_size > 5000
    assert "a sheet shows one unit: give --unit U" in failed(cli("between", before, after, "-o", "rows.pdf"))
    assert "--csv prints one table" in failed(cli("between", before, after, after, "--csv"))
    assert "the index has no layer 'unit'" in failed(cli("between", before, after, "--layer", "unit"))


def test_rows_show_shared_photographs_alone(trained, tmp_path):
    """Against counting by hand: the second index has a part of the photographs, and others that the first lacks."""
    first = patchmine.open_index(trained / "before.patchmine")
    kept = patchmine.open_index(trained / "after.patchmine")
    model = f"{colors.__file__}:after"
    folder = tmp_path / "photographs"
    folder.mkdir()
    for image in range(0, 48, 2):
        (folder / f"{image:02d}.png").write_bytes(kept.photograph(image))
    other = SHAPES + "@1"
    patchmine.build_index(other, tmp_path / "other", model=model, layers=["units"], keep=12)
    for image in range(20):
        (folder / f"x{image:02d}.png").write_bytes(patchmine.open_index(tmp_path / "other").photograph(image))
    patchmine.build_index(folder, tmp_path / "part.patchmine", model=model, layers=["units"], keep=12)
    second = patchmine.open_index(tmp_path / "part.patchmine")
    shared = {first.digest(image) for image in range(0, 48, 2)}
    for index in (first, second):
        unit = index.unit("units:1").unit
        values = index.store.column("units", 1)[0].tolist()
        mine = [
            image
            for image in sorted(range(len(values)), key=lambda image: -values[image])
            if index.digest(image) in shared
        ]
        found = best(index, unit, 9, shared)
        assert [patch.image_id for patch in found] == mine[:9]
        assert [patch.rank for patch in found] == list(range(1, 10))
    page = between_page([first.between(second, unit=first.unit("units:1").unit)])
    assert sum("among the 24 photographs that both" in text.text for text in page.texts) == 1


def test_a_damaged_second_index_is_refused_by_its_name(cli, shapes_index_dir, tmp_path):
    shutil.copytree(shapes_index_dir, tmp_path / "b.patchmine")
    (tmp_path / "b.patchmine/activations.h5").write_bytes(b"")
    assert "b.patchmine/activations.h5 is damaged" in failed(cli("between", shapes_index_dir, "b.patchmine"))
    assert "index 'gone' does not exist" in failed(cli("between", shapes_index_dir, "gone"))
    assert math.isclose(patchmine.open_index(shapes_index_dir).between(patchmine.open_index(shapes_index_dir)).k, 25)
