"""Sources of photographs: what every kind promises, then what is special about folders and drawn pictures.

Archives and lists have files of their own.
"""

import io
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from patchmine import sources
from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, open_source
from patchmine.sources.shapes import COLORS, SHAPES, Shapes, mask_of
from patchmine.units import Box
from tests.conftest import jpeg, tarred, zipped

PHOTOGRAPH = jpeg(Image.new("RGB", (8, 8)))


def photograph(*parts):
    path = Path(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PHOTOGRAPH)
    return path


def paths(folder):
    return [entry.path for entry in open_source(str(folder)).entries()]


# What every kind promises


NAMES = ("b/2.jpg", "a/1.jpg", "0.jpg", "a/deep/3.jpg")


def folder_example(place):
    for name in NAMES:
        photograph(place, "photographs", name)
    photograph(place, "secret.jpg")
    return str(place / "photographs")


def union_example(place):
    folder_example(place)
    photograph(place, "more", "c", "4.jpg")
    return f'union:["{place / "photographs"}", "{place / "more"}"]'


def tar_example(place):
    photograph(place, "secret.jpg")
    return str(tarred(place / "photographs.tar", dict.fromkeys(NAMES, PHOTOGRAPH)))


def tars_example(place):
    for number in range(3):
        tarred(place / f"val-{number:03d}.tar", {f"{key}.jpg": PHOTOGRAPH for key in (2, 1)})
    return str(place / "val-{000..002}.tar")


def zip_example(place):
    return str(zipped(place / "photographs.zip", dict.fromkeys(NAMES, PHOTOGRAPH)))


def txt_example(place):
    folder_example(place)
    (place / "photographs" / "all.txt").write_text("# all of them, one twice\n" + "\n".join([*NAMES, NAMES[1]]))
    return str(place / "photographs" / "all.txt")


def csv_example(place):
    folder_example(place)
    (place / "all.csv").write_text("path,class\n" + "".join(f"photographs/{name},dog\n" for name in NAMES))
    return str(place / "all.csv")


def bucket_example(place):
    store = fsspec.filesystem("memory")
    for name in NAMES:
        store.pipe(f"/{place.name}/photographs/{name}", PHOTOGRAPH)
    store.pipe(f"/{place.name}/secret.jpg", PHOTOGRAPH)
    return f"memory://{place.name}/photographs"


EXAMPLES = {
    "folder": folder_example,
    "listing": txt_example,
    "listing, CSV": csv_example,
    "remote": bucket_example,
    "shapes": lambda place: "shapes:7",
    "tar": tar_example,
    "tar, several": tars_example,
    "union": union_example,
    "zip": zip_example,
}
"""How to make something that each kind can open, in an empty folder: by the kind, or the kind and a comma."""


@pytest.fixture(params=sorted({*sources.kinds.names, *EXAMPLES}))
def example(request, tmp_path):
    """Each kind of source with a spec for it. A new kind in the folder fails here until it has an example."""
    assert request.param in EXAMPLES, f"sources/{request.param}.py is new: give it an example in this file"
    return request.param.partition(",")[0], EXAMPLES[request.param](tmp_path)


def test_a_kind_claims_its_own_and_nobody_elses(example):
    kind, spec = example
    assert [name for name in sources.kinds.names if sources.kinds.get(name, "source").claim(spec)] == [kind]
    source = open_source(spec)
    assert source.kind == kind
    assert source.name
    assert "/" not in source.name


def test_entries_are_sorted_and_the_same_each_time(example):
    source = open_source(example[1])
    entries = source.entries()
    names = [entry.path for entry in entries]
    assert len(names) > 3
    assert names == sorted(names)
    # A list may name a photograph twice on purpose; sorted, its repeats lie side by side.
    assert len(set(names)) == len(names) or source.kind == "listing"
    assert source.entries() == entries
    assert all(isinstance(entry, Entry) and (entry.class_name is None or entry.class_name) for entry in entries)


def test_a_spec_reopens_the_source_anywhere(example, tmp_path, monkeypatch):
    source = open_source(example[1])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = open_source(source.spec)
    assert again == source
    assert pickle.loads(pickle.dumps(source)).entries() == again.entries() == source.entries()


def test_every_entry_can_be_read_and_gives_the_same_picture_twice(example):
    source = open_source(example[1])
    for entry in source.entries():
        data = source.read(entry.path)
        assert source.read(entry.path) == data
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "a/../../secret.jpg", "/etc/hostname", "", ".", "..", "a//1.jpg", "./0.jpg", "a\0.jpg"]
)
def test_a_path_that_leads_out_is_refused(example, path):
    with pytest.raises(PhotographError):
        open_source(example[1]).read(path)


def test_a_photograph_that_is_not_there_is_refused_with_a_reason(example):
    with pytest.raises(PhotographError) as caught:
        open_source(example[1]).read("no-such-photograph.jpg")
    assert "no-such-photograph" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_opening_a_source_loads_no_torch_and_a_folder_nothing_but_the_standard_library():
    program = "import sys; from patchmine.sources import open_source; open_source('.'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
    tops = {line.partition(".")[0] for line in done.stdout.split()}
    assert not tops & {"torchvision", "timm", "h5py", "faiss"}


# What nobody claims


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("fotografs", "folder 'fotografs' not found; did you mean photographs?"),
        ("photographs/0.jpg", "is a file, not a source of photographs: give a folder of photographs"),
        ("", "the source is empty"),
        ("nowhere/at/all", "folder 'nowhere/at/all' not found; give a folder"),
        ("photographs/0.JPG.tar", "tar 'photographs/0.JPG.tar' not found"),
        ("phptographs.tar", "tar 'phptographs.tar' not found; did you mean photographs.tar?"),
        ("v-{0..9}.tar", "none of the tars 'v-{0..9}.tar' exists; known: photographs.tar"),
        ("photographs.zip", "zip 'photographs.zip' not found"),
        ("lst.txt", "list 'lst.txt' not found; did you mean list.txt?"),
        ("x" * 300, "folder 'xxx"),
        ("{" + "a," * 200 + "}.tar", "none of the tars"),
        ("shapes:many", "'shapes:many' is not shapes:N or shapes:N@SEED: write, for example, shapes:200"),
        ("shapes:0", "'shapes:0' is not shapes:N or shapes:N@SEED"),
        ("shapes:3@x", "'shapes:3@x' is not shapes:N or shapes:N@SEED"),
    ],
)
def test_a_word_that_means_no_source_gets_one_line_that_says_what_to_type(tmp_path, monkeypatch, spec, answer):
    folder_example(tmp_path)
    tar_example(tmp_path)
    (tmp_path / "list.txt").write_text("photographs/0.jpg\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    assert answer in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_source_is_answered_with_every_kind_in_one_sentence(tmp_path):
    with pytest.raises(SourceError) as caught:
        open_source(str(photograph(tmp_path, "a.jpg")))
    assert str(caught.value).endswith(
        "is a file, not a source of photographs: give a folder of photographs (recursive; the first folder level is "
        "the class), a .txt of paths (one per line), a .csv, .tsv or .jsonl of path,class, "
        "s3://, gs:// or hf:// (a folder, a .tar or a list in a bucket), "
        "shapes:N (N drawn pictures with known ground truth; shapes:N@SEED draws others), "
        'a .tar (several: NAME-{000000..000063}.tar), union:["A","B"] (several sources as one) or a .zip'
    )


# Folders


def test_the_first_folder_level_is_the_class(tmp_path):
    entries = open_source(folder_example(tmp_path)).entries()
    assert entries == [Entry("0.jpg", None), Entry("a/1.jpg", "a"), Entry("a/deep/3.jpg", "a"), Entry("b/2.jpg", "b")]


def test_only_visible_regular_files_with_an_image_suffix_count(tmp_path):
    for name in ("x.JPG", "y.tiff", "z.pgm", "notes.txt", "jpg", ".hidden.jpg", ".git/w.png", "list.jpg.bak"):
        photograph(tmp_path, name)
    for name in ("1.jfif", "2.JPE", "3.heic", "4.avif", "5.heic", "a.00001"):
        photograph(tmp_path, name)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to("gone.png")
    (tmp_path / "link.png").symlink_to("x.JPG")
    found = open_source(str(tmp_path)).listed()
    assert [entry.path for entry in found.entries] == ["1.jfif", "2.JPE", "link.png", "x.JPG", "y.tiff", "z.pgm"]
    assert found.passed.counted() == {".heic": 2, "other": 2, ".avif": 1, ".txt": 1, ".bak": 1}
    assert found.passed.left_out == {"pipe.png": "a FIFO", "dangling.png": "a link to nothing"}


def test_links_that_lead_nowhere_are_left_out_and_named_and_their_neighbors_listed(tmp_path):
    photograph(tmp_path, "cat/1.jpg")
    for name, target in (("good", "good"), ("a", "b"), ("b", "a"), ("x.jpg", "x.jpg"), ("gone", "nowhere")):
        (tmp_path / "cat" / name).symlink_to(target)
    (tmp_path / "twin").symlink_to("cat")
    (tmp_path / "n" / "up").parent.mkdir()
    (tmp_path / "n" / "up").symlink_to("..")
    found = open_source(str(tmp_path)).listed()
    assert found.entries == [Entry("cat/1.jpg", "cat")]
    loop, known = "a link that leads to itself", "a link to a folder that is listed already"
    assert found.passed.left_out == {
        **dict.fromkeys(("cat/good", "cat/a", "cat/b", "cat/x.jpg"), loop),
        **dict.fromkeys(("twin", "n/up"), known),
        "cat/gone": "a link to nothing",
    }
    (tmp_path / "cat" / "1.jpg").unlink()
    with pytest.raises(SourceError, match="no images in .*; found 'cat/a', a link that leads to itself, and others"):
        paths(tmp_path)


@pytest.mark.parametrize("name", ["good", "good.csv", "good.tar", "good.zip"])
def test_a_source_that_is_a_link_to_itself_is_called_so(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).symlink_to(name)
    for spec in (name, f"{name}/../{name}"):
        with pytest.raises(SourceError, match="leads nowhere|not found"):
            open_source(spec)
    with pytest.raises(SourceError, match=f"'{name}' is a link that leads nowhere: give what it should lead to"):
        open_source(name)


def test_paths_and_classes_too_long_for_an_index_are_left_out_and_named(tmp_path):
    long, huge = "x/" * 2500 + "1.jpg", "c" * 5000
    members = {long: PHOTOGRAPH, "2.jpg": PHOTOGRAPH, "2.cls": huge.encode(), "3.jpg": PHOTOGRAPH, "3.cls": b"a\0b"}
    found = sources.listed(open_source(str(tarred(tmp_path / "x.tar", members))))
    assert found.entries == [Entry("2.jpg", None), Entry("3.jpg", None)]
    assert found.notes == ("2 classes are longer than 4,096 bytes or not text, and left out",)
    assert found.passed.left_out == {long: "its path is longer than 4,096 bytes"}
    assert len(found.passed.named()[0]["path"]) < 500
    with pytest.raises(SourceError, match="has a path of more than 4,096 bytes: shorten them"):
        sources.listed(open_source(str(tarred(tmp_path / "y.tar", {long: PHOTOGRAPH}))))


def test_the_wordnet_id_in_an_imagenet_name_is_the_class_without_folders(tmp_path):
    for name in ("n01440764_10026.JPEG", "n0144_1.jpg", "deep/n01440764_2.JPEG"):
        photograph(tmp_path, name)
    assert [entry.class_name for entry in open_source(str(tmp_path)).entries()] == ["deep", "n01440764", None]


@pytest.mark.parametrize("names", [[], ["notes.txt"], [".hidden.png", "a/b/readme.md"]])
def test_a_folder_without_images_is_refused_naming_it_and_the_suffixes(tmp_path, names):
    for name in names:
        photograph(tmp_path, name)
    with pytest.raises(SourceError, match=r"no images in the folder .*\.jpg \.jpeg \.jpe") as caught:
        paths(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    root = tmp_path / "root"
    photograph(root, "cat/1.jpg")
    photograph(tmp_path, "outside/2.jpg")
    (root / "cat" / "up").symlink_to(root)
    (root / "aaa").symlink_to(root / "cat")
    (root / "dog").symlink_to(tmp_path / "outside")
    (root / "dog2").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "self").symlink_to(".")
    # The real folder keeps its photograph although a link to it sorts first; of two links the first wins.
    assert paths(root) == ["cat/1.jpg", "dog/2.jpg"]
    assert open_source(str(root)).read("dog/2.jpg") == PHOTOGRAPH


def test_odd_names_survive(tmp_path):
    names = ["a b/ü.jpg", "a b/ü.jpg", "quote'\".png", "new\nline.jpg", "b/#%?.gif"]
    for name in names:
        photograph(tmp_path, name)
    assert sorted(paths(tmp_path)) == sorted(set(paths(tmp_path)))
    assert set(paths(tmp_path)) == set(names)
    assert all(open_source(str(tmp_path)).read(name) == PHOTOGRAPH for name in names)


def test_names_that_are_no_utf8_survive(tmp_path):
    photograph(tmp_path, "caf\udce9", "\udcff.jpg")
    assert [os.fsencode(place.name) for place in tmp_path.iterdir()] == [b"caf\xe9"]
    source = open_source(str(tmp_path))
    assert source.entries() == [Entry("caf\udce9/\udcff.jpg", "caf\udce9")]
    assert source.read("caf\udce9/\udcff.jpg") == PHOTOGRAPH


def test_a_fifo_in_the_place_of_a_photograph_is_refused_and_not_waited_for(tmp_path):
    photograph(tmp_path, "a.jpg")
    source = open_source(str(tmp_path))
    (tmp_path / "a.jpg").unlink()
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(PhotographError, match="cannot be read: not a regular file"):
        source.read("a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    with pytest.raises(PhotographError, match="cannot be read: not a regular file"):
        source.read("b.jpg")


def test_a_file_too_large_for_a_photograph_is_refused_before_it_is_read(tmp_path):
    with photograph(tmp_path, "a.jpg").open("rb+") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(PhotographError, match="larger than 1 GiB"):
        open_source(str(tmp_path)).read("a.jpg")


def test_a_folder_that_cannot_be_listed_is_said_and_not_skipped(tmp_path, monkeypatch):
    photograph(tmp_path, "a/1.jpg")
    photograph(tmp_path, "locked/2.jpg")
    scandir = os.scandir

    def refuse(place):
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=r"cannot list the folder .*locked.* \(Permission denied\)"):
        paths(tmp_path)


def test_a_photograph_that_went_away_is_an_error_with_its_reason_alone(tmp_path):
    source = open_source(folder_example(tmp_path))
    (tmp_path / "photographs" / "0.jpg").unlink()
    with pytest.raises(PhotographError, match="no longer in the folder"):
        source.read("0.jpg")
    with pytest.raises(PhotographError, match="cannot be read: Is a directory"):
        source.read("a")


def test_the_spec_is_absolute_and_keeps_the_name_that_was_typed(tmp_path, monkeypatch):
    folder_example(tmp_path)
    (tmp_path / "mine").symlink_to("photographs")
    monkeypatch.chdir(tmp_path)
    assert open_source("mine/").spec == str(tmp_path / "mine")
    assert open_source("mine").name == "mine"
    monkeypatch.chdir(tmp_path / "photographs")
    assert open_source(".").name == "photographs"
    assert open_source("..").name == tmp_path.name
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source("~/photographs").spec == str(tmp_path / "photographs")


# Drawn pictures


def test_a_picture_depends_on_its_number_and_the_seed_alone():
    few, many, other = Shapes(5), Shapes(60), Shapes(60, seed=7)
    assert few.read("000003.png") == many.read("000003.png")
    assert few.truth(3) == many.truth(3)
    assert many.read("000003.png") != other.read("000003.png")
    assert open_source("shapes:60@7") == other


def test_every_pair_of_shape_and_colour_is_a_class_equally_often():
    classes = Counter(entry.class_name for entry in Shapes(100).entries())
    assert classes == {f"{colour} {shape}": 5 for shape in SHAPES for colour in COLORS}


def test_pictures_have_many_sizes_landscape_and_portrait():
    sizes = [Shapes(40).plan(i)[0] for i in range(40)]
    assert len(set(sizes)) > 30
    assert 10 < sum(width > height for width, height in sizes) < 30


@pytest.mark.parametrize("i", range(12))
def test_the_truth_is_in_the_picture(i):
    source = Shapes(12)
    entry = source.entries()[i]
    with Image.open(io.BytesIO(source.read(entry.path))) as picture:
        pixels = np.asarray(picture).astype(int)
    size, plan = source.plan(i)
    assert pixels.shape == (size[1], size[0], 3)
    truth = source.truth(i)
    assert entry.class_name == f"{truth[0][1]} {truth[0][0]}"
    for (shape, _colour, box), drawn in zip(truth, plan, strict=True):
        assert Box(0, 0, *size).contains(box)
        assert box.width == box.height
        mask = mask_of(shape, box.width)
        # The shape touches each edge of its box: the box could not be smaller.
        assert mask.any(0).all()
        assert mask.any(1).all()
        inside = pixels[box.top : box.bottom, box.left : box.right]
        assert np.abs(inside[mask] - drawn.rgb).mean() < 8
        if not mask.all():
            assert np.abs(inside[~mask] - drawn.rgb).max(1).mean() > 40
    boxes = [box for _, _, box in truth]
    assert not any(a.intersect(b).area for n, a in enumerate(boxes) for b in boxes[:n])


def test_the_main_shape_survives_the_usual_crop():
    from patchmine.models.shapes import PREPROCESSING

    source = Shapes(60)
    for i in range(60):
        (width, height), _ = source.plan(i)
        box, placement = source.truth(i)[0][2], PREPROCESSING.place(width, height)
        seen = placement.to_source(placement.picture)
        assert box.intersect(seen) == box


def test_a_number_beyond_the_last_picture_is_refused():
    with pytest.raises(PhotographError, match="not a picture of shapes:7"):
        Shapes(7).read("000007.png")
