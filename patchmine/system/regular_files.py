"""Bytes of regular files. A FIFO would wait for a writer for ever and a device may never end: both are refused."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT = 1 << 30
"""Bytes of the largest file or archive member that can be meant as one photograph or one list."""

TOO_LARGE = f"larger than {LIMIT >> 30} GiB"


def is_there(path: str | Path) -> bool:
    """Whether there is anything at that path. Unlike Path.exists, False too for a name that no file could have."""
    try:
        Path(path).stat()
    except (OSError, ValueError):
        return False
    return True


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; False too for a name that no folder could have."""
    return is_there(path) and Path(path).is_dir()


@contextmanager
def opened(path: str | Path) -> Iterator[int]:
    """A descriptor of a regular file, for `os.fstat` and `read_at`. Raises OSError, also for any other file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a NUL in the path
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """`size` bytes from `offset` on, fewer where the file ends. The descriptor's own position stays where it is."""
    if not 0 <= offset < 1 << 62:  # what a forged table of contents may say
        return b""
    parts: list[bytes] = []
    while size and (data := os.pread(descriptor, size, offset)):
        parts.append(data)
        size -= len(data)
        offset += len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_whole(path: str | Path) -> bytes:
    """The bytes of a regular file of at most LIMIT. Raises OSError."""
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > LIMIT:
            raise OSError(errno.EFBIG, TOO_LARGE)
        return read_at(descriptor, size, 0)


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file; bytes that are none are kept as lone surrogates, as in the names of files."""
    return read_whole(path).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
