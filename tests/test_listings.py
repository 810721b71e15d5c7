"""Lists of photographs: what a line means, repeats, and what is read although it is nobody's business."""

import os
from pathlib import Path

import pytest
from PIL import Image

from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, open_source
from tests.conftest import jpeg

PHOTOGRAPH = jpeg(Image.new("RGB", (8, 8)))


@pytest.fixture
def listing(tmp_path):
    """Write a list into a folder with two photographs."""
    for name in ("a.jpg", "b c.jpg", "outside/d.jpg"):
        path = tmp_path / "lists" / ".." / name if "/" in name else tmp_path / "lists" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTOGRAPH)

    def write(text, name="photographs.txt"):
        file = tmp_path / "lists" / name
        file.write_bytes(text if isinstance(text, bytes) else os.fsencode(text))
        return open_source(str(file))

    (tmp_path / "lists").mkdir(exist_ok=True)
    return write


def test_a_line_is_a_path_from_the_lists_own_folder(listing, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    absolute = str(tmp_path / "outside" / "d.jpg")
    lines = ["\ufeff# mine", "b c.jpg\r", "", "  ", "a.jpg", "gone.jpg", "../outside/d.jpg", absolute, "a.jpg"]
    source = listing("\n".join(lines))
    expected = sorted(["a.jpg", "a.jpg", "b c.jpg", "gone.jpg", "../outside/d.jpg", absolute])
    assert source.entries() == [Entry(path, None) for path in expected]
    assert all(source.read(path) == PHOTOGRAPH for path in expected if path != "gone.jpg")
    with pytest.raises(PhotographError, match="no such file"):
        source.read("gone.jpg")
    assert source.name == "photographs"


def test_a_csv_says_classes(listing):
    source = listing('\ufeffid,class,path\r\n1,dog,a.jpg\r\n\r\n2,,"b c.jpg"\r\n3,"x,y",a.jpg\r\n', "p.CSV")
    assert source.entries() == [Entry("a.jpg", "dog"), Entry("a.jpg", "x,y"), Entry("b c.jpg", None)]
    assert listing("path\na.jpg\n", "p.csv").entries() == [Entry("a.jpg", None)]


def refused(source, answer):
    """The source is refused in one line that says the answer."""
    with pytest.raises(SourceError) as caught:
        source.entries()
    assert answer.format(file=repr(source.spec)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "has no column 'path': write path or path,class"),
        ("a.jpg,dog\n", "has no column 'path'"),
        ("id;class\n1;dog\n", "has no column 'path'"),
        ("path,class\na.jpg,dog\nb.jpg\n", "line 3 of {file} has 1 values for 2 columns"),
        ("path,class\na.jpg,dog,cat\n", "line 2 of {file} has 3 values for 2 columns"),
        ("path,class\n,dog\n", "line 2 of {file} has no path"),
        ('path\n"a.jpg\n', "line 2 of {file} is not valid CSV"),
        ("path\n" + "x" * 200_000, "line 2 of {file} is not valid CSV"),
        ("path,class\n", "{file} lists no photographs"),
        ("path\na\0.jpg\n", "line 2 of {file} is not UTF-8 text"),
    ],
)
def test_a_bad_row_is_refused_by_its_line(listing, text, answer):
    refused(listing(text, "p.csv"), answer)


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("path;class\na.jpg;dog\n", "p.csv", ()),
        ("path,Class\na.jpg,dog\n", "p.csv", ("the classes are those of the column 'Class'",)),
        ("label,file_name\ndog,a.jpg\n", "p.csv", ("the classes are those of the column 'label'",)),
        ("image\tclass-name\na.jpg\tdog\n", "p.tsv", ("the classes are those of the column 'class-name'",)),
        ('{"file_name": "a.jpg", "label": "dog"}\n', "p.jsonl", ("the classes are those of the column 'label'",)),
        ("a.jpg dog\n", "p.txt", ("each line of 'p.txt' is taken for a path and its class",)),
    ],
)
def test_classes_are_taken_by_the_names_that_people_give_to_their_columns(listing, text, name, said):
    found = listing(text, name).listed()
    assert found.entries == [Entry("a.jpg", "dog")]
    assert found.notes == said


def test_a_column_that_may_hold_classes_is_named_if_none_is_taken(listing):
    found = listing("path,Species,id\na.jpg,oak,7\n", "p.csv").listed()
    assert found.entries == [Entry("a.jpg", None)]
    assert len(found.notes) == 1
    assert "no column of 'p.csv' is called 'class'; if one of 'Species', 'id' holds classes" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"file_name": "a.jpg"}\n[1]\n', "line 2 of {file} is not a JSON object"),
        ('{"file_name": "a.jpg"}\n{"label": 1}\n', "line 2 of {file} has no path"),
        ('{"label": 1}\n', "has no column 'path'"),
        ("\n", "has no column 'path'"),
    ],
)
def test_bad_json_lines_are_refused_by_their_line(listing, text, answer):
    refused(listing(text, "p.jsonl"), answer)


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n"])
def test_an_empty_list_is_refused(listing, text):
    with pytest.raises(SourceError, match=r"photographs\.txt' lists no photographs"):
        listing(text).entries()


def test_a_list_in_another_encoding_is_refused(listing):
    with pytest.raises(SourceError, match=r"line 1 of .* is not UTF-8 text"):
        listing("a.jpg\n".encode("utf-16")).entries()


def test_a_list_of_which_nothing_is_there_is_refused_saying_where_it_was_looked_for(listing, tmp_path):
    with pytest.raises(SourceError) as caught:
        listing("x.jpg\n" * 150).entries()
    assert "none of the first 100 photographs" in str(caught.value)
    assert "for example 'x.jpg'" in str(caught.value)
    assert str(tmp_path / "lists") in str(caught.value)
    assert len(listing("x.jpg\n" * 99 + "a.jpg\n").entries()) == 100


def test_nothing_is_read_that_the_list_does_not_name(listing, tmp_path):
    source = listing("a.jpg\n")
    for path in ("b c.jpg", str(tmp_path / "lists" / "a.jpg"), "./a.jpg", "photographs.txt", "/etc/hostname"):
        with pytest.raises(PhotographError, match="not listed in"):
            source.read(path)
    # A list that was changed since says what it says now.
    listing("b c.jpg\n# longer\n")
    assert source.read("b c.jpg") == PHOTOGRAPH
    with pytest.raises(PhotographError, match="not listed in"):
        source.read("a.jpg")
    Path(source.spec).unlink()
    with pytest.raises(PhotographError, match="no such file"):
        source.read("b c.jpg")


def test_names_that_are_no_utf8_survive(listing, tmp_path):
    (tmp_path / "lists" / "caf\udce9.jpg").write_bytes(PHOTOGRAPH)
    for source in (listing(b"caf\xe9.jpg\n"), listing(b"path\ncaf\xe9.jpg\n", "p.csv")):
        assert source.entries() == [Entry("caf\udce9.jpg", None)]
        assert source.read("caf\udce9.jpg") == PHOTOGRAPH


def test_what_is_no_regular_file_is_refused_and_not_waited_for(listing, tmp_path):
    os.mkfifo(tmp_path / "lists" / "pipe.jpg")
    source = listing("pipe.jpg\n/dev/zero\n.\n" + "x" * 300)
    assert len(source.entries()) == 4
    for path in ("pipe.jpg", "/dev/zero"):
        with pytest.raises(PhotographError, match="cannot be read: not a regular file"):
            source.read(path)
    with pytest.raises(PhotographError, match="cannot be read: Is a directory"):
        source.read(".")
    with pytest.raises(PhotographError, match="cannot be read: File name too long"):
        source.read("x" * 300)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(SourceError, match=r"pipe\.txt' cannot be read: not a regular file"):
        open_source(str(tmp_path / "pipe.txt")).entries()
