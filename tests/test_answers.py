"""Answers in Python: they print, go to pandas and Arrow under the names of the JSON, and show in a notebook."""

import json
import shutil
import sys
from dataclasses import replace

import pyarrow
import pytest

import patchmine
from patchmine.errors import PhotographError, RequestError
from patchmine.reading import answers
from patchmine.reading.answers import Patches
from patchmine.reading.tables import flat, html_table, to_arrow, to_pandas


@pytest.fixture
def asked(shapes_index):
    """An answer of each kind."""
    return {
        "top": shapes_index.unit("thing:0").top(5),
        "units": shapes_index.units("thing"),
        "similar": shapes_index.similar("thing:0", k=5),
        "fires": shapes_index.fires("000020.png", layer="thing", k=5),
    }


def of_json(name, answer, index):
    """The rows of the answer's JSON, flattened."""
    if name == "top":
        document = answer.as_dict()
        return [{**document["unit"], **flat(patch)} for patch in document["patches"]]
    if name == "units":
        return [{**unit, "marks": " ".join(unit["marks"])} for unit in answer.as_dict()["units"]]
    return [flat(row) for row in answer.as_dict()["patches" if name == "similar" else "units"]]


@pytest.mark.parametrize("name", ["top", "units", "similar", "fires"])
def test_columns_are_those_of_the_json(asked, shapes_index, name):
    answer = asked[name]
    rows = of_json(name, answer, shapes_index)
    assert set(answer.columns) == set(rows[0])
    assert answer.to_arrow().to_pylist() == [{column: row[column] for column in answer.columns} for row in rows]
    frame = answer.to_pandas()
    assert list(frame.columns) == list(answer.columns)
    words = {column for column, kind in answer.columns.items() if kind is str}
    for row, found in zip(rows, frame.to_dict("records"), strict=True):
        for column in answer.columns:
            missing = row[column] is None
            assert found[column] != found[column] or found[column] is None if missing else found[column] == row[column]
    for column in answer.columns.keys() - words:
        assert frame[column].dtype == ("int64" if answer.columns[column] is int else "float64")


def test_an_answer_without_rows_keeps_its_columns_and_kinds(shapes_index):
    units = shapes_index.units(match="nothing")
    assert repr(units) == "0 units"
    assert "<table" not in units._repr_html_()
    assert list(units.to_pandas().columns) == list(units.columns)
    assert units.to_pandas()["tied"].dtype == "int64"
    assert units.to_arrow().schema.field("label").type == pyarrow.string()
    assert repr(Patches([])) == "0 patches"


def test_without_pandas_it_says_what_to_install(shapes_index, monkeypatch):
    for package in ("pandas", "pyarrow"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RequestError, match=r"to_pandas\(\) needs pandas.*: pip install pandas$"):
        shapes_index.units().to_pandas()
    with pytest.raises(RequestError, match=r"to_arrow\(\) needs pyarrow.*: pip install pyarrow$"):
        shapes_index.unit("thing:0").top(1).to_arrow()


def test_a_path_that_is_no_utf8_goes_into_a_data_frame_as_the_json_writes_it():
    rows, columns = [{"image": "a\udcff.png"}], {"image": str}
    expected = json.dumps(rows[0]["image"]).strip('"')
    assert to_arrow(rows, columns)["image"][0].as_py() == expected
    assert to_pandas(rows, columns)["image"][0] == expected


def test_slices_are_answers_too(shapes_index):
    patches, units = shapes_index.unit("thing:0").top(5), shapes_index.units()
    assert patches[1:3].to_arrow()["rank"].to_pylist() == [2, 3]
    assert patches[1:3].to_arrow()["name"].to_pylist() == ["unit_0"] * 2
    assert [str(unit.unit) for unit in units[8:10]] == ["colour:0", "colour:1"]


def test_long_answers_are_printed_in_part(shapes_index, monkeypatch):
    lines = repr(shapes_index.units()).splitlines()
    assert lines[0] == "96 units"
    assert lines[-1] == "... and 71 more"
    assert len(lines) == 1 + 1 + 25 + 1
    assert "... and 71 more" in shapes_index.units()._repr_html_()
    assert len(repr(shapes_index.unit("thing:0").top(25)).splitlines()) == 1 + 1 + 25
    monkeypatch.setattr(answers, "PICTURED", 3)
    html = shapes_index.unit("thing:0").top(5)._repr_html_()
    assert html.count("<img") == 3
    assert "... and 2 more" in html


def test_nothing_from_a_file_gets_into_a_notebook_unescaped(shapes_index, shapes_index_dir, tmp_path):
    evil = "<b onmouseover=alert(1)>"
    assert "<b onmouse" not in html_table([(evil,)], [evil])
    patch = replace(shapes_index.unit("thing:0").top(1)[0], image=evil + '"', class_name=evil)
    assert "<b onmouse" not in patch._repr_html_()
    shutil.copytree(shapes_index_dir, tmp_path / "e.patchmine")
    names = {"format": 1, "given": {"thing:0": evil}, "auto": None}
    (tmp_path / "e.patchmine" / "names.json").write_text(json.dumps(names), "utf-8")
    index = patchmine.open_index(tmp_path / "e.patchmine")
    assert index.unit("thing:0").name == evil
    for shown in (index.units("thing"), index.unit("thing:0"), index.fires("000020.png", layer="thing")):
        assert "<b onmouse" not in shown._repr_html_()
        assert "&lt;b onmouse" in shown._repr_html_()


def test_a_photograph_that_has_gone_is_told_of_in_its_place(shapes_index):
    def gone():
        raise PhotographError("has <gone>")

    patches = shapes_index.unit("thing:0").top(3)
    html = Patches([patches[0], replace(patches[1], read=gone)])._repr_html_()
    assert html.count("<img") == 1
    assert "has &lt;gone&gt;" in html
    assert replace(patches[1], read=gone)._repr_png_() is None


def test_thumbnails_are_no_larger_than_a_notebook_shows(shapes_index):
    large = shapes_index.unit("thing:0").top(1, crop="image")[0]
    assert large.crop().height > 256
    assert len(large._repr_html_()) < 4 / 3 * len(large._repr_png_())
    assert "data:image/jpeg;base64," in large._repr_html_()
