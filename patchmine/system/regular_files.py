"""Read regular files only: a FIFO could wait forever for a writer, and a device may never end.

Also tells a file that the system withholds from one whose content is at fault.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchmine.errors import UnreadableError

LIMIT = 1 << 30
"""Maximum size in bytes of a file or archive member that is read whole, as a photograph or a list."""

TOO_LARGE = f"larger than {LIMIT >> 30} GiB"

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What a file system without locks answers to a request for one."""

_CONTENT = (None, 0, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EOVERFLOW)
"""What a library reports that follows a damaged file to a place that it cannot have, or where there is none."""

_WAYS_OUT = {
    errno.EAGAIN: ("locked by another program", "close that program, then repeat the command"),
    errno.EACCES: ("permission denied", "make it readable, as with chmod u+r"),
    errno.EPERM: ("permission denied", "make it readable, as with chmod u+r"),
    errno.ENOMEM: ("out of memory", "close other programs, then repeat the command"),
    errno.EMFILE: ("too many open files", "raise the limit, as with ulimit -n 4096"),
    errno.ENFILE: ("too many open files", "close other programs, then repeat the command"),
    errno.EIO: ("input/output error", "check its disk, or copy the index to another one"),
    errno.ESTALE: ("stale file handle", "mount its file system again, then repeat the command"),
    **dict.fromkeys(NO_LOCKS, ("its file system has no locks", "set HDF5_USE_FILE_LOCKING=FALSE")),
}


def is_there(path: str | Path) -> bool:
    """Whether anything exists at that path. Unlike Path.exists, returns False even for a name that no file can have."""
    try:
        Path(path).stat()
    except (OSError, ValueError):
        return False
    return True


def is_link(path: str | Path) -> bool:
    """Whether a symbolic link lies at that path, wherever it leads; False for a name that no file can have."""
    try:
        return Path(path).is_symlink()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether a folder exists at that path; False even for a name that no folder can have."""
    return is_there(path) and Path(path).is_dir()


def withheld(file: Path, error: BaseException, number: int | None = None) -> UnreadableError | None:
    """The error for a file that the system withholds, with the cause and a way out; None if its content is at fault.

    `number` is the errno, for an error that does not carry its own.
    """
    number = number or getattr(error, "errno", None)
    if number in _CONTENT:
        return None
    cause, way_out = _WAYS_OUT.get(number, (os.strerror(number), "see to that, then repeat the command"))
    return UnreadableError(f"{file} cannot be read: {cause}; {way_out}")


@contextmanager
def opened(path: str | Path) -> Iterator[int]:
    """Open a regular file and yield its descriptor, for `os.fstat` and `read_at`.

    Raises OSError if the file cannot be opened or is not a regular file.
    """
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
    """Up to `size` bytes from `offset`, fewer at the end of the file. Does not move the descriptor's own position."""
    if not 0 <= offset < 1 << 62:  # a forged table of contents may give any offset
        return b""
    parts: list[bytes] = []
    while size and (data := os.pread(descriptor, size, offset)):
        parts.append(data)
        size -= len(data)
        offset += len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_whole(path: str | Path) -> bytes:
    """The bytes of a regular file. Raises OSError if it cannot be read or is larger than LIMIT."""
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > LIMIT:
            raise OSError(errno.EFBIG, TOO_LARGE)
        return read_at(descriptor, size, 0)


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, without its byte order mark. Raises OSError as `read_whole` does.

    Invalid bytes become lone surrogates, as in file names.
    """
    return read_whole(path).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
