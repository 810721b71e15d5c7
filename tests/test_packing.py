"""An index that travels: pictures of the top patches inside it, and the whole of it as one checked file."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchmine
from patchmine.errors import PhotographError, StoreError
from patchmine.kept import embedded
from patchmine.units import Box
from tests.support.commands import failed

UNIT = "colour:0"


@pytest.fixture(scope="module")
def built(photographs, tmp_path_factory):
    """An index of a folder, which a test copies before it writes into it, and the folder."""
    place = tmp_path_factory.mktemp("built")
    shutil.copytree(photographs, place / "photographs")
    patchmine.build_index(place / "photographs", place / "own.patchmine", model="shapes", layers=["colour"], keep=10)
    return place


@pytest.fixture
def own(built, tmp_path):
    """A copy of the index, with its photographs in a folder that a test may remove."""
    shutil.copytree(built, tmp_path / "home")
    return patchmine.open_index(tmp_path / "home/own.patchmine", source=tmp_path / "home/photographs")


def files(directory):
    return {
        file.relative_to(directory).as_posix(): file.read_bytes() for file in directory.rglob("*") if file.is_file()
    }


def test_packed_moved_and_unpacked_it_draws_the_same_sheet_without_photographs(cli, own, tmp_path):
    source = ("--source", tmp_path / "home/photographs")
    assert "holds pictures of" in cli("embed", "-i", own.directory, *source).stdout
    sheet = ("top", "--unit", UNIT, "-k", 6, "-o")
    assert cli(*sheet, "before.png", "-i", own.directory, *source).returncode == 0
    assert cli("pack", "-i", own.directory, "-o", "own.tar").returncode == 0
    shutil.rmtree(tmp_path / "home")
    assert cli("unpack", "own.tar").returncode == 0
    done = cli(*sheet, "after.png", "-i", "own.patchmine", "--source", tmp_path / "home/photographs")
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("before.png").read_bytes() == Path("after.png").read_bytes()


def test_a_file_of_the_same_index_has_the_same_bytes_and_every_file_of_it(own, cli, tmp_path):
    for name in ("one.tar", "two.tar"):
        assert cli("pack", "-i", own.directory, "-o", name).returncode == 0
    assert Path("one.tar").read_bytes() == Path("two.tar").read_bytes()
    assert cli("unpack", "one.tar", "-o", "there").returncode == 0
    packed = {name: data for name, data in files(own.directory).items() if name not in ("index.log", "index.lock")}
    assert files(Path("there")) == packed


@pytest.fixture
def tar(own, cli):
    assert cli("pack", "-i", own.directory, "-o", "own.tar").returncode == 0
    return Path("own.tar")


def members(tar):
    with tarfile.open(tar) as opened:
        return [(member, opened.extractfile(member).read()) for member in opened]


def rewrite(tar, parts):
    with tarfile.open(tar, "w") as opened:
        for member, data in parts:
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))


def relisted(tar, change):
    """The tar with another list of its files."""
    (head, listing), *rest = members(tar)
    document = json.loads(listing)
    change(document)
    rewrite(tar, [(head, json.dumps(document).encode()), *rest])


def cut_short(tar):
    tar.write_bytes(tar.read_bytes()[:-30_000])


def changed(tar):
    parts = members(tar)
    parts[1] = (parts[1][0], parts[1][1][:-1] + b"?")
    rewrite(tar, parts)


def link(tar):
    parts = members(tar)
    parts[1][0].type, parts[1][0].linkname = tarfile.SYMTYPE, "/etc/passwd"
    rewrite(tar, [(parts[1][0], b"") if number == 1 else part for number, part in enumerate(parts)])
    tar.write_bytes(tar.read_bytes() + bytes(1 << 22))  # room for what it lists


def more(tar):
    rewrite(tar, [*members(tar), (tarfile.TarInfo("more"), b"more")])


def outside(tar):
    relisted(tar, lambda document: document["files"][0].update(path="../outside"))


def elsewhere(tar):
    relisted(tar, lambda document: document.update(name="../elsewhere"))


def inflated(tar):
    relisted(tar, lambda document: document["files"][0].update(size=1 << 40))


def headless(tar):
    rewrite(tar, members(tar)[1:])


def no_index(tar):
    relisted(tar, lambda document: document.update(files=document["files"][:1]))


def not_a_tar(tar):
    tar.write_bytes(b"no" * 2000)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut_short, ""),
        (changed, "has changed since it was packed"),
        (link, "is missing or another file"),
        (more, "it holds more than it lists"),
        (outside, "'../outside' leads out of it"),
        (elsewhere, "'../elsewhere' is not that of a folder"),
        (inflated, "it lists more bytes than it has"),
        (headless, "does not begin with patchmine.json"),
        (no_index, "its list is not that of an index"),
        (not_a_tar, ""),
    ],
)
def test_a_file_that_is_not_as_it_was_packed_leaves_nothing_behind(tar, cli, tmp_path, spoil, reason):
    spoil(tar)
    before = sorted(place.name for place in tmp_path.iterdir())
    done = cli("unpack", "own.tar", "-o", "there")
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert line.startswith("patchmine: 'own.tar' is not a whole packed index: ")
    assert reason in line
    assert sorted(place.name for place in tmp_path.iterdir()) == before


def test_what_exists_is_not_replaced_without_force(tar, own, cli, tmp_path):
    assert "'own.tar' exists" in failed(cli("pack", "-i", own.directory, "-o", "own.tar"))
    assert "'home' exists" in failed(cli("unpack", "own.tar", "-o", "home"))
    assert cli("pack", "-i", own.directory, "-o", "own.tar", "--force").returncode == 0


def test_what_is_no_packed_index_is_refused(cli, tmp_path):
    assert "file 'none.tar' not found" in failed(cli("unpack", "none.tar"))
    assert "does not exist" in failed(cli("pack", "-i", "none.patchmine"))
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_the_photographs_where_the_network_looks(own):
    count, size = own.embed(k=3)
    best = {own.digest(patch.image_id): patch for unit in own.units() for patch in unit.top(3)}
    kept = {file.stem: file for file in (own.directory / embedded.FOLDER).iterdir()}
    assert kept.keys() == best.keys()
    assert (count, size) == (len(best), sum(file.stat().st_size for file in kept.values()))
    for digest, patch in best.items():
        seen = patch.placement.to_source(Box(0, 0, *patch.placement.input)).as_tuple()
        with Image.open(kept[digest]) as picture:
            assert picture.size == patch.placement.source
            inside = np.asarray(picture.crop(seen), int)
        from patchmine.photographs.upright import upright

        assert np.abs(inside - np.asarray(upright(patch.photograph()).crop(seen), int)).mean() < 2


def test_embedding_resumes_and_reports_what_is_gone(own, cli, tmp_path):
    own.embed(k=1)
    there = {file: file.stat().st_mtime_ns for file in (own.directory / embedded.FOLDER).iterdir()}
    best = {patch.image_id for unit in own.units() for patch in unit.top(10)}
    lost = next(r for r in own.store.records() if r.image in best and not embedded.size(own.directory, r.digest))
    (tmp_path / "home/photographs" / lost.path).unlink()
    done = cli("embed", "-i", own.directory, "--source", tmp_path / "home/photographs", "-k", 10)
    assert done.returncode == 0
    assert {file: file.stat().st_mtime_ns for file in there} == there
    assert embedded.size(own.directory, lost.digest) == 0
    assert f"{len(best) - 1} photographs" in done.stdout
    assert lost.path in done.stderr


def test_a_patch_whose_photograph_is_not_embedded_still_needs_it(own, tmp_path):
    own.embed(k=1)
    shutil.rmtree(tmp_path / "home/photographs")
    moved = patchmine.open_index(own.directory, source=tmp_path)
    shown = {r.image for r in own.store.records() if embedded.size(own.directory, r.digest)}
    patches = list(moved.unit(UNIT).top(10))
    for patch in patches:
        if patch.image_id in shown:
            assert patch.crop().size == (patch.box.width, patch.box.height)
        else:
            with pytest.raises(PhotographError, match="no longer in the folder"):
                patch.crop()
    assert any(patch.image_id not in shown for patch in patches)


def test_the_network_never_sees_a_picture_in_place_of_a_photograph(own, tmp_path):
    own.embed()
    shutil.rmtree(tmp_path / "home/photographs")
    moved = patchmine.open_index(own.directory, source=tmp_path)
    with pytest.raises(PhotographError):
        moved.unit(UNIT).top(1)[0].photograph()
    with pytest.raises(PhotographError, match="this export needs it"):
        moved.export("milan", tmp_path / "out")


def test_index_embeds_when_it_is_asked_to(cli):
    done = cli("index", "shapes:4", "--model", "shapes", "--layers", "colour", "--embed", "-o", "four.patchmine")
    assert done.returncode == 0
    assert len(list(Path("four.patchmine", embedded.FOLDER).iterdir())) == 4
    assert "four.patchmine holds pictures of 4 photographs" in done.stderr


def test_an_index_that_cannot_be_written_says_so(own, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded, "write_atomically", full)
    with pytest.raises(StoreError, match="No space left on device"):
        own.embed()


def test_merging_takes_the_pictures_along(own, cli, tmp_path):
    source = tmp_path / "other"
    source.mkdir()
    drawn = patchmine.sources.open_source("shapes:6@1")
    for entry in drawn.entries():
        (source / entry.path).write_bytes(drawn.read(entry.path))
    patchmine.build_index(source, tmp_path / "other.patchmine", model="shapes", layers=["colour"], keep=10)
    for index, folder in ((own.directory, tmp_path / "home/photographs"), (tmp_path / "other.patchmine", source)):
        assert cli("embed", "-i", index, "--source", folder).returncode == 0
    assert cli("merge", own.directory, tmp_path / "other.patchmine", "-o", "both.patchmine").returncode == 0
    pictures = {file.name: file.read_bytes() for file in Path("both.patchmine/embedded").iterdir()}
    assert pictures == {
        file.name: file.read_bytes()
        for index in (own.directory, tmp_path / "other.patchmine")
        for file in (index / "embedded").iterdir()
    }
