"""What a command writes appears whole or not at all, and what cannot be kept beside it does not take it along."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image

import patchmine
from patchmine.errors import RequestError, StoreError
from patchmine.mining.workspace import Workspace
from patchmine.synthesis import library
from patchmine.synthesis.recipe import Recipe
from patchmine.system import atomic, caches
from patchmine.system.progress import Silent
from patchmine.units import Unit


@pytest.fixture
def index_dir(shapes_index_dir, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(shapes_index_dir, tmp_path / "x.patchmine")


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that has no room left for what is written."""

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)


@pytest.fixture
def closed(monkeypatch):
    """Folders in which nothing can be created; a superuser may write anywhere, so the system's answer is set."""
    folders = set()
    real = os.access

    def access(path, mode):
        return not (mode & os.W_OK and Path(path).resolve() in folders) and real(path, mode)

    monkeypatch.setattr(atomic.os, "access", access)
    return lambda folder: folders.add(Path(folder).resolve())


class Notes(Silent):
    def __init__(self):
        self.noted = []

    def note(self, text):
        self.noted.append(text)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize("words", [["top", "--unit", "thing:0", "-k", 2], ["sheet", "--unit", "thing:0", "-k", 1]])
def test_a_full_disk_leaves_an_older_sheet_as_it_was_and_no_torso(index_dir, tmp_path, cli, full_disk, suffix, words):
    old, new = tmp_path / f"old.{suffix}", tmp_path / f"new.{suffix}"
    old.write_bytes(b"an older sheet")
    for target in (old, new):
        done = cli(*words, "-i", index_dir, "-o", target)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"{target}' cannot be written: No space left on device" in line
    assert old.read_bytes() == b"an older sheet"
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.patchmine", old.name}


def test_names_are_kept_whole_and_the_file_that_does_not_fit_is_named(index_dir, cli, monkeypatch, full_disk):
    done = cli("name", "thing:0", "koi", "-i", index_dir)
    assert done.stderr == f"patchmine: No space left on device: {index_dir / 'names.json'}\n"
    assert not list(index_dir.glob(".*"))


def test_permissions_and_links_of_an_older_file_are_kept(tmp_path):
    target, link = tmp_path / "a.png", tmp_path / "link.png"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to("a.png")
    atomic.deliver(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    (tmp_path / "dangling.png").symlink_to("b.png")
    atomic.deliver(tmp_path / "dangling.png", b"new")
    assert (tmp_path / "b.png").read_bytes() == b"new"


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        atomic.deliver(tmp_path / "a.png", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder.png", "is a folder"),
        ("no/a.png", "folder '.*no' not found"),
        ("away.png", "folder '.*gone' not found"),
        ("closed/a.png", r"closed' cannot be written \(Permission denied\)"),
        ("closed/old.png", "is write-protected"),
        (f"{'a' * 300}.png", "File name too long"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_the_work(index_dir, tmp_path, cli, closed, name, reason):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "old.png").write_bytes(b"old")
    (tmp_path / "away.png").symlink_to(tmp_path / "gone" / "a.png")
    closed(tmp_path / "closed")
    closed(tmp_path / "closed" / "old.png")
    with pytest.raises(RequestError, match=reason):
        atomic.check_target(tmp_path / name)
    for words in (["top", "--unit", "nothing"], ["synth", "--unit", "nothing"], ["compare", "--unit", "nothing"]):
        done = cli(*words, "-i", index_dir, "-o", name)  # the target is looked at before the unit
        assert "nothing" not in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_device_is_written_as_it_is(tmp_path):
    full, null = tmp_path / "full.png", tmp_path / "null.png"
    full.symlink_to("/dev/full")
    null.symlink_to("/dev/null")
    with pytest.raises(RequestError, match=r"full.png' cannot be written: No space left on device"):
        atomic.deliver(full, b"new")
    atomic.deliver(null, b"new")
    assert full.is_char_device()
    assert null.is_char_device()


def test_a_file_whose_folder_takes_no_other_is_written_over(tmp_path, monkeypatch):
    """As where it is mounted by itself."""
    target = tmp_path / "a.png"
    target.write_bytes(b"older and longer")

    def refuse(*_):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "replace", refuse)
    number = target.stat().st_ino
    atomic.deliver(target, b"new")
    assert (target.read_bytes(), target.stat().st_ino) == (b"new", number)

    def fail_halfway(descriptor, data):
        os.write(descriptor, data if data == b"new" else data[:2])
        if data != b"new":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "_write", fail_halfway)
    with pytest.raises(RequestError, match="what was there is as it was"):
        atomic.deliver(target, b"newer")
    assert target.read_bytes() == b"new"


def test_an_image_that_the_index_cannot_keep_still_reaches_its_file(index_dir, tmp_path, cli, closed):
    closed(index_dir)
    words = ["synth", "-i", index_dir, "--unit", "shape:0", "--steps", 2]
    done = cli(*words, "-o", "a.png", "--json")
    assert done.returncode == 0, done.stderr
    assert "cannot be kept" in done.stderr
    (image,) = json.loads(done.stdout)["units"][0]["images"]
    assert image["file"] is None
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (image["width"], image["height"])
    assert not (index_dir / "synthetic").exists()
    for nowhere in (words, ["synth", "-i", index_dir, "--all-in", "shape", "--steps", 2]):
        done = cli(*nowhere)
        assert done.returncode == 1
        assert "cannot be kept" in done.stderr.splitlines()[-1]


def test_images_without_files_are_those_that_would_be_kept(index_dir, tmp_path, full_disk, monkeypatch):
    unit, recipe, notes = Unit("shape", 0), Recipe(steps=2, images=2, objective="diverse"), Notes()
    index = patchmine.open_index(index_dir)
    loose = library.images_of(index, unit, recipe, progress=notes)
    assert ["No space left on device" in text for text in notes.noted] == [True]
    monkeypatch.undo()
    kept = library.images_of(index, unit, recipe)
    for one, other in zip(loose, kept, strict=True):
        assert one.file is None
        assert {**one.as_dict(), "file": ""} == {**other.as_dict(), "file": ""}
        assert (one.picture == other.picture).all()


def test_work_whose_result_cannot_be_kept_does_not_begin(index_dir, tmp_path, closed):
    index = patchmine.open_index(index_dir)
    closed(index_dir)
    index.use(watching=lambda: nullcontext(Silent()), loading=pytest.fail)
    with pytest.raises(StoreError, match="cannot be kept in .*Permission denied"):
        list(index.tighten(["thing:0"], k=1))
    closed(tmp_path)
    with pytest.raises(StoreError, match="cannot be written: Permission denied"):
        Workspace(tmp_path / "new.patchmine").refuse()
    Workspace(index_dir).refuse()  # a finished index is only read


def test_names_are_refused_before_labels_are_computed(index_dir, cli, closed):
    closed(index_dir)
    for words in (["name", "thing:0", "koi"], ["name", "--auto"]):
        assert "cannot be written (Permission denied)" in cli(*words, "-i", index_dir).stderr


def test_a_report_without_a_place_is_refused_before_the_study(index_dir, tmp_path, cli, closed):
    closed(tmp_path)
    done = cli("why", "-i", index_dir, "--unit", "nothing", "-o", tmp_path / "why")
    assert "the report cannot be written" in done.stderr


@pytest.mark.parametrize("words", ["units", "units --json", "info", "top --unit thing:0 --csv"])
def test_output_that_finds_no_room_is_one_line(index_dir, words):
    command = [sys.executable, "-m", "patchmine", *words.split(), "-i", str(index_dir)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "patchmine: No space left on device\n")


def test_closed_output_is_no_fault(index_dir):
    done = subprocess.run(
        f"{sys.executable} -m patchmine top --unit thing:0 --csv -i {index_dir} >&-",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(OSError, match="Not a directory"):
        caches.user_cache().mkdir(parents=True)


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="a system without SIGPIPE")
def test_a_reader_that_goes_away_ends_a_command_and_a_broken_socket_does_not():
    lines = (
        "import socket, sys; from patchmine.cli import output; output.end_with_readers()",
        "one, other = socket.socketpair(); other.close()",
        "try: one.send(b'.')\nexcept BrokenPipeError: print('alive', flush=True)",
        "sys.stdin.readline()",
        "print('x' * 100_000)",
        "print('not reached', file=sys.stderr)",
    )
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", "\n".join(lines)], text=True, **piped) as process:
        assert process.stdout.readline() == "alive\n"
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == -signal.SIGPIPE
