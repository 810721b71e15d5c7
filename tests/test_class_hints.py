"""What `index` says about classes and photographs that it did not take, and how many classes it found."""

import pytest
from PIL import Image
from typer.testing import CliRunner

import patchmine
from patchmine.cli import app
from patchmine.labels.class_hints import census, hints
from patchmine.sources import Entry, listed, open_source
from tests.conftest import jpeg, zipped

PHOTOGRAPH = jpeg(Image.new("RGB", (64, 64)))


def hinted(folder, names, others=()):
    for name in (*names, *others):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTOGRAPH)
    source = open_source(str(folder))
    return hints(source, listed(source))


@pytest.mark.parametrize(
    ("names", "others", "hint"),
    [
        (["train/oak/1.jpg", "val/elm/1.jpg"], [], "'train', 'val' are the classes: if the folders below"),
        (["train/1.jpg", "test/1.jpg"], [], "'test', 'train' are the classes, by the folders"),
        (["images/oak/1.jpg", "images/elm/1.jpg"], [], "'images' is the only class: if the folders below"),
        (["ILSVRC2012_val_00000001.JPEG"], [], "these are ImageNet's validation photographs"),
        (["1.jpg", "2.jpg"], ["metadata.csv"], "metadata.csv' may hold classes: give it with --labels"),
        (["1.jpg", "2.jpg"], ["1.cls", "2.cls"], "the .cls files may hold classes: pack all into a tar"),
        (["oak_1.jpg", "oak_2.jpg", "elm-1.jpg", "elm-2.jpg"], [], "if the beginnings 'elm', 'oak' of the names"),
        (["0/1.jpg", "1/1.jpg"], [], "the classes are numbers"),
        (["oak/1.jpg", "elm/1.jpg"], ["a.heic"], "pip install 'patchmine[heif]'"),
    ],
)
def test_a_sign_of_classes_or_photographs_is_pointed_out_once(tmp_path, names, others, hint):
    found = hinted(tmp_path, names, others)
    assert len(found) == 1
    assert hint in found[0]


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (["oak/1.jpg", "elm/1.jpg"], ["labels.csv", "1.json"]),
        (["oak/a/1.jpg", "oak/2.jpg"], []),
        (["IMG_0001.jpg", "IMG_0002.jpg", "DSC_1.jpg", "DSC_2.jpg"], ["notes.txt"]),
        (["oak.jpg", "elm.jpg"], []),
        (["n01440764_1.JPEG", "n01443537_2.JPEG"], []),
    ],
)
def test_ordinary_folders_give_no_hint(tmp_path, names, others):
    assert hinted(tmp_path, names, others) == []


def test_folders_of_a_list_and_of_an_archive_are_pointed_out(tmp_path):
    hinted(tmp_path, ["oak/1.jpg", "elm/1.jpg"])
    (tmp_path / "all.txt").write_text("oak/1.jpg\nelm/1.jpg\n")
    packed = zipped(tmp_path / "x.zip", {"train/oak/1.jpg": PHOTOGRAPH, "train/elm/2.jpg": PHOTOGRAPH})
    for spec, hint in ((tmp_path / "all.txt", "write a .csv of path,class"), (packed, "pack one folder deeper")):
        source = open_source(str(spec))
        assert [hint in line for line in hints(source, listed(source))] == [True]


def test_the_census_counts_classes_and_photographs_without_one():
    entries = [Entry("1", "oak"), Entry("2", "elm"), Entry("3", "oak")]
    assert census(entries) == "in 2 classes"
    assert census([*entries[:1], Entry("4", None)]) == "in 1 class (1 without a class)"
    assert census([Entry("4", None)]) == "without classes"


def test_index_and_info_tell_classes_other_files_and_links(tmp_path, monkeypatch):
    hinted(tmp_path / "photographs", ["oak/1.jpg", "elm/2.jfif"], ["oak/3.heic", "oak/4.heic", "5.avif"])
    (tmp_path / "photographs" / "good").symlink_to("good")
    (tmp_path / "photographs" / "oak" / "broken.jpg").write_bytes(PHOTOGRAPH[:100])
    monkeypatch.chdir(tmp_path)
    report = patchmine.build_index("photographs", "i.patchmine", model="shapes").as_dict()
    assert (report["images"], report["skipped"], report["classes"]) == (2, 1, 2)
    assert report["passed_over"] == {".heic": 2, ".avif": 1}
    assert report["left_out"] == [{"path": "good", "reason": "a link that leads to itself"}]
    assert report["notes"] == ["to read HEIC and AVIF: pip install 'patchmine[heif]'"]
    for words in (["info", "-i", "i.patchmine"], ["index", "photographs", "-o", "i.patchmine", "--model", "shapes"]):
        printed = CliRunner().invoke(app, words).stdout
        assert "2 photographs in 2 classes" in printed
        assert "passed over: 2 .heic, 1 .avif" in printed
        assert "left out: 1 place in the source\n  good: a link that leads to itself" in printed
