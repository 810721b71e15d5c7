"""Asking an index: equal to a brute-force answer from the table, and boxes that hold what was drawn."""

import shutil

import numpy as np
import pytest

import patchmine
from patchmine.defaults import Wanted
from patchmine.errors import RequestError, SourceError, StoreError, UnitError
from patchmine.index import Cropping, find_index
from tests.conftest import SHAPES


def column(index, unit):
    return index.store.column(unit.unit.layer, unit.unit.channel)


def every_unit(index):
    return list(index.units())


def test_top_is_the_sorted_table(shapes_index):
    for unit in every_unit(shapes_index):
        values, places = column(shapes_index, unit)
        order = np.lexsort((np.arange(len(values)), -values))
        # Ten are kept; thirty come from the table, and the first ten of them must be the same.
        for k in (5, 10, 30, 1000):
            patches = unit.top(k)
            assert [patch.image_id for patch in patches] == order[:k].tolist()
            assert [patch.value for patch in patches] == values[order[:k]].tolist()
            width = shapes_index.field(unit.unit.layer).grid[1]
            assert [p.position.y * width + p.position.x for p in patches] == places[order[:k]].tolist()
            assert [patch.rank for patch in patches] == list(range(1, min(k, len(values)) + 1))


def test_bottom_random_and_quantile_come_from_the_table(shapes_index):
    unit = every_unit(shapes_index)[0]
    values, _ = column(shapes_index, unit)
    ascending = np.lexsort((np.arange(len(values)), values))
    assert [patch.image_id for patch in unit.top(7, "bottom")] == ascending[:7].tolist()
    first, again, other = (unit.top(7, "random", seed=seed) for seed in (1, 1, 2))
    assert [p.image_id for p in first] == [p.image_id for p in again] != [p.image_id for p in other]
    assert len({p.image_id for p in first}) == 7
    around = [patch.value for patch in unit.top(5, "quantile:0.5")]
    assert around == sorted(around, reverse=True)
    assert min(around) <= np.quantile(values, 0.5) <= max(around)
    assert [p.image_id for p in unit.top(5, "quantile:1")] == [p.image_id for p in unit.top(5)]


@pytest.mark.parametrize("pick", ["best", "quantile:2", "quantile:x", "quantile:nan", ""])
def test_an_unknown_pick_is_refused(shapes_index, pick):
    with pytest.raises(RequestError, match="choose from|is not a valid quantile"):
        every_unit(shapes_index)[0].top(5, pick)


def test_k_and_crop_are_checked(shapes_index):
    with pytest.raises(RequestError, match="-k must be at least 1, not 0"):
        every_unit(shapes_index)[0].top(0)
    with pytest.raises(RequestError, match="unknown --crop 'half'"):
        every_unit(shapes_index)[0].top(1, crop="half")


def test_the_crop_is_the_box_in_full_resolution(shapes_index):
    patch = every_unit(shapes_index)[0].top(1)[0]
    assert patch.crop().size == (patch.box.width, patch.box.height)
    assert patch._repr_png_().startswith(b"\x89PNG")
    assert "<figure" in patch._repr_html_()
    whole = every_unit(shapes_index)[0].top(1, crop="image")[0]
    assert whole.box.contains(patch.box)


def test_statistics_are_those_of_the_column(shapes_index):
    for unit in every_unit(shapes_index)[::5]:
        values, _ = column(shapes_index, unit)
        numbers = unit.statistics
        assert numbers.mean == pytest.approx(values.mean(), rel=1e-4, abs=1e-5)
        assert numbers.std == pytest.approx(values.std(), rel=1e-3, abs=1e-5)
        assert (numbers.minimum, numbers.maximum) == (values.min(), values.max())
        assert numbers.positive == pytest.approx((values > 0).mean())
        assert numbers.tied == (int((values == values.max()).sum()) if values.max() else 0)


def test_without_a_table_only_the_kept_can_be_asked(tmp_path):
    patchmine.build_index(SHAPES, tmp_path / "n.patchmine", Wanted(model="shapes", keep=10, table=False))
    unit = patchmine.open_index(tmp_path / "n.patchmine").units()[0]
    assert len(unit.top(10)) == 10
    for ask in (lambda: unit.top(11), lambda: unit.top(3, "bottom")):
        with pytest.raises(StoreError, match="--no-table and keeps only the top 10"):
            ask()


def test_units_by_layer_and_pattern(shapes_index):
    layers = shapes_index.layers
    first = next(iter(layers))
    assert len(list(shapes_index.units())) == sum(layers.values())
    assert len(list(shapes_index.units(first))) == layers[first]
    assert [str(u.unit) for u in shapes_index.units(match=f"{first}:1")] == [f"{first}:1"]
    with pytest.raises(UnitError, match="did you mean"):
        list(shapes_index.units(first + "x"))


def test_which_index_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PATCHMINE_INDEX", raising=False)
    with pytest.raises(StoreError, match=r"no \*\.patchmine in this folder"):
        find_index()
    (tmp_path / "a.patchmine").mkdir()
    assert find_index().name == "a.patchmine"
    (tmp_path / "b.patchmine").mkdir()
    with pytest.raises(StoreError, match=r"-i a\.patchmine or -i b\.patchmine"):
        find_index()
    monkeypatch.setenv("PATCHMINE_INDEX", "c.patchmine")
    assert find_index().name == "c.patchmine"
    assert find_index("d").name == "d"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda d: (d / "manifest.json").unlink(), "is not a patchmine index"),
        (lambda d: (d / "manifest.json").write_text("{"), "is damaged"),
        (lambda d: (d / "manifest.json").write_text('{"format": 99}'), "format 99"),
        (lambda d: (d / "activations.h5").unlink(), "is missing.*--fresh"),
        (lambda d: (d / "activations.h5").write_bytes(b"x" * 100), "is damaged.*--fresh"),
        (lambda d: shutil.rmtree(d), "does not exist; build it with"),
    ],
)
def test_a_broken_index_is_refused_with_the_way_to_mend_it(shapes_index_dir, tmp_path, spoil, reason):
    out = tmp_path / "broken.patchmine"
    shutil.copytree(shapes_index_dir, out)
    spoil(out)
    with pytest.raises(StoreError, match=reason):
        patchmine.open_index(out)


def test_photographs_that_moved_are_found_where_the_user_says(photographs, tmp_path):
    folder = tmp_path / "here"
    shutil.copytree(photographs, folder)
    out = tmp_path / "p.patchmine"
    patchmine.build_index(folder, out, model="shapes")
    folder.rename(tmp_path / "there")
    patch = patchmine.open_index(out).units()[0].top(1)[0]
    with pytest.raises(SourceError, match="add --source FOLDER"):
        patch.crop()
    moved = patchmine.open_index(out, tmp_path / "there").units()[0].top(1)[0]
    assert moved.crop().size == (patch.box.width, patch.box.height)


def test_the_network_of_an_index_is_loaded_once_for_all_questions(shapes_index, monkeypatch):
    from patchmine import models

    loaded, real = [], models.load_for_index

    def load(*words):
        loaded.append(words[1:])
        return real(*words)

    monkeypatch.setattr(models, "load_for_index", load)
    shapes_index.fires("000020.png", layer="thing", k=2)
    shapes_index.fires("000021.png", layer="thing", k=2)
    shapes_index.similar(image="000020.png", layer="shape", k=2)
    assert shapes_index.network() is shapes_index.network()
    assert loaded == [(None, None)]
    shapes_index.fires("000020.png", layer="thing", k=2, model="shapes")  # another word is looked at again
    shapes_index.fires("000021.png", layer="thing", k=2)
    assert loaded == [(None, None), ("shapes", None)]


def test_another_model_than_that_of_the_index_is_refused_also_once_a_network_is_loaded(shapes_index):
    shapes_index.fires("000020.png", layer="thing", k=2)
    with pytest.raises(StoreError, match="--model shapes"):
        shapes_index.fires("000020.png", layer="thing", k=2, model="efficientnet_lite0")
    assert len(shapes_index.fires("000020.png", layer="thing", k=2).units) == 2


@pytest.mark.parametrize(("crop", "share", "refusal"), [("half", 0.9, "unknown --crop"), ("erf", 0, "--share must be")])
def test_a_cropping_validates_itself(shapes_index, crop, share, refusal):
    with pytest.raises(RequestError, match=refusal):
        Cropping(crop, share)
    for question in (
        lambda: shapes_index.unit("thing:0").top(1, crop=crop, share=share),
        lambda: shapes_index.fires("000020.png", crop=crop, share=share),
        lambda: shapes_index.similar("thing:0", crop=crop, share=share),
        lambda: shapes_index.unit("thing:0").compare(crop=crop, share=share),
    ):
        with pytest.raises(RequestError, match=refusal):
            question()
