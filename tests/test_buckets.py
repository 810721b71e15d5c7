"""Photographs in a bucket, here one in memory: the index of the folder, fetched ahead, refused in one line."""

from collections import Counter

import fsspec
import pytest

import patchmine
from patchmine import sources
from patchmine.buckets import objects
from patchmine.defaults import Wanted
from patchmine.errors import PhotographError, SourceError
from patchmine.sources import _copies, _fetching, open_source
from tests.conftest import tarred
from tests.support.activations import datasets

WANTED = Wanted(model="shapes", shard_size=12, keep=10)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(objects, "WAIT_S", 0.001)
    monkeypatch.setattr(objects, "_answered", {"memory"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _fetching.ahead.cache_clear()


@pytest.fixture
def bucket(photographs, tmp_path):
    """The photographs as a folder, as two tars with classes, and as a list, in a bucket."""
    store = fsspec.filesystem("memory")
    store.put(str(photographs), "/bucket/photographs", recursive=True)
    entries = open_source(str(photographs)).entries()
    for number in range(2):
        members = {}
        for entry in entries[number::2]:
            members[entry.path] = (photographs / entry.path).read_bytes()
            members[f"{entry.path.rpartition('.')[0]}.cls"] = entry.class_name.encode()
        tarred(tmp_path / "one.tar", members)
        store.put(str(tmp_path / "one.tar"), f"/bucket/part-{number}.tar")
    lines = "".join(f"photographs/{entry.path},{entry.class_name}\n" for entry in entries)
    store.pipe("/bucket/list.csv", f"path,class\n{lines}".encode())
    yield store
    store.rm("/bucket", recursive=True)


@pytest.fixture(scope="module")
def expected(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("folder") / "f.patchmine"
    patchmine.build_index(photographs, out, WANTED)
    return datasets(out)


def test_a_folder_in_a_bucket_gives_the_index_of_the_folder(bucket, expected, tmp_path):
    report = patchmine.build_index("memory://bucket/photographs/", tmp_path / "b.patchmine", WANTED)
    assert report.images == 24
    assert datasets(tmp_path / "b.patchmine") == expected
    assert patchmine.open_index(tmp_path / "b.patchmine").job.source == "memory://bucket/photographs"


@pytest.mark.parametrize(
    ("spec", "prefix"), [("part-{0..1}.tar", "part-{}.tar/"), ("list.csv", "photographs/"), ("part-0.tar", "")]
)
def test_tars_and_lists_in_a_bucket_hold_the_same_bytes_and_classes(bucket, photographs, spec, prefix):
    source = open_source(f"memory://bucket/{spec}")
    found = source.listed().entries
    paths = {entry.path: entry.path.partition("/")[2] if prefix else entry.path for entry in found}
    assert len(found) == (12 if spec == "part-0.tar" else 24)
    source.expect(list(paths)[:7])
    for entry in found:
        assert source.read(entry.path) == (photographs / paths[entry.path]).read_bytes()
        assert entry.class_name == paths[entry.path].partition("/")[0]
    with pytest.raises(PhotographError):
        source.read(f"{prefix.format(0)}nothing.jpg")


def test_neighbors_in_a_tar_are_fetched_with_one_request(bucket, monkeypatch):
    source = open_source("memory://bucket/part-0.tar")
    paths = [entry.path for entry in source.entries()]
    source.read(paths[0])
    asked = Counter()
    real = objects.read
    monkeypatch.setattr(objects, "read", lambda url, *range: asked.update([url]) or real(url, *range))
    source.expect(paths)
    whole = [source.read(path) for path in paths]
    assert sum(asked.values()) < len(paths) / 2
    assert [source.read(path) for path in paths] == whole


def test_the_table_of_a_tar_is_read_once_for_each_version_of_it(bucket, monkeypatch):
    spec = "memory://bucket/part-{0..1}.tar"
    before = open_source(spec).entries()
    monkeypatch.setattr(objects, "read", None)
    assert open_source(spec).entries() == before


class Failing:
    """The store of the bucket, whose requests fail now and then, or always."""

    def __init__(self, store, every, error):
        self.store, self.every, self.error, self.asked = store, every, error, 0

    def __getattr__(self, name):
        return getattr(self.store, name)

    def cat_file(self, *words, **options):
        self.asked += 1
        if self.asked % self.every == 0:
            raise self.error
        data = self.store.cat_file(*words, **options)
        return data[: len(data) // 2] if self.asked % 5 == 0 and options.get("end") else data


def test_a_connection_that_breaks_is_made_again_and_changes_nothing(bucket, expected, tmp_path, monkeypatch):
    failing = Failing(bucket, 3, ConnectionResetError("reset by peer"))
    monkeypatch.setattr(objects, "_store", lambda _: failing)
    patchmine.build_index("memory://bucket/part-{0..1}.tar", tmp_path / "t.patchmine", WANTED)
    patchmine.build_index("memory://bucket/photographs", tmp_path / "b.patchmine", WANTED)
    assert datasets(tmp_path / "b.patchmine") == expected
    assert failing.asked > 24


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionResetError("reset by peer"), r"cannot be reached after 10 tries \(reset by peer\)"),
        (PermissionError("Forbidden"), r"cannot be read with these credentials \(Forbidden\)"),
        (type("NoCredentialsError", (Exception,), {})(), "needs credentials"),
    ],
)
def test_a_bucket_out_of_reach_ends_the_run_and_skips_no_photograph(bucket, tmp_path, monkeypatch, error, line):
    monkeypatch.setattr(objects, "_store", lambda _: Failing(bucket, 1, error))
    with pytest.raises(SourceError, match=line) as found:
        patchmine.build_index("memory://bucket/photographs", tmp_path / "b.patchmine", WANTED)
    assert not isinstance(found.value, PhotographError)


def test_a_store_that_never_answered_is_given_up_soon_and_says_what_to_check(bucket, monkeypatch):
    failing = Failing(bucket, 1, ConnectionRefusedError("refused"))
    monkeypatch.setattr(objects, "_answered", set())
    monkeypatch.setattr(objects, "_store", lambda _: failing)
    with pytest.raises(SourceError, match=r"list.csv' does not answer \(refused\): check the network$"):
        objects.read("memory://bucket/list.csv")
    assert failing.asked == objects.FIRST_TRIES
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="a server runs at AWS_ENDPOINT_URL, which is 'http://127.0.0.1:9'"):
        objects.read("s3://bucket/list.csv")
    failing.every, failing.asked = objects.TRIES, 0  # it answers, and is trusted from then on
    objects.read("memory://bucket/list.csv")
    failing.every, failing.asked = 1, 0
    with pytest.raises(SourceError, match=f"cannot be reached after {objects.TRIES} tries"):
        objects.read("memory://bucket/list.csv")
    assert failing.asked == objects.TRIES


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("memory://nothing/there", "folder 'memory://nothing/there' not found"),
        ("memory://bucket/empty", "no images in 'memory://bucket/empty'.*found 1 .txt"),
        ("memory://bucket/part-7.tar", "not found"),
        ("memory://bucket/photographs.zip", "is a zip in a bucket"),
    ],
)
def test_what_a_bucket_lacks_is_one_line(bucket, spec, line):
    bucket.pipe("/bucket/empty/note.txt", b"nothing else")
    with pytest.raises(SourceError, match=line) as found:
        open_source(spec).entries()
    assert "\n" not in str(found.value)


def test_a_store_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(fsspec, "filesystem", lambda _: (_ for _ in ()).throw(ImportError("no gcsfs")))
    objects._store.cache_clear()
    with pytest.raises(SourceError, match=r"gs:// needs gcsfs, .*: pip install 'patchmine\[remote\]'"):
        open_source("gs://bucket/folder").entries()
    objects._store.cache_clear()


def test_a_photograph_that_is_gone_is_skipped(bucket):
    source = open_source("memory://bucket/photographs")
    path = source.entries()[3].path
    bucket.rm(f"/bucket/photographs/{path}")
    with pytest.raises(PhotographError, match="no longer in the bucket"):
        source.read(path)


def test_a_listing_that_has_changed_is_refused_by_its_name(bucket, tmp_path):
    out = tmp_path / "b.patchmine"
    patchmine.build_index("memory://bucket/photographs", out, WANTED)
    bucket.rm("/bucket/photographs/other/02.jpg")
    with pytest.raises(patchmine.errors.StoreError, match="update it with --extend"):
        patchmine.build_index("memory://bucket/photographs", out, WANTED)


def test_photographs_that_an_index_shows_are_copied_and_the_copies_are_checked(bucket, tmp_path, monkeypatch):
    patchmine.build_index("memory://bucket/photographs", tmp_path / "b.patchmine", WANTED)
    index = patchmine.open_index(tmp_path / "b.patchmine")
    shown = index.photograph(3)
    copies = [file for file in (tmp_path / "cache/patchmine/photographs").rglob("*") if file.is_file()]
    assert [file.name for file in copies] == [index.digest(3)]
    monkeypatch.setattr(objects, "_store", None)
    assert patchmine.open_index(tmp_path / "b.patchmine").photograph(3) == shown
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copies[0].write_bytes(b"damaged")
    assert index.photograph(3) == shown


def test_the_least_recently_used_copies_make_room(bucket, tmp_path, monkeypatch):
    source = open_source("memory://bucket/photographs")
    monkeypatch.setenv("PATCHMINE_CACHE_GB", str(60_000 * _copies.SHARE / 1e9))
    from patchmine.system import digests

    for entry in source.entries():
        data = source.read(entry.path)
        assert sources.read(source, entry.path, digests.of_bytes(data)) == data
    kept = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert 0 < kept <= 60_000


def test_a_bucket_source_pickles(bucket):
    import pickle

    source = open_source("memory://bucket/part-{0..1}.tar")
    again = pickle.loads(pickle.dumps(source))
    path = source.entries()[0].path
    assert again.read(path) == source.read(path)
