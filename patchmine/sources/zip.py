"""Photographs in a zip, read in place: paths and classes are those of the unpacked folder."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from os import fstat
from pathlib import Path
from stat import S_ISLNK
from typing import TYPE_CHECKING, NamedTuple

from patchmine.buckets.urls import is_url
from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, Listed, Passed, absolute, class_in_path, not_found, packed_path, suffixes
from patchmine.system.regular_files import LIMIT, TOO_LARGE, is_folder, is_there, opened, read_at

if TYPE_CHECKING:
    from zipfile import ZipInfo

HELP = "a .zip"

STORED, DEFLATED = 0, 8

ENCRYPTED, UTF8 = 0x1, 0x800
"""Bits of a member's flags."""

UNIX = 3
"""A member's `create_system` if it was packed on Unix."""

LINK = "a symbolic link in the zip"

CACHED_ZIPS = 4


class Member(NamedTuple):
    """A member's entry in the table of contents. `header` is the offset of its local header; sizes are in bytes."""

    header: int
    packed: int
    size: int
    checksum: int
    method: int
    flags: int
    is_link: bool


@dataclass(frozen=True)
class Zip:
    """`spec` is the absolute path."""

    spec: str
    kind: str = "zip"

    @property
    def name(self) -> str:
        return Path(self.spec).stem

    def entries(self) -> list[Entry]:
        return self.listed().entries

    def listed(self) -> Listed:
        try:
            with opened(self.spec) as descriptor:
                status = fstat(descriptor)
            table = _members(self.spec, status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise SourceError(f"{self.spec!r} cannot be read: {error.strerror}") from None
        passed, known, found = Passed(), suffixes(), list[Entry]()
        for path, member in sorted(table.items()):
            if path.lower().endswith(known):
                found.append(Entry(path, class_in_path(path)))
            elif member.is_link:
                passed.left_out[path] = LINK
            else:
                passed.add(path)
        if not found:
            raise SourceError(
                f"no images in {self.spec!r}: looked for members ending in {' '.join(known)}{passed.clause()}"
            )
        return Listed(found, passed)

    def read(self, path: str) -> bytes:
        try:
            with opened(self.spec) as descriptor:
                status = fstat(descriptor)
                member = _members(self.spec, status.st_mtime_ns, status.st_size).get(path)
                if member is None:
                    raise PhotographError(f"not in {self.spec!r}")
                return _unpacked(descriptor, member)
        except PhotographError:
            raise
        except SourceError as error:
            raise PhotographError(str(error)) from None
        except OSError as error:
            raise PhotographError(f"{self.spec!r} cannot be read: {error.strerror}") from None


def claim(spec: str) -> Zip | None:
    path = Path(spec).expanduser()
    if not spec.lower().endswith(".zip") or is_folder(path) or is_url(spec):
        return None
    if not is_there(path):
        raise SourceError(not_found("zip", spec, (".zip",)))
    return Zip(absolute(path))


@lru_cache(CACHED_ZIPS)
def _members(path: str, _changed_ns: int, _size: int) -> dict[str, Member]:
    """The members of a zip that a folder would show, by path, cached until the file changes."""
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(path) as archive:
            infos = archive.infolist()
    except (BadZipFile, ValueError, OverflowError, NotImplementedError, EOFError, struct.error) as error:
        raise SourceError(f"{path!r} is not a zip, or is damaged ({error}): download or repack it") from None
    named = ((packed_path(_name(info), path), info) for info in infos if not info.is_dir())
    return {name: _member(info) for name, info in named if name is not None}


def _member(info: ZipInfo) -> Member:
    return Member(
        info.header_offset,
        info.compress_size,
        info.file_size,
        info.CRC,
        info.compress_type,
        info.flag_bits,
        S_ISLNK(info.external_attr >> 16),
    )


def _name(info: ZipInfo) -> str:
    """The member's name as unpacking would give it. Without the UTF-8 flag, zipfile decodes names as code page 437."""
    if info.flag_bits & UTF8:
        return info.orig_filename
    raw = info.orig_filename.encode("cp437")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape") if info.create_system == UNIX else info.orig_filename


def _unpacked(descriptor: int, member: Member) -> bytes:
    """A member's bytes. Raises PhotographError if their number or checksum is not as declared."""
    if member.is_link:
        raise PhotographError(f"{LINK}, not a regular file")
    if member.flags & ENCRYPTED:
        raise PhotographError("encrypted: repack it without a password")
    if member.method not in (STORED, DEFLATED):
        raise PhotographError(f"compressed with unsupported method {member.method}: repack it with deflate")
    if max(member.size, member.packed) > LIMIT:
        raise PhotographError(TOO_LARGE)
    local = read_at(descriptor, 30, member.header)
    if len(local) < 30 or not local.startswith(b"PK\3\4"):
        raise PhotographError("damaged: not at the offset that the zip gives")
    name, extra = struct.unpack("<HH", local[26:])
    data = read_at(descriptor, member.packed, member.header + 30 + name + extra)
    if member.method == DEFLATED:
        try:
            # One byte more than declared reveals an overlong member; a limit of 0 would mean no limit.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
        except zlib.error as error:
            raise PhotographError(f"damaged: {error}") from None
    if len(data) != member.size or zlib.crc32(data) != member.checksum:
        raise PhotographError("damaged: wrong length or checksum")
    return data
