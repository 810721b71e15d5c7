"""A file that the system withholds is not taken for damaged: it is read all the same, or one line names the cause."""

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from filelock import FileLock

import patchmine
from patchmine.cli.commands import verify
from patchmine.errors import StoreError, UnreadableError
from patchmine.kept.tight_crops import Seat, TightCrop, Where
from patchmine.mining.workspace import Workspace
from patchmine.questions.verify import Finding
from patchmine.store import reading as store
from patchmine.system.progress import Silent
from patchmine.tight.tightening import Library
from patchmine.units import Box, Unit

CAUSES = {
    errno.EAGAIN: "locked by another program",
    errno.EACCES: "permission denied",
    errno.ENOMEM: "out of memory",
    errno.EMFILE: "too many open files",
    errno.EIO: "input/output error",
    errno.ESTALE: "stale file handle",
    errno.ETIMEDOUT: "timed out",
}


@pytest.fixture
def index_dir(shapes_index_dir, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(shapes_index_dir, tmp_path / "x.patchmine")


def withhold(monkeypatch, name, number):
    """From now on the system answers a request for files of that name with this errno."""
    real_open, real_h5 = Path.open, h5py.File

    def refused(file):
        if Path(str(file)).name == name:
            raise OSError(number, os.strerror(number), str(file))

    def opened(file, *words, **options):
        refused(file)
        return real_open(file, *words, **options)

    def h5(file, *words, **options):
        refused(file)
        return real_h5(file, *words, **options)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr("patchmine.store.hdf5.h5py.File", h5)


@pytest.mark.parametrize("name", [store.ACTIVATIONS, store.MANIFEST])
@pytest.mark.parametrize("number", CAUSES)
def test_each_cause_has_its_own_line_and_none_advises_a_new_index(index_dir, cli, monkeypatch, name, number):
    withhold(monkeypatch, name, number)
    for words in (["top", "--unit", "thing:0"], ["info"], ["units"]):
        done = cli(*words, "-i", index_dir)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"{name} cannot be read: " in line
        assert CAUSES[number] in line.lower()
        assert "damaged" not in line
        assert "--fresh" not in line


def test_a_lock_of_another_program_does_not_keep_a_reader_out(index_dir):
    with (index_dir / store.ACTIVATIONS).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert len(patchmine.open_index(index_dir).unit("thing:0").top(3)) == 3


def test_a_file_that_a_program_has_open_for_writing_is_said_to_be_so(index_dir):
    program = "import h5py, os, sys; file = h5py.File(sys.argv[1], 'r+', libver='v110'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", program, index_dir / store.ACTIVATIONS])
    with pytest.raises(UnreadableError, match="another program has it open for writing, or ended without closing it"):
        patchmine.open_index(index_dir)


@pytest.mark.parametrize("locking", [None, False, True])
def test_a_file_that_the_user_reads_in_the_same_process_is_read_all_the_same(index_dir, locking):
    with h5py.File(index_dir / store.ACTIVATIONS, locking=locking):
        index = patchmine.open_index(index_dir)
        assert len(index.unit("thing:0").top(3)) == 3
    index.store.close()
    index = patchmine.open_index(index_dir)
    with h5py.File(index_dir / store.ACTIVATIONS):
        assert len(index.unit("thing:0").top(3)) == 3


def test_a_read_that_fails_later_is_not_taken_for_damage(index_dir, monkeypatch):
    index = patchmine.open_index(index_dir)

    def failing(*_):
        raise KeyError("Unable to synchronously open object (file read failed: time = now, errno = 5, offset = 9)")

    monkeypatch.setattr("patchmine.store.hdf5.h5o.open", failing)
    with pytest.raises(UnreadableError, match="input/output error"):
        index.unit("thing:0").top(3)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_folder_without_locks_takes_an_index_all_the_same(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):  # the lock's file of the first run does not stop the second
        with Workspace(tmp_path / "x.patchmine").taken() as locked:
            assert not locked


def test_a_second_run_is_still_kept_out_where_there_are_locks(tmp_path):
    space = Workspace(tmp_path / "x.patchmine")
    with space.taken() as locked:
        assert locked
    with FileLock(space.directory / "index.lock"), pytest.raises(StoreError, match="another process"), space.taken():
        pass


def test_patches_faiss_that_is_withheld_stays_as_it_is(index_dir, monkeypatch, cli):
    before = (index_dir / store.PATCHES).read_bytes()
    expected = cli("similar", "-i", index_dir, "--unit", "thing:0", "-k", 5, "--json").stdout
    withhold(monkeypatch, store.PATCHES, errno.EACCES)
    done = cli("similar", "-i", index_dir, "--unit", "thing:0", "-k", 5, "--json")
    assert done.stdout == expected
    assert "permission denied" in done.stderr
    monkeypatch.undo()
    assert (index_dir / store.PATCHES).read_bytes() == before


def test_tight_crops_that_are_withheld_are_neither_set_aside_nor_written_over(index_dir, monkeypatch):
    index, unit = patchmine.open_index(index_dir), Unit("thing", 0)
    crops = {Where("0" * 32, 1, 0.8): TightCrop(Box(0, 0, 9, 9), 0.8, 0.1, 5)}
    index.tight_crops.write(unit, crops)
    file = index.tight_crops.file(unit)
    withhold(monkeypatch, file.name, errno.EMFILE)
    seat = Seat(unit, 0, 0)
    with pytest.raises(UnreadableError, match="too many open files"):
        Library(index, 0.8, Silent(), must_keep=True).lacking(unit, [seat])
    library = Library(index, 0.8, Silent(), must_keep=False)
    assert library.lacking(unit, [seat]) == [seat]
    library.add(seat, None)
    library.keep(unit)
    assert library.found(unit, [seat]) == {seat: None}
    monkeypatch.undo()
    assert index.tight_crops.read(unit) == crops
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("wrong", "way_out"),
    [
        (
            {"faiss": "x", "files": "patches.faiss is missing"},
            "remove .*patches.faiss: patchmine similar",
        ),
        ({"tight crops": "x"}, "remove its folder tight"),
        ({"photographs": "x"}, "restore the photographs or, if they are gone for good, .*--fresh"),
        ({"files": "activations.h5 is not the file that was published"}, "^build the index again with --fresh"),
        ({"ranking": "x", "faiss": "x"}, "^build the index again with --fresh"),
    ],
)
def test_only_what_cannot_be_made_again_is_a_reason_to_build_the_index_again(shapes_index, wrong, way_out):
    findings = [Finding(check, "", (text,)) for check, text in wrong.items()]
    assert re.search(way_out, verify._way_out(shapes_index, [Finding("manifest", ""), *findings]))


def test_an_index_of_a_newer_patchmine_is_left_alone(index_dir, cli):
    (index_dir / store.MANIFEST).write_text('{"format": 99}')
    done = cli("info", "-i", index_dir)
    assert done.stderr.endswith("update patchmine to read it\n")


def test_a_link_to_a_place_that_is_not_mounted_is_said_to_lead_there(tmp_path, cli):
    (tmp_path / "x.patchmine").symlink_to(tmp_path / "drive" / "x.patchmine")
    done = cli("info", "-i", "x.patchmine")
    assert "leads to" in done.stderr
    assert "build it" not in done.stderr


def test_memory_that_runs_out_is_one_line(index_dir, cli, monkeypatch):
    def greedy(*_):
        raise MemoryError

    monkeypatch.setattr(store.Store, "table_on_disk", greedy)
    done = cli("top", "-i", index_dir, "--unit", "thing:0", "--pick", "bottom")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "out of memory" in done.stderr
