"""`verify`: every planted corruption is found by the check that it is the business of, and a whole index passes."""

import json
import shutil

import h5py
import numpy as np
import pytest

import patchmine
from patchmine.defaults import Run, Wanted
from patchmine.questions.verify import verify
from patchmine.store import reading as store
from patchmine.store.hdf5 import dataset_digests
from patchmine.system import digests
from patchmine.system.progress import Silent

WANTED = Wanted(model="shapes", shard_size=12, keep=6)


@pytest.fixture(scope="module")
def built(photographs, tmp_path_factory):
    """An index of real files, and the folder of them."""
    place = tmp_path_factory.mktemp("verified")
    shutil.copytree(photographs, place / "photographs")
    patchmine.build_index(place / "photographs", place / "x.patchmine", WANTED)
    return place


@pytest.fixture
def place(built, tmp_path):
    """A copy to damage: the index in it names the copied photographs."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path


def findings(place, everything=True):
    index = patchmine.open_index(place / "x.patchmine", place / "photographs")
    found = verify(index, everything=everything, run=Run(workers=2), progress=Silent())
    return {finding.check: finding for finding in found}


def wrong(place, everything=True):
    return {name for name, finding in findings(place, everything).items() if finding.wrong}


def test_a_whole_index_passes_and_says_what_is_not_proved(built):
    whole = findings(built)
    assert list(whole) == ["manifest", "files", "datasets", "ranking", "faiss", "photographs", "activations"]
    assert not any(finding.wrong or finding.unproved for finding in whole.values())
    assert "activations of 24 of 24 photographs computed again by torch" in whole["activations"].compared


def with_h5(place, change):
    with h5py.File(place / "x.patchmine" / store.ACTIVATIONS, "r+") as file:
        change(file)


def forged(place):
    """Let checksums and digests fit what is there: an edit that nobody can see by them."""
    directory = place / "x.patchmine"
    manifest = json.loads((directory / store.MANIFEST).read_bytes())
    del manifest["manifest_digest"]
    manifest["checksums"] = {
        "files": {name: digests.of_file(directory / name) for name in manifest["checksums"]["files"]},
        "datasets": dataset_digests(directory / store.ACTIVATIONS),
    }
    manifest["manifest_digest"] = digests.of_json(manifest)
    (directory / store.MANIFEST).write_text(json.dumps(manifest))


def flip_a_value(place):
    def change(file):
        file["layers/colour/value"][3, 1] += 0.5

    with_h5(place, change)


def flip_a_vector(place):
    def change(file):
        file["layers/colour/vectors"][0, 0] += 1

    with_h5(place, change)


def flip_a_bit(place):
    with h5py.File(place / "x.patchmine" / store.ACTIVATIONS) as file:
        offset = file["images/width"].id.get_offset()
    path = place / "x.patchmine" / store.ACTIVATIONS
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def swap_photographs(place):
    one, other = sorted((place / "photographs").rglob("*.jpg"))[:2]
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def lose_a_photograph(place):
    next((place / "photographs").rglob("*.png")).unlink()


def edit_the_manifest(place):
    path = place / "x.patchmine" / store.MANIFEST
    path.write_text(path.read_text().replace('"field": "local"', '"field": "full"'))


def stale_faiss(place):
    path = place / "x.patchmine" / store.PATCHES
    patchmine.build_index("shapes:24", place / "other.patchmine", WANTED)
    shutil.copy(place / "other.patchmine" / store.PATCHES, path)


def no_faiss(place):
    (place / "x.patchmine" / store.PATCHES).unlink()


def edit_a_path(place):
    def change(file):
        paths = file["images/path"][:]
        paths[[0, 1]] = paths[[1, 0]]
        file["images/path"][:] = paths

    with_h5(place, change)


def edit_the_top(place):
    def change(file):
        top = file["layers/thing/top/image"][:]
        top[2, [0, 1]] = top[2, [1, 0]]
        file["layers/thing/top/image"][:] = top

    with_h5(place, change)


def wider_fields(place):
    def change(file):
        for entry in file["layers/thing"].items():
            if entry[0] == "effective":
                entry[1][:] = np.sort(entry[1][:] * 0.5)

    with_h5(place, change)


@pytest.mark.parametrize(
    ("corrupt", "caught"),
    [
        (flip_a_value, {"files", "datasets", "ranking", "activations"}),
        (flip_a_vector, {"files", "datasets", "faiss"}),
        (flip_a_bit, {"files", "datasets"}),
        (swap_photographs, {"photographs"}),
        (lose_a_photograph, {"photographs"}),
        (edit_the_manifest, {"manifest"}),
        (stale_faiss, {"files", "faiss"}),
        (no_faiss, {"files", "faiss"}),
        (edit_a_path, {"files", "datasets", "photographs"}),
        (edit_the_top, {"files", "datasets", "ranking"}),
        (wider_fields, {"files", "datasets"}),
    ],
)
def test_each_planted_corruption_is_found(place, corrupt, caught):
    corrupt(place)
    assert caught <= wrong(place)


@pytest.mark.parametrize(
    ("corrupt", "caught"),
    [(flip_a_value, "activations"), (flip_a_vector, "faiss"), (edit_a_path, "photographs"), (edit_the_top, "ranking")],
)
def test_edits_with_forged_checksums_are_found_by_computing_again(place, corrupt, caught):
    corrupt(place)
    forged(place)
    found = wrong(place)
    assert caught in found
    assert not found & {"files", "datasets"}


def test_the_command_prints_what_is_proved_and_ends_with_1_where_something_is_wrong(place, cli):
    words = ["verify", "-i", place / "x.patchmine", "--source", place / "photographs"]
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert "proved: nothing in this index has changed" in done.stdout
    swap_photographs(place)
    done = cli(*words, "--json")
    assert done.returncode == 1
    assert "1 of 7 checks failed (photographs); restore the photographs" in done.stderr
    document = json.loads(done.stdout)
    assert not document["ok"]
    (failed,) = [check for check in document["checks"] if not check["ok"]]
    assert len(failed["wrong"]) == 2


def test_without_a_table_the_tops_are_computed_again(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "photographs")
    wanted = Wanted(model="shapes", shard_size=12, keep=3, table=False)
    patchmine.build_index(tmp_path / "photographs", tmp_path / "x.patchmine", wanted)
    found = findings(tmp_path)
    assert not any(finding.wrong for finding in found.values())
    assert "there is no table" in found["ranking"].unproved
