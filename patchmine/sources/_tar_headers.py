"""The contents of a tar, from its headers alone: where each member's bytes lie.

This is much faster than the standard library's tarfile, which matters because every photograph of a sheet may lie in
another tar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from zlib import adler32

from patchmine.errors import SourceError

ReadAt = Callable[[int, int], bytes]
"""Up to `size` bytes from `offset` of the tar."""

BLOCK = 512
REGULAR = (b"\0", b"0", b"7")
BEFORE_ANOTHER = (b"L", b"K", b"x", b"g")
NO_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
FOLDER = "a folder"
KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": FOLDER,
    b"6": "a FIFO",
    b"S": "a sparse file",
}
LARGEST_HEADER = 1 << 20
"""Maximum size in bytes of a long name or of one set of pax records; real paths are far shorter."""

WINDOW = 4096
"""Bytes to read at once: the short members of a sample lie side by side, and a call costs more than its bytes."""

LONGEST_NUMBER = 20
REMEDY = "download or repack it"
WHY_NOT_COMPRESSED = "cannot be read in place: unpack it, or repack it without compression"
"""The refusal of a compressed tar: reaching one photograph would mean decompressing everything before it."""

_EMPTY = bytes(BLOCK)


class Member(NamedTuple):
    """One member of a tar, in bytes. `unlike` names its kind if it is not a regular file."""

    name: str
    offset: int
    size: int
    unlike: str | None


def members(read_at: ReadAt, end: int, tar: str) -> Iterator[Member]:
    """Every member in tar order, folders included, of a file of `end` bytes. Error messages call it `tar`.

    Raises SourceError if the tar is damaged or cut short.
    """
    position, after, extra = 0, "at its start", _Extra()
    window, opens = b"", 0
    while True:
        if position + BLOCK > opens + len(window):
            window, opens = read_at(WINDOW, position), position
        header = window[position - opens : position - opens + BLOCK]
        if not header:
            break
        if header == _EMPTY:
            return
        size = _checked_size(header)
        if size is None:
            if not position:
                raise SourceError(f"{tar!r} is {_what(header)}")
            ill = "cut short" if len(header) < BLOCK else "damaged"
            raise SourceError(f"{tar!r} is {ill} {after}: {REMEDY}")
        kind = header[156:157]
        start = position + BLOCK
        if kind in BEFORE_ANOTHER:
            if size > LARGEST_HEADER:
                raise SourceError(f"{tar!r} is damaged {after}: {REMEDY}")
            extra.add(kind, read_at(size, start))
        else:
            if kind == b"S":
                start = _after_map(read_at, header, start)
            name = extra.name or _name(header)
            size = 0 if kind in NO_DATA else size if extra.size is None else extra.size
            if start + size > end:
                raise SourceError(f"{tar!r} is cut short inside {name!r}: {REMEDY}")
            yield Member(name, start, size, "a sparse file" if extra.sparse else _unlike(kind, name))
            after, extra = f"after {name!r}", _Extra()
        position = start + (size + BLOCK - 1) // BLOCK * BLOCK
    if not end:
        raise SourceError(f"{tar!r} is empty")
    # Every tar ends in empty blocks: without them, its writer was killed or the download is incomplete.
    raise SourceError(f"{tar!r} is cut short {after}: {REMEDY}")


@dataclass
class _Extra:
    """Fields from the extra headers that precede a member's own header, which has no room for them."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False

    def add(self, kind: bytes, data: bytes) -> None:
        if kind == b"L":
            self.name = _text(data.partition(b"\0")[0])
        elif kind == b"x":
            records = dict(_pax(data))
            name = records.get(b"GNU.sparse.name", records.get(b"path"))
            if name is not None:
                self.name = _text(name)
            if (size := records.get(b"size", b"")).isdigit() and len(size) < LONGEST_NUMBER:
                self.size = int(size)
            self.sparse = any(key.startswith(b"GNU.sparse.") for key in records)


def _pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records 'LENGTH KEY=VALUE\\n', where LENGTH counts the whole record; stops at the first malformed one."""
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > LONGEST_NUMBER or not len(length) + 1 < int(length) <= len(data):
            return
        key, equals, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if equals:
            yield key, value
        data = data[int(length) :]


def _checked_size(header: bytes) -> int | None:
    """The size of a member in bytes; None if the checksum shows that this is not a header."""
    if len(header) < BLOCK:
        return None
    field = header[148:156]
    try:
        stated = int(field.strip(b"\0 "), 8)
    except ValueError:
        return None
    # The low half of adler32 is 1 plus the sum of all bytes, modulo 65521, and much faster than sum(). The stated sum
    # counts its own eight bytes as blanks.
    if (1 + stated + sum(field) - 8 * 32 - adler32(header) % 65536) % 65521:
        return None
    field = header[124:136]
    if field[0] & 0x80:  # GNU: base 256, for 8 GiB and more
        return int.from_bytes(field[1:], "big")
    try:
        size = int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        return None
    return size if size >= 0 else None


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    # Only POSIX puts the front of a long path there; GNU's own format has times in its place.
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return _text(name)


def _unlike(kind: bytes, name: str) -> str | None:
    if kind in REGULAR:
        return FOLDER if name.endswith("/") else None
    return KINDS.get(kind, "a member of unknown kind")


def _after_map(read_at: ReadAt, header: bytes, start: int) -> int:
    """The offset of the data of an old GNU sparse file: after the blocks that continue its map."""
    more = header[482]
    while more:
        block = read_at(BLOCK, start)
        more = block[504] if len(block) == BLOCK else 0
        start += BLOCK
    return start


def _what(start: bytes) -> str:
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return f"compressed and {WHY_NOT_COMPRESSED}"
    return "not a tar"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
