"""Photographs in tars and zips: what counts, what it is called, and what damaged or hostile archives do."""

import json
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, _files, open_source
from patchmine.sources import _tar_headers as tar_headers
from patchmine.sources import zip as zips
from tests.conftest import jpeg, tarred, zipped

needs_gnu_tar = pytest.mark.skipif(
    "GNU" not in subprocess.run("tar --version", shell=True, capture_output=True, text=True).stdout,
    reason="only GNU tar packs like this",
)

PHOTOGRAPH = jpeg(Image.new("RGB", (8, 8)))


def classes(spec):
    return {entry.path: entry.class_name for entry in open_source(str(spec)).entries()}


def packed(place, kind, members):
    """An archive of that kind with these members."""
    pack = {"tar": tarred, "zip": zipped}[kind]
    return pack(place / f"photographs.{kind}", members)


# Both


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_paths_and_classes_are_those_of_the_unpacked_folder(tmp_path, kind):
    names = ("n01443537/x.JPEG", "n01443537/deep/y.png", "z.jpg", "photo.1.jpg", "photo.2.jpg", "a b/ü'\n.gif")
    other = ("notes.txt", ".hidden.jpg", ".git/w.png", "__MACOSX/._z.jpg", "a/._b.jpg", "list.jpg.bak")
    file = packed(tmp_path, kind, dict.fromkeys((*names, *other), PHOTOGRAPH))
    folder = tmp_path / "folder"
    for name in (*names, *other):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PHOTOGRAPH)
    source = open_source(str(file))
    assert source.entries() == open_source(str(folder)).entries()
    assert {entry.path for entry in source.entries()} == set(names)
    assert all(source.read(name) == PHOTOGRAPH for name in names)
    assert source.name == "photographs"
    assert source.spec == str(file)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_packed_from_a_dot_lose_it(tmp_path, kind):
    file = packed(tmp_path, kind, {"./dog/1.jpg": PHOTOGRAPH, "dog//2.jpg": PHOTOGRAPH})
    assert classes(file) == {"dog/1.jpg": "dog", "dog/2.jpg": "dog"}
    assert open_source(str(file)).read("dog/2.jpg") == PHOTOGRAPH


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "a/.."])
def test_a_name_that_leads_out_is_refused_when_listed_and_when_read(tmp_path, kind, name):
    file = packed(tmp_path, kind, {"ok.jpg": PHOTOGRAPH, name: PHOTOGRAPH})
    source = open_source(str(file))
    with pytest.raises(SourceError, match="a path outside it: repack it") as caught:
        source.entries()
    assert repr(name) in str(caught.value)
    for path in (name, "ok.jpg"):
        with pytest.raises(PhotographError):
            source.read(path)
    assert sorted(place.name for place in tmp_path.iterdir()) == [file.name]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_of_two_members_of_one_name_the_later_counts(tmp_path, kind):
    file = packed(tmp_path, kind, {"a.jpg": b"old", "./a.jpg": b"new"})
    assert classes(file) == {"a.jpg": None}
    assert open_source(str(file)).read("a.jpg") == b"new"


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_without_images_is_refused_naming_it_and_the_suffixes(tmp_path, kind):
    file = packed(tmp_path, kind, {"notes.txt": b"nothing"})
    with pytest.raises(
        SourceError, match=r"no images in '.*': looked for members ending in \.jpg \.jpeg \.jpe .*; found 1 \.txt"
    ):
        classes(file)


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("content", [b"", b"junk", b"junk" * 1000, b"\0" * 100])
def test_a_file_that_only_has_the_name_is_refused_in_one_line(tmp_path, kind, content):
    file = tmp_path / f"x.{kind}"
    file.write_bytes(content)
    with pytest.raises(SourceError, match=r"x\..* is (empty|not a tar|not a zip|cut short)") as caught:
        classes(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(PhotographError):
        open_source(str(file)).read("a.jpg")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_fifo_in_the_place_of_an_archive_is_refused_and_not_waited_for(tmp_path, kind):
    os.mkfifo(tmp_path / f"x.{kind}")
    with pytest.raises(SourceError, match="not a regular file"):
        classes(tmp_path / f"x.{kind}")
    with pytest.raises(PhotographError, match="not a regular file"):
        open_source(str(tmp_path / f"x.{kind}")).read("a.jpg")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_that_changed_is_read_as_it_is_now(tmp_path, kind):
    file = packed(tmp_path, kind, {"a.jpg": PHOTOGRAPH, "b.jpg": b"2"})
    source = open_source(str(file))
    assert source.read("a.jpg") == PHOTOGRAPH
    packed(tmp_path, kind, {"b.jpg": b"other", "c.jpg": PHOTOGRAPH})
    assert source.read("b.jpg") == b"other"
    with pytest.raises(PhotographError, match="not in "):
        source.read("a.jpg")
    file.unlink()
    with pytest.raises(PhotographError, match="cannot be read: No such file"):
        source.read("b.jpg")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_threads_read_at_once_without_disturbing_each_other(tmp_path, kind):
    members = {f"{number:03d}.jpg": bytes([number]) * (1000 * number + 1) for number in range(100)}
    source = open_source(str(packed(tmp_path, kind, members)))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, list(members) * 5)) == list(members.values()) * 5


# Tars


def shards(place, count=3):
    """Three samples a shard: the class in cls, in cls.txt, and in json."""
    for number in range(count):
        tarred(
            place / f"val-{number:04d}.tar",
            {
                "b.jpg": PHOTOGRAPH,
                "b.cls": b"7\n",
                "a.jpg": PHOTOGRAPH,
                "a.cls.txt": "Größe".encode(),
                "c.png": PHOTOGRAPH,
                "c.json": json.dumps({"label": 3, "class_name": "tench"}).encode(),
            },
        )
    return str(place / f"val-{{0000..{count - 1:04d}}}.tar")


def test_a_sample_says_its_class_and_several_tars_lend_their_names(tmp_path):
    source = open_source(shards(tmp_path))
    expected = {"a.jpg": "Größe", "b.jpg": "7", "c.png": "tench"}
    assert source.entries() == [
        Entry(f"val-{number:04d}.tar/{name}", said) for number in range(3) for name, said in expected.items()
    ]
    assert classes(tmp_path / "val-0001.tar") == expected
    assert source.name == "val"
    assert open_source(str(tmp_path / "val-0001.tar")).name == "val-0001"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"dog/1.cls": b"cat"}, "cat"),
        ({"dog/1.cls": b" \n"}, "dog"),
        ({"dog/1.CLS": b"cat"}, "cat"),
        ({"cat/1.cls": b"cat"}, "dog"),
        ({"dog/1.x.cls": b"cat"}, "dog"),
        ({"dog/1.cls": b"0", "dog/1.json": b'{"class": "cat"}'}, "0"),
        ({"dog/1.json": b'{"class": "cat"}'}, "cat"),
        ({"dog/1.json": b'{"cls": 5}'}, "5"),
        ({"dog/1.json": b'{"label": 0}'}, "0"),
        ({"dog/1.json": b'{"label": true, "class": ["cat", "owl"]}'}, "dog"),
        ({"dog/1.json": b'{"Label": ["cat"]}'}, "cat"),
        ({"dog/1.json": b'{"category": 3.0}'}, "3"),
        ({"dog/1.json": b'{"caption": "a cat"}'}, "dog"),
        ({"dog/1.json": b'["cat"]'}, "dog"),
        ({"dog/1.json": b"{broken"}, "dog"),
        ({"dog/1.json": b"[" * 100_000}, "dog"),
        ({"dog/1.cls": b"x" * ((1 << 20) + 1)}, "dog"),
        ({"dog/1.cls": b"\xff"}, "\udcff"),
    ],
)
def test_the_class_is_what_the_sample_says_else_the_first_folder(tmp_path, members, said):
    file = tarred(tmp_path / "x.tar", {"dog/1.seg.jpg": PHOTOGRAPH, **members})
    assert classes(file) == {"dog/1.seg.jpg": said}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_other_members_are_counted_and_links_named(tmp_path, kind):
    file = packed(tmp_path, kind, {"1.jpg": PHOTOGRAPH, "2.heic": b"", "3.HEIC": b"", "notes.txt": b"", "4": b""})
    if kind == "tar":
        with tarfile.open(file, "a") as tar:
            link = tarfile.TarInfo("good")
            link.type, link.linkname = tarfile.SYMTYPE, "good"
            tar.addfile(link)
    else:
        with zipfile.ZipFile(file, "a") as archive:
            link = zipfile.ZipInfo("good")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "good")
    passed = open_source(str(file)).listed().passed
    assert passed.counted() == {".heic": 2, ".txt": 1, "other": 1}
    assert passed.left_out == {"good": f"a symbolic link in the {kind}"}


def test_members_that_give_classes_are_not_counted_and_json_without_any_is_told(tmp_path):
    said = {"1.jpg": PHOTOGRAPH, "1.json": b'{"species": "oak", "__key__": "1"}', "2.cls": b"7", "2.heic": b""}
    found = open_source(str(tarred(tmp_path / "x.tar", said))).listed()
    assert found.passed.counted() == {".heic": 1, ".cls": 1}
    assert len(found.notes) == 1
    assert "the samples' JSON names no class: its keys are 'species'" in found.notes[0]


def test_a_missing_tar_is_named_with_those_that_are_there(tmp_path):
    spec = shards(tmp_path, 8)
    (tmp_path / "val-0005.tar").unlink()
    source = open_source(spec)
    with pytest.raises(SourceError) as caught:
        source.entries()
    assert str(caught.value) == (
        f"1 of the 8 tars {spec!r} are missing, first 'val-0005.tar'; "
        "found: val-0000.tar, val-0001.tar, val-0002.tar, ..., val-0007.tar"
    )
    # What is there can still be looked at.
    assert source.read("val-0004.tar/a.jpg") == PHOTOGRAPH
    with pytest.raises(PhotographError, match="No such file"):
        source.read("val-0005.tar/a.jpg")
    with pytest.raises(PhotographError, match="not in any of the tars"):
        source.read("val-0008.tar/a.jpg")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{8..10}.tar", ["8", "9", "10"]),
        ("{08..10}.tar", ["08", "09", "10"]),
        ("{2..0}.tar", ["2", "1", "0"]),
        ("v{a,b}-{0..1}.tar", ["va-0", "va-1", "vb-0", "vb-1"]),
        ("{,x-}a.tar", ["a", "x-a"]),
        ("{a,a}.tar", ["a"]),
        ("v{x}{}.{0,1}.tar", ["v{x}{}.0", "v{x}{}.1"]),
    ],
)
def test_braces_mean_what_they_mean_to_a_shell(tmp_path, monkeypatch, pattern, names):
    monkeypatch.chdir(tmp_path)
    for name in names:
        tarred(tmp_path / f"{name}.tar", {"1.jpg": PHOTOGRAPH})
    assert list(classes(pattern)) == sorted(f"{name}.tar/1.jpg" for name in names)
    bare = pattern.replace("{}", "").replace("{x}", "")
    printed = subprocess.run(["bash", "-c", f"echo {bare}"], capture_output=True, text=True, check=True).stdout.split()
    assert {f"{name}.tar".replace("{}", "").replace("{x}", "") for name in names} == set(printed)


@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        ("{0..999999999999}.tar", "{0..999999999999} expands to more than 100,000 tars"),
        ("{0..999}{0..999}.tar", "expands to more than 100,000 tars"),
        ("{a,b}/0.tar", "includes two tars named '0.tar'"),
    ],
)
def test_braces_that_cannot_be_served_are_refused(pattern, answer):
    with pytest.raises(SourceError) as caught:
        open_source(pattern)
    assert answer in str(caught.value)


def test_the_name_of_an_index_comes_from_before_the_braces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("val-0.tar", "a.tar", "b.tar", "x{1}.TAR"):
        tarred(tmp_path / name, {"1.jpg": PHOTOGRAPH})
    assert open_source("val-{0..0}.tar").name == "val"
    assert open_source("{a,b}.tar").name == "photographs"
    assert open_source("x{1}.TAR").name == "x{1}"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_is_read_as_tarfile_reads_it(tmp_path, format):
    names = ["a.jpg", "caf\udce9/\udcff.jpg", "d" * 90 + "/" + "e" * 90 + ".jpg", "ü.jpg"]
    if format != tarfile.USTAR_FORMAT:
        names.append("/".join(["f" * 200] * 4) + ".jpg")
    members = {name: bytes([number]) * 600 * number for number, name in enumerate(names)}
    file = tarred(tmp_path / "x.tar", members, format=format, errors="surrogateescape")
    with tarfile.open(file) as tar, _files.opened(str(file)) as opened:
        expected = [(member.name, member.offset_data, member.size) for member in tar.getmembers()]
        assert [tuple(member)[:3] for member in tar_headers.members(opened.read, opened.size, "x")] == expected
    source = open_source(str(file))
    assert {entry.path: source.read(entry.path) for entry in source.entries()} == members


def test_sizes_beyond_their_field_are_read(tmp_path):
    gnu, pax = tarfile.TarInfo("a.jpg"), tarfile.TarInfo("a.jpg")
    gnu.size = pax.size = 1 << 34
    for header in (gnu.tobuf(tarfile.GNU_FORMAT), pax.tobuf(tarfile.PAX_FORMAT)):
        with (tmp_path / "x.tar").open("wb+") as file:
            file.write(header)
            file.truncate(len(header) + (1 << 34) + 1024)
            file.flush()
            with _files.opened(file.name) as opened:
                found = list(tar_headers.members(opened.read, opened.size, "x"))
            assert [member.size for member in found] == [1 << 34]


@needs_gnu_tar
def test_what_gnu_tar_packs_is_read(tmp_path):
    folder = tmp_path / "folder"
    (folder / "dog").mkdir(parents=True)
    for number in range(3):
        (folder / "dog" / f"{number}.jpg").write_bytes(PHOTOGRAPH * number)
    (folder / "dog" / "link.jpg").symlink_to("1.jpg")
    os.link(folder / "dog" / "2.jpg", folder / "dog" / "hard.jpg")
    with (folder / "holes.jpg").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(PHOTOGRAPH)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    for format in ("gnu", "posix"):
        file = tmp_path / f"{format}.tar"
        subprocess.run(["tar", "-S", f"--format={format}", "--sort=name", "-cf", file, "-C", folder, "."], check=True)
        source = open_source(str(file))
        names = [f"dog/{name}.jpg" for name in ("0", "1", "2", "hard", "link")]
        assert [entry.path for entry in source.entries()] == [*names, "holes.jpg", "pipe.jpg"]
        assert source.read("dog/1.jpg") == PHOTOGRAPH
        reasons = {"dog/hard.jpg": "a hard link", "dog/link.jpg": "a symbolic link"}
        for path, reason in (reasons | {"holes.jpg": "a sparse file", "pipe.jpg": "a FIFO"}).items():
            with pytest.raises(PhotographError, match=f"{reason} in the tar, not a regular file"):
                source.read(path)


@needs_gnu_tar
def test_a_sparse_member_with_a_long_map_does_not_hide_what_follows(tmp_path):
    with (tmp_path / "holes.jpg").open("wb") as file:
        for number in range(60):
            file.seek(number << 16)
            file.write(PHOTOGRAPH)
    (tmp_path / "z.jpg").write_bytes(PHOTOGRAPH)
    for format in ("gnu", "posix"):
        command = ["tar", "-S", f"--format={format}", "-cf", "x.tar", "holes.jpg", "z.jpg"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert open_source(str(tmp_path / "x.tar")).read("z.jpg") == PHOTOGRAPH


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.TAR.BZ2", "x.tar.zst"])
def test_a_compressed_tar_is_refused_saying_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    to_do = "cannot be read in place: unpack it, or repack it without compression"
    with pytest.raises(SourceError, match=f"is a compressed tar, which {to_do}"):
        open_source(str(tmp_path / name))
    with tarfile.open(tmp_path / "hidden.tar", "w:gz"):
        pass
    with pytest.raises(SourceError, match=rf"'.*hidden\.tar' is compressed and {to_do}"):
        classes(tmp_path / "hidden.tar")


def test_a_tar_that_is_cut_short_anywhere_is_refused_naming_the_place(tmp_path):
    whole = tarred(tmp_path / "whole.tar", {"a.jpg": PHOTOGRAPH, "b.jpg": PHOTOGRAPH}).read_bytes()
    length = 512 + (len(PHOTOGRAPH) + 511) // 512 * 512
    file = tmp_path / "cut.tar"
    places = {
        100: "is not a tar",
        512: "is cut short inside 'a.jpg'",
        length - 1: "is cut short after 'a.jpg'",
        length: "is cut short after 'a.jpg'",
        length + 100: "is cut short after 'a.jpg'",
        length + 600: "is cut short inside 'b.jpg'",
        2 * length: "is cut short after 'b.jpg'",
    }
    for place, answer in places.items():
        file.write_bytes(whole[:place])
        with pytest.raises(SourceError) as caught:
            classes(file)
        assert answer in str(caught.value), place
    file.write_bytes(whole[: 2 * length + 512])
    assert list(classes(file)) == ["a.jpg", "b.jpg"]


def test_a_damaged_header_is_refused_and_not_taken_for_the_end(tmp_path):
    file = tarred(tmp_path / "x.tar", {"a.jpg": b"1", "b.jpg": b"2", "c.jpg": b"3"})
    data = bytearray(file.read_bytes())
    data[1024] ^= 1
    file.write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.tar' is damaged after 'a\.jpg': download or repack it"):
        classes(file)


def forged(name, size, kind=b"0"):
    """A header with a good checksum and whatever is in it."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108] = b"0000644\0"
    header[124:136] = size
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("tar", "answer"),
    [
        (forged(b"a.jpg", b"77777777777\0"), "cut short inside 'a.jpg'"),
        (forged(b"a.jpg", b"-0000000100\0"), "not a tar"),
        (forged(b"a.jpg", b"\xff" * 12), "cut short inside 'a.jpg'"),
        (forged(b"a.jpg", b"junk\0\0\0\0\0\0\0\0"), "not a tar"),
        (forged(b"long", b"77777777777\0", b"L"), "damaged at its start"),
        (forged(b"pax", b"00000000020\0", b"x") + b"99999999999999999999 path=x\n".ljust(512), "cut short"),
        (forged(b"pax", b"00000002000\0", b"x") + b"9" * 1024 + forged(b"a.png", b"0" * 11 + b"\0"), "cut short after"),
        (forged(b"a.jpg", b"00000000000\0", b"S")[:482] + b"\1" * 30, "not a tar"),
    ],
)
def test_forged_headers_end_in_one_line(tmp_path, tar, answer):
    (tmp_path / "x.tar").write_bytes(tar)
    with pytest.raises(SourceError) as caught:
        classes(tmp_path / "x.tar")
    assert answer in str(caught.value)


def test_a_member_too_large_for_a_photograph_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(forged(b"a.jpg", b"10000000001\0"))
        file.truncate(512 + (1 << 30) + 512 + 1024)
    assert classes(tmp_path / "x.tar") == {"a.jpg": None}
    with pytest.raises(PhotographError, match="larger than 1 GiB"):
        open_source(str(tmp_path / "x.tar")).read("a.jpg")


def test_reading_from_one_tar_of_many_looks_at_no_other(tmp_path, monkeypatch):
    source = pickle.loads(pickle.dumps(open_source(shards(tmp_path, 10))))
    looked, members = [], tar_headers.members
    monkeypatch.setattr("patchmine.sources.tar.members", lambda *at: looked.append(at[-1]) or members(*at))
    for _ in range(3):
        source.read("val-0004.tar/a.jpg")
        source.read("val-0006.tar/b.jpg")
    assert looked == [str(tmp_path / "val-0004.tar"), str(tmp_path / "val-0006.tar")]


# Zips


def test_stored_and_deflated_members_are_read(tmp_path):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = zipped(tmp_path / "x.ZIP", {"a.jpg": PHOTOGRAPH, "empty.jpg": b""}, compression)
        source = open_source(str(file))
        assert [source.read(name) for name in ("a.jpg", "empty.jpg")] == [PHOTOGRAPH, b""]
    file.write_bytes(b"#!/bin/sh\n" * 99 + file.read_bytes())  # as in an archive that unpacks itself
    assert open_source(str(file)).read("a.jpg") == PHOTOGRAPH


def test_other_compressions_are_refused_by_number(tmp_path):
    file = zipped(tmp_path / "x.zip", {"a.jpg": PHOTOGRAPH}, zipfile.ZIP_BZIP2)
    with pytest.raises(PhotographError, match="compressed with unsupported method 12: repack it with deflate"):
        open_source(str(file)).read("a.jpg")


def test_a_link_in_a_zip_is_not_followed(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(PhotographError, match="a symbolic link in the zip"):
        open_source(str(tmp_path / "x.zip")).read("a.jpg")


def altered(place, **change):
    """A zip of one photograph whose table of contents is not true, or is of an encrypted member."""
    data = bytearray(zipped(place / "x.zip", {"a.jpg": bytes(100_000)}).read_bytes())
    table = data.index(b"PK\1\2")
    offsets = {"flags": (8, "<H"), "checksum": (16, "<I"), "packed": (20, "<I"), "size": (24, "<I"), "at": (42, "<I")}
    for name, value in change.items():
        offset, form = offsets[name]
        struct.pack_into(form, data, table + offset, value)
    (place / "x.zip").write_bytes(data)
    return open_source(str(place / "x.zip"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"flags": 1}, "encrypted"),
        ({"checksum": 1}, "damaged: wrong length or checksum"),
        ({"size": 99_999}, "damaged: wrong length or checksum"),
        ({"size": 100_001}, "damaged: wrong length or checksum"),
        ({"size": 0}, "damaged: wrong length or checksum"),
        ({"size": (1 << 30) + 1}, "larger than 1 GiB"),
        ({"packed": 10}, "damaged: wrong length or checksum"),
        ({"packed": (1 << 30) + 1}, "larger than 1 GiB"),
        ({"at": 1}, "damaged: not at the offset that the zip gives"),
        ({"at": 0x7FFFFFFF}, "damaged: not at the offset that the zip gives"),
    ],
)
def test_a_member_that_is_not_as_declared_is_refused(tmp_path, change, reason):
    source = altered(tmp_path, **change)
    assert source.entries() == [Entry("a.jpg", None)]
    with pytest.raises(PhotographError, match=reason):
        source.read("a.jpg")


def test_no_more_is_unpacked_than_declared(tmp_path, monkeypatch):
    asked, real = [], zlib.decompressobj
    source = altered(tmp_path, size=10)
    monkeypatch.setattr(zips.zlib, "decompressobj", lambda *bits: Counting(real(*bits), asked))
    with pytest.raises(PhotographError, match="damaged"):
        source.read("a.jpg")
    assert asked == [11]


class Counting:
    """An unpacker that notes how many bytes it is asked for."""

    def __init__(self, real, asked):
        self.real, self.asked = real, asked

    def decompress(self, data, most):
        self.asked.append(most)
        return self.real.decompress(data, most)


def test_deflated_rubbish_is_damage(tmp_path):
    file = zipped(tmp_path / "x.zip", {"a.jpg": bytes(range(256)) * 40})
    data = bytearray(file.read_bytes())
    data[35 + 4 : 35 + 60] = b"\xff" * 56
    file.write_bytes(data)
    with pytest.raises(PhotographError, match="damaged"):
        open_source(str(file)).read("a.jpg")


def test_a_zip_that_is_cut_short_is_refused(tmp_path):
    file = zipped(tmp_path / "x.zip", {"a.jpg": PHOTOGRAPH})
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(SourceError, match=r"x\.zip' is not a zip, or is damaged"):
        classes(file)


@pytest.mark.parametrize(
    ("raw", "system", "name"),
    [
        ("ü/1.jpg".encode(), 3, "ü/1.jpg"),
        (b"caf\xe9/1.jpg", 3, "caf\udce9/1.jpg"),
        ("ü/1.jpg".encode("cp437"), 0, "ü/1.jpg"),
    ],
)
def test_names_without_the_mark_for_utf8_are_what_they_would_be_unpacked_to(tmp_path, raw, system, name):
    data = bytearray(zipped(tmp_path / "x.zip", {"~" * len(raw): PHOTOGRAPH}).read_bytes())
    table = data.index(b"PK\1\2")
    data[table + 5] = system
    file = tmp_path / "x.zip"
    file.write_bytes(bytes(data).replace(b"~" * len(raw), raw))
    assert list(classes(file)) == [name]
    assert open_source(str(file)).read(name) == PHOTOGRAPH
