"""An index in a bucket, here one in memory: the bytes of the one in a folder, resumed, delivered, fetched once."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

import patchmine
from patchmine.buckets import copies, copy, objects, room
from patchmine.defaults import Run, Wanted
from patchmine.errors import RequestError, StoreError
from patchmine.sources import open_source
from tests.support.activations import datasets
from tests.support.commands import failed

WANTED = Wanted(model="shapes", shard_size=8, keep=10)
URL = "memory://bucket/shapes.patchmine"
FOLDER = "/bucket/shapes.patchmine"
SOURCE, FIRST = "shapes:40", "colour:0"


class Counted:
    """The store, which counts its requests and may refuse them."""

    def __init__(self, store):
        self.store, self.fetched, self.put, self.refuse = store, [], [], None

    def __getattr__(self, name):
        return getattr(self.store, name)

    def cat_file(self, path, **options):
        self.fetched.append(path.removeprefix(f"{FOLDER}/"))
        return self.store.cat_file(path, **options)

    def put_file(self, here, path):
        if self.refuse:
            self.refuse(path)
        self.put.append(path.removeprefix(f"{FOLDER}/"))
        self.store.put_file(here, path)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setattr(objects, "WAIT_S", 0.001)
    monkeypatch.setattr(objects, "_answered", {"memory"})
    monkeypatch.setattr(copies, "opened", {})
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
        copies.opened.clear()

    return arrive


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    out = tmp_path_factory.mktemp("folder") / "shapes.patchmine"
    patchmine.build_index(SOURCE, out, WANTED)
    return out


def upload(bucket, directory):
    for name in ("activations.h5", "patches.faiss", "manifest.json"):
        bucket.pipe(f"{FOLDER}/{name}", (directory / name).read_bytes())


@pytest.fixture
def published(bucket, local):
    """The bucket with the index in it, of which this machine has no copy."""
    upload(bucket, local)
    return bucket


def held(bucket):
    return sorted(bucket.store.find("/bucket"))


def test_it_has_the_files_of_the_index_in_a_folder_and_no_others(bucket, local):
    report = patchmine.build_index(SOURCE, URL, WANTED)
    assert report.as_dict()["index"] == URL
    assert [path.rpartition("/")[2] for path in held(bucket)] == ["activations.h5", "manifest.json", "patches.faiss"]
    for name in ("activations.h5", "patches.faiss"):
        assert bucket.cat_file(f"{FOLDER}/{name}") == (local / name).read_bytes()
    assert bucket.put[-1] == "manifest.json"


def test_every_shard_is_in_the_bucket_before_the_index_is(bucket):
    patchmine.build_index(SOURCE, URL, WANTED)
    assert bucket.put[0] == "shards/job.json"
    assert sorted(bucket.put[1:6]) == [f"shards/{number:06d}.shard" for number in range(5)]


def stopped_after(bucket, count):
    """Build until the bucket has taken `count` files, and refuses the next."""

    def refuse(path):
        if len(bucket.put) >= count:
            raise PermissionError("Forbidden")

    bucket.refuse = refuse
    with pytest.raises(StoreError, match=r"cannot be written with these credentials \(Forbidden\)"):
        patchmine.build_index(SOURCE, URL, WANTED)
    bucket.refuse = None


@pytest.mark.parametrize(("count", "elsewhere"), [(3, False), (7, True)])
def test_a_run_that_ended_early_is_resumed_here_or_on_another_machine(bucket, local, another_machine, count, elsewhere):
    stopped_after(bucket, count)
    shards = [path for path in bucket.put if path.endswith(".shard")]
    if elsewhere:
        another_machine()
    report = patchmine.build_index(SOURCE, URL, WANTED)
    assert report.mined == 40 - 8 * len(shards) or not elsewhere
    assert not any(path in bucket.put[count:] for path in shards)
    assert bucket.cat_file(f"{FOLDER}/activations.h5") == (local / "activations.h5").read_bytes()
    assert len(held(bucket)) == 3


def test_a_finished_index_is_not_built_again_and_another_job_is_refused(published, another_machine):
    report = patchmine.build_index(SOURCE, URL, WANTED)
    assert (report.mined, published.put) == (0, [])
    another_machine()
    with pytest.raises(StoreError, match=f"'{URL}' holds another job: its keep is 10, not 5"):
        patchmine.build_index(SOURCE, URL, replace(WANTED, keep=5))
    patchmine.build_index(SOURCE, URL, replace(WANTED, keep=5), Run(fresh=True))
    assert patchmine.open_index(URL).job.keep == 5
    assert len(held(published)) == 3


def a_list(bucket, count):
    """A list of the first drawn photographs, which lie in the bucket too."""
    source = open_source(f"shapes:{count}")
    for entry in source.entries():
        bucket.pipe(f"/bucket/pictures/{entry.path}", source.read(entry.path))
    bucket.pipe("/bucket/pictures/list.txt", "\n".join(entry.path for entry in source.entries()).encode())
    return "memory://bucket/pictures/list.txt"


def test_an_index_in_a_bucket_grows(bucket, another_machine):
    patchmine.build_index(a_list(bucket, 4), URL, WANTED)
    another_machine()
    source = a_list(bucket, 6)
    bucket.fetched.clear()
    assert patchmine.build_index(source, URL, WANTED, Run(extend=True)).images == 6
    assert len(patchmine.open_index(URL)) == 6
    assert "activations.h5" in bucket.fetched


def test_what_shards_another_job_left_on_this_machine_does_not_count(bucket, local):
    stopped_after(bucket, 3)
    bucket.store.rm("/bucket", recursive=True)
    patchmine.build_index(SOURCE, URL, replace(WANTED, keep=5))
    assert patchmine.open_index(URL).job.keep == 5


def test_reading_fetches_what_a_command_needs_once(published):
    index = patchmine.open_index(URL)
    assert index.name == URL
    assert len(index.unit(FIRST).top(3)) == 3
    assert sorted(published.fetched) == ["activations.h5", "manifest.json"]
    index.similar(FIRST)
    assert published.fetched[2:] == ["patches.faiss"]
    published.fetched.clear()
    patchmine.open_index(URL).similar(FIRST)
    assert published.fetched == []


def test_an_index_that_has_changed_is_fetched_anew(published, tmp_path):
    assert len(patchmine.open_index(URL)) == 40
    patchmine.build_index("shapes:16", tmp_path / "other.patchmine", WANTED)
    upload(published, tmp_path / "other.patchmine")
    index = patchmine.open_index(URL)
    assert len(index) == 16
    index.similar(FIRST)
    assert published.fetched.count("patches.faiss") == 1


def test_large_files_are_fetched_in_parts_of_one_version(published, local, monkeypatch):
    monkeypatch.setattr(copy, "PART", 10_000)
    changes = iter([True])
    real = published.cat_file

    def cat_file(path, **options):
        data = real(path, **options)
        if path.endswith("activations.h5") and next(changes, False):  # while it is read
            published.pipe(path, (local / "activations.h5").read_bytes())
        return data

    monkeypatch.setattr(published, "cat_file", cat_file)
    index = patchmine.open_index(URL)
    assert (index.directory / "activations.h5").read_bytes() == (local / "activations.h5").read_bytes()
    assert not list(index.directory.glob(".*"))
    assert len(published.cat_file(f"{FOLDER}/activations.h5")) > copy.PART


def test_commands_answer_as_they_do_for_a_folder(cli, published, local):
    for words in (("top", "--unit", FIRST, "-k", 3, "--json"), ("units", "--json"), ("info", "--json")):
        here, there = json.loads(cli(*words, "-i", local).stdout), json.loads(cli(*words, "-i", URL).stdout)
        assert there.pop("index") == URL
        assert here.pop("index") == str(local)
        assert here == there
    done = cli("verify", "-i", URL)
    assert done.returncode == 0, done.stderr
    assert published.put == []


def test_index_says_where_the_index_is(cli, bucket):
    words = ("index", SOURCE, "-o", URL, "--model", "shapes", "--shard-size", 8, "--json")
    assert json.loads(cli(*words).stdout)["index"] == URL
    printed = cli(*words[:-1]).stdout
    assert f"{URL}: 40 photographs" in printed
    assert "MB in the bucket" in printed
    assert f"patchmine top -i {URL} " in printed


def test_what_commands_write_is_delivered(cli, published, another_machine):
    assert cli("name", FIRST, "reddish", "-i", URL).returncode == 0
    assert cli("tighten", "--unit", FIRST, "-k", 2, "-i", URL).returncode == 0
    assert published.put[0] == "names.json"
    assert all(path.startswith("tight/") for path in published.put[1:])
    another_machine()
    index = patchmine.open_index(URL)
    assert index.unit("reddish").name == "reddish"
    assert len(index.unit("reddish").top(2, crop="auto")) == 2
    assert published.put[1:]


def test_a_name_given_elsewhere_meanwhile_is_not_lost(cli, published, monkeypatch):
    from patchmine.questions import rename

    real = rename.give

    def give(*words):
        real(*words)
        published.pipe(f"{FOLDER}/names.json", b"theirs")

    monkeypatch.setattr(rename, "give", give)
    assert f"'{URL}/names.json' has changed meanwhile: repeat" in failed(cli("name", FIRST, "mine", "-i", URL))
    assert published.cat_file(f"{FOLDER}/names.json") == b"theirs"


def test_a_bucket_that_must_not_be_written_still_answers(cli, published, monkeypatch):
    def refuse(path):
        raise PermissionError("Forbidden")

    published.refuse = refuse
    done = cli("units", "--scores", "-i", URL)
    assert done.returncode == 0
    assert "only in the copy on this machine" in done.stderr
    assert cli("units", "-i", URL).stderr == ""  # says it once
    assert "cannot be written with these credentials" in failed(cli("name", FIRST, "mine", "-i", URL))


def test_an_index_is_packed_and_merged_from_a_bucket(cli, published, local, tmp_path):
    assert cli("pack", "-i", URL, "-o", tmp_path / "packed.tar").returncode == 0
    assert cli("unpack", tmp_path / "packed.tar", "-o", tmp_path / "down.patchmine").returncode == 0
    assert datasets(tmp_path / "down.patchmine") == datasets(local)
    patchmine.build_index(a_list(published, 3), tmp_path / "other.patchmine", WANTED)
    done = cli("merge", URL, tmp_path / "other.patchmine", "-o", "memory://bucket/both.patchmine", "--dedupe")
    assert done.returncode == 0, done.stderr
    assert len(patchmine.open_index("memory://bucket/both.patchmine")) == 40


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("top", "--unit", FIRST, "-i", "memory://bucket/none"), "'memory://bucket/none' does not exist; build it"),
        (("top", "--unit", FIRST, "-i", "memory://bucket/notes"), "is not a patchmine index: it has no manifest.json"),
        (("top", "--unit", FIRST, "-i", "memory://bucket/begun"), "'memory://bucket/begun' is not finished; run"),
        (("index", SOURCE, "-o", "memory://bucket/notes"), "'memory://bucket/notes' holds other files and is not"),
        (("index", SOURCE, "-o", URL, "--engine", "claims"), "a bucket cannot rename a claim: give a folder that all"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(cli, bucket, words, line):
    bucket.pipe("/bucket/notes/a.txt", b"a")
    bucket.pipe("/bucket/begun/shards/job.json", b"{}")
    assert line in failed(cli(*words))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("QuotaExceeded"), r"cannot be written after 10 tries \(QuotaExceeded\).*finished work is kept"),
        (FileNotFoundError("NoSuchBucket"), "no such bucket; create it first"),
        (type("NoCredentialsError", (Exception,), {})(), "needs credentials"),
    ],
)
def test_a_bucket_that_takes_nothing_is_found_out_before_the_work(bucket, monkeypatch, error, line):
    def refuse(path):
        raise error

    bucket.refuse = refuse
    monkeypatch.setattr("patchmine.engines.local.mine", None)
    with pytest.raises(StoreError, match=line):
        patchmine.build_index(SOURCE, URL, WANTED)


def test_connections_that_are_cut_while_writing_change_nothing(bucket, local):
    asked = itertools.count()

    def refuse(path):
        if next(asked) % 3:
            raise ConnectionResetError("reset by peer")

    bucket.refuse = refuse
    patchmine.build_index(SOURCE, URL, WANTED)
    assert next(asked) > 20
    assert bucket.cat_file(f"{FOLDER}/activations.h5") == (local / "activations.h5").read_bytes()


def test_names_that_lead_out_of_the_copy_are_not_fetched(published, tmp_path):
    for name in ("../evil", "tight/../../evil", "/etc/evil", "tight/.hidden", "tight\\evil"):
        published.store.store[f"{FOLDER}/{name}"] = published.store.store[f"{FOLDER}/manifest.json"]
    try:
        directory = patchmine.open_index(URL).directory
        copies.bring_all(directory)
        assert sorted(path.name for path in directory.rglob("*")) == [
            "activations.h5",
            "manifest.json",
            "patches.faiss",
        ]
        assert not list(tmp_path.rglob("*evil*"))
    finally:
        for path in [path for path in published.store.store if "evil" in path or "hidden" in path]:
            del published.store.store[path]


def test_without_a_cache_folder_one_line_says_what_to_set(published, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    copies.opened.clear()
    with pytest.raises(StoreError, match=f"the copy of '{URL}' in .* set XDG_CACHE_HOME to another folder"):
        patchmine.open_index(URL)


def test_a_path_that_has_lost_a_slash_is_the_url(published):
    assert patchmine.open_index(Path(URL)).name == URL
    assert patchmine.open_index(f"{URL}/").name == URL


def test_copies_beyond_the_bound_make_room_unless_they_are_used_or_hold_more_than_the_bucket(
    bucket, local, monkeypatch, tmp_path
):
    def opened(name):
        for file in ("activations.h5", "patches.faiss", "manifest.json"):
            bucket.pipe(f"/bucket/{name}/{file}", (local / file).read_bytes())
        return patchmine.open_index(f"memory://bucket/{name}").directory

    def later(*copies_):
        """End this process, which used these copies one after another."""
        for number, directory in enumerate(copies_):
            os.utime(directory.with_name("used.lock"), (number, number))
        for mark in room._marks.values():
            os.close(mark)
        room._marks.clear()
        copies.opened.clear()

    def kept(*copies_):
        return [(directory / "manifest.json").exists() for directory in copies_]

    monkeypatch.setattr(room, "_marks", {})
    size = sum((local / file).stat().st_size for file in ("activations.h5", "manifest.json"))
    monkeypatch.setenv("PATCHMINE_CACHE_GB", str(2.5 * size / 1e9))
    first, second, third = map(opened, ("1.patchmine", "2.patchmine", "3.patchmine"))
    assert kept(first, second, third) == [True, True, True]  # all in use
    (second / "findings").mkdir(exist_ok=True)
    (second / "findings/mine.json").write_text("{}")
    later(first, second, third)
    fourth = opened("4.patchmine")
    assert kept(first, second, third, fourth) == [False, True, False, True]
    assert opened("1.patchmine") == first  # fetched again
    assert kept(first) == [True]


def test_a_bound_that_is_no_size_is_refused(bucket, monkeypatch):
    monkeypatch.setenv("PATCHMINE_CACHE_GB", "much")
    with pytest.raises(RequestError, match="PATCHMINE_CACHE_GB must be a number of gigabytes, such as 20, not 'much'"):
        patchmine.open_index(URL)
