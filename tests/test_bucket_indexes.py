"""An index in a bucket, here one in memory: the bytes of the one in a folder, resumed, delivered, fetched once."""

import fsspec
import pytest

import patchmine
from patchmine.buckets import copies, objects
from patchmine.defaults import Wanted
from patchmine.errors import StoreError
from tests.support.activations import datasets

WANTED = Wanted(model="shapes", shard_size=8, keep=10)
URL = "memory://bucket/shapes.patchmine"
SOURCE = "shapes:40"


class Counted:
    """The store, which counts its requests and may refuse them."""

    def __init__(self, store):
        self.store, self.fetched, self.put, self.refuse = store, [], [], None

    def __getattr__(self, name):
        return getattr(self.store, name)

    def cat_file(self, path, **options):
        self.fetched.append(path.removeprefix("/bucket/shapes.patchmine/"))
        return self.store.cat_file(path, **options)

    def put_file(self, here, path):
        if self.refuse:
            self.refuse(path)
        self.put.append(path.removeprefix("/bucket/shapes.patchmine/"))
        self.store.put_file(here, path)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setattr(objects, "WAIT_S", 0.001)
    monkeypatch.setattr(copies, "_opened", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Counted(fsspec.filesystem("memory"))
    monkeypatch.setattr(objects, "_store", lambda _: store)
    yield store
    if store.exists("/bucket"):
        store.rm("/bucket", recursive=True)


@pytest.fixture
def another_machine(monkeypatch, tmp_path):
    """What makes the rest of the test run with another cache."""

    def arrive():
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
        copies._opened.clear()

    return arrive


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    out = tmp_path_factory.mktemp("folder") / "shapes.patchmine"
    patchmine.build_index(SOURCE, out, WANTED)
    return out


def held(bucket):
    return sorted(bucket.store.find("/bucket"))


def test_it_has_the_files_of_the_index_in_a_folder_and_no_others(bucket, local):
    report = patchmine.build_index(SOURCE, URL, WANTED)
    assert report.as_dict()["index"] == URL
    assert [path.rpartition("/")[2] for path in held(bucket)] == ["activations.h5", "manifest.json", "patches.faiss"]
    for name in ("activations.h5", "patches.faiss"):
        assert bucket.cat_file(f"/bucket/shapes.patchmine/{name}") == (local / name).read_bytes()
    assert bucket.put[-1] == "manifest.json"


def test_every_shard_is_in_the_bucket_before_the_index_is(bucket):
    patchmine.build_index(SOURCE, URL, WANTED)
    assert bucket.put[0] == "shards/job.json"
    assert sorted(bucket.put[1:6]) == [f"shards/{number:06d}.shard" for number in range(5)]


class Cut(Exception):
    """Stands for a kill."""


def stopped_after(bucket, count):
    def refuse(path):
        if len(bucket.put) >= count:
            raise PermissionError("Forbidden")

    bucket.refuse = refuse
    with pytest.raises(StoreError) as found:
        patchmine.build_index(SOURCE, URL, WANTED)
    bucket.refuse = None
    return str(found.value)


@pytest.mark.parametrize("count", [1, 3, 6, 7, 8])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_that_ended_early_is_resumed_here_and_on_another_machine(
    bucket, local, another_machine, count, elsewhere
):
    stopped_after(bucket, count)
    before = len([path for path in bucket.put if path.endswith(".shard")])
    if elsewhere:
        another_machine()
    report = patchmine.build_index(SOURCE, URL, WANTED)
    if elsewhere:
        assert report.mined == 40 - 8 * before
    assert datasets(copies.folder_of(URL)) == datasets(local)
    assert bucket.cat_file("/bucket/shapes.patchmine/activations.h5") == (local / "activations.h5").read_bytes()
    assert len(held(bucket)) == 3


def test_reading_fetches_what_a_command_needs_once(bucket, another_machine):
    patchmine.build_index(SOURCE, URL, WANTED)
    another_machine()
    bucket.fetched.clear()
    index = patchmine.open_index(URL)
    assert index.name == URL
    assert index.unit("shapes:0").top(3)
    assert sorted(bucket.fetched) == ["activations.h5", "manifest.json"]
    index.similar("shapes:0")
    assert bucket.fetched[2:] == ["patches.faiss"]
    bucket.fetched.clear()
    patchmine.open_index(URL).similar("shapes:0")
    assert bucket.fetched == []
