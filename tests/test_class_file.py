"""Classes from a file of their own: a CSV, Caffe's val.txt, and the numbers of ImageNet's development kit."""

import builtins
import os

import numpy as np
import pytest

from patchmine.errors import SourceError
from patchmine.labels.label_file import classified
from patchmine.sources import Entry

NUMBERS = (490, 361, 171)
"""As a kit has them: from 1, in an order that is neither that of the ids nor that of a network's outputs."""

WNIDS = {490: "n03995372", 361: "n01440764", 171: "n01443537"}

FLAT = [Entry(f"ILSVRC2012_val_{number:08d}.JPEG", None) for number in (1, 2, 3)]


@pytest.fixture
def kit(tmp_path):
    """A development kit of three classes and the group above them."""
    scipy_io = pytest.importorskip("scipy.io")
    rows = [(n, wnid, "a word, another", "a gloss", 0, 0.0, 5, 1300) for n, wnid in WNIDS.items()]
    rows.append((1001, "n00001740", "entity", "all there is", 3, np.array([490.0, 361.0, 171.0]), 0, 0))
    names = [
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    ]
    table = np.array(rows, dtype=[(name, object) for name in names])
    scipy_io.savemat(tmp_path / "meta.mat", {"synsets": table[:, None]})
    file = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    file.write_text("".join(f"{number}\n" for number in NUMBERS))
    return file


@pytest.fixture
def labels(tmp_path):
    def write(text, name="labels.csv"):
        (tmp_path / name).write_bytes(os.fsencode(text))
        return tmp_path / name

    return write


def classes(entries, file):
    return [entry.class_name for entry in classified(entries, file)]


def test_the_kits_numbers_become_the_class_folders_of_the_unpacked_set(kit):
    assert classes(FLAT, kit) == ["n03995372", "n01440764", "n01443537"]
    # The number is in the name: order and folders do not matter, and what has none keeps its class.
    moved = [Entry("val-3.tar/" + FLAT[2].path, None), Entry("n/" + FLAT[0].path, "n"), Entry("dog/1.jpg", "dog")]
    assert classes(moved, kit) == ["n01443537", "n03995372", "dog"]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("ILSVRC2012_val_00000004.JPEG", "belongs to line 4 of .*, which has 3 lines"),
        ("ILSVRC2012_val_00000000.JPEG", "belongs to line 0"),
        ("1.jpg", "no file in the source is named like ILSVRC2012_val_00000001.JPEG"),
    ],
)
def test_photographs_that_the_kit_does_not_number_are_refused(kit, name, answer):
    with pytest.raises(SourceError, match=answer):
        classified([Entry(name, None)], kit)


def test_a_number_that_is_a_group_or_nothing_is_refused(kit):
    kit.write_text("490\n1001\n171\n")
    with pytest.raises(SourceError, match=r"line 2 of .* is 1001, not a class in meta\.mat"):
        classified(FLAT, kit)


def test_a_kit_without_its_table_is_refused(kit):
    (kit.parent / "meta.mat").write_bytes(b"junk" * 100)
    with pytest.raises(SourceError, match=r"meta\.mat' is damaged or not the kit's table"):
        classified(FLAT, kit)
    (kit.parent / "meta.mat").unlink()
    with pytest.raises(SourceError, match=r"'.*meta\.mat' not found, which defines the class numbers"):
        classified(FLAT, kit)


@pytest.mark.parametrize("content", [{"other": 1}, {"synsets": 1.0}, {"synsets": "words"}])
def test_another_mat_file_is_not_the_kits_table(kit, content):
    import scipy.io

    scipy.io.savemat(kit.parent / "meta.mat", content)
    with pytest.raises(SourceError, match="is damaged or not the kit's table"):
        classified(FLAT, kit)


def test_without_scipy_the_kit_says_what_to_install(kit, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SourceError, match="requires scipy: pip install scipy"):
        classified(FLAT, kit)


def test_caffes_indices_are_those_of_a_networks_outputs(labels):
    file = labels(f"{FLAT[0].path} 0\n{FLAT[2].path}\t999 \n\n", "val.txt")
    assert classes(FLAT, file) == ["n01440764", None, "n15075141"]
    assert classes([Entry("a b/1.jpg", None)], labels("a b/1.jpg 1\n")) == ["n01443537"]


@pytest.mark.parametrize("line", ["ILSVRC2012_val_00000002.JPEG 1000", "ILSVRC2012_val_00000002.JPEG", "a,b"])
def test_a_line_that_is_no_name_and_index_is_refused_by_its_number(labels, line):
    with pytest.raises(SourceError, match="line 2 of .* is not NAME INDEX with an index from 0 to 999"):
        classified(FLAT, labels(f"{FLAT[0].path} 0\n{line}\n"))


def test_a_csv_names_classes_with_or_without_a_header(labels):
    for text in ("path,class\na 1.jpg,cat\n", '\ufeff"a 1.jpg","cat"\r\n', "a 1.jpg,dog\na 1.jpg,cat\n"):
        assert classes([Entry("a 1.jpg", "x"), Entry("b.jpg", "y")], labels(text)) == ["cat", "y"]
    assert classes([Entry("caf\udce9.jpg", None)], labels("caf\udce9.jpg,5\n")) == ["5"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("file_name,label,width\na.jpg,dog,64\nb.jpg,,64\n", "metadata.csv"),
        ("Label;Image\ndog;a.jpg\n", "labels.csv"),
        ('{"file_name": "a.jpg", "label": "dog"}\n', "metadata.jsonl"),
    ],
)
def test_a_table_names_classes_by_its_header(labels, text, name):
    entries = [Entry("a.jpg", None), Entry("b.jpg", None)]
    assert classes(entries, labels(text, name)) == ["dog", None]


def test_a_table_without_a_column_of_classes_is_refused_with_its_columns(labels):
    with pytest.raises(SourceError, match="has no column 'class', only 'species', 'id'"):
        classes([Entry("a.jpg", None)], labels("path,species,id\na.jpg,dog,1\n"))


@pytest.mark.parametrize("text", ["", "a.jpg\n", "a.jpg,cat,1\n", "1\n2\nx\n", "1" * 5000])
def test_what_is_no_labels_file_is_refused_naming_the_forms(labels, text):
    with pytest.raises(SourceError, match=r"labels\.csv' is not a labels file.*: give PATH,CLASS .* val\.txt, or the"):
        classified(FLAT, labels(text))


def test_a_name_that_is_not_in_the_source_is_answered_with_the_nearest(labels):
    for text in ("a/2.jpg,cat\n", "a/2.jpg 5\n"):
        with pytest.raises(SourceError, match=r"names 'a/2\.jpg', which is not in the source; did you mean a/1\.jpg"):
            classified([Entry("a/1.jpg", None)], labels(text))


def test_a_labels_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(SourceError, match="labels file .* not found"):
        classified(FLAT, tmp_path / "none.csv")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="cannot be read: not a regular file"):
        classified(FLAT, tmp_path / "pipe")
