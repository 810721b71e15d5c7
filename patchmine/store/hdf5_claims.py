"""Reads the claimed length of a text attribute from the bytes of the file, before libhdf5 believes it.

libhdf5 allocates the claimed length, up to 4 GB, before it checks that the text has that length. It offers no call that
returns the claim alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

TEXT_AT = struct.Struct("<IQI")
"""A file's reference to a text: its length in bytes and its location."""

_ATTRIBUTE, _CONTINUATION, _ATTRIBUTE_INFO = 0x0C, 0x10, 0x15
_SHARED = 0x02
_NOWHERE = b"\xff" * 8
_BLOCKS, _BLOCK_BYTES = 16, 1 << 20


def claimed_length(file: BinaryIO, address: int, name: bytes) -> int:
    """The length of the text attribute `name` of the object whose version 2 header is at `address`.

    Finds attributes only where patchmine writes them: in the header itself. Raises ValueError, LookupError, or
    struct.error for anything else.
    """
    lengths = []
    for kind, flags, message in _messages(file, address):
        if kind == _ATTRIBUTE_INFO and message[4 if message[1] & 1 else 2 :][:8] != _NOWHERE:
            raise ValueError("it is not stored where patchmine stores it")
        if kind == _ATTRIBUTE:
            version, name_size, type_size, space_size = struct.unpack_from("<BxHHH", message)
            if version != 3 or flags & _SHARED:
                raise ValueError("it is not stored as patchmine stores it")
            if message[9 : 9 + name_size].rstrip(b"\0") == name:
                lengths.append(TEXT_AT.unpack_from(message, 9 + name_size + type_size + space_size)[0])
    if len(lengths) != 1:
        raise LookupError("it is missing")
    return int(lengths[0])


def _messages(file: BinaryIO, address: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield (kind, flags, content) for every message of an object header."""
    start = _read(file, address, 64)
    if start[:5] != b"OHDR\x02":
        raise ValueError("its header has another version")
    flags = start[5]
    at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    blocks = [(address + at + width, int.from_bytes(start[at : at + width], "little"))]
    for number, (where, size) in enumerate(blocks):
        if number >= _BLOCKS or size > _BLOCK_BYTES:
            raise ValueError("its header is too long")
        block, at = _read(file, where, size), 0
        while at + 4 <= len(block):
            kind, length, marks = struct.unpack_from("<BHB", block, at)
            at += 6 if flags & 4 else 4
            message = block[at : at + length]
            at += length
            if kind == _CONTINUATION:
                there, size = struct.unpack_from("<QQ", message)
                blocks.append((there + 4, size - 8))  # without its signature and checksum
            else:
                yield kind, marks, message


def _read(file: BinaryIO, address: int, size: int) -> bytes:
    if size < 0:
        raise ValueError("its header is damaged")
    file.seek(address)
    return file.read(size)
