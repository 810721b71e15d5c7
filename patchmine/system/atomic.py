"""Writes files that appear whole or not at all: temporary name, flush, fsync, rename."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE, S_ISREG

from patchmine.errors import RequestError
from patchmine.system.regular_files import is_there

_NO_RENAME = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY)
"""What a folder answers that takes no file beside a target that may be written, such as one mounted by itself."""


def write_atomically(
    path: Path,
    chunks: Iterable[bytes | memoryview],
    mode: int | None = None,
    replace: bool = True,
    *,
    synced: bool = True,
) -> None:
    """Write the chunks to a file that appears whole or not at all; a link of that name is replaced, not followed.

    `mode` are its permissions, by default those of a new file. Without `replace` a file of that name stays, and the
    chunks are dropped. A file that is not `synced` may be empty after the machine fails, but not after the process
    does. Raises OSError, which names `path`.
    """
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            if synced:
                _sync(file.fileno())
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        if replace or not _linked(temporary, path):
            temporary.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # what the caller knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _linked(temporary: Path, path: Path) -> bool:
    """Give the file its second name, unless another has that name; False on a file system without links."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return True
    except OSError:
        return path.exists()
    return True


def _sync(descriptor: int) -> None:
    """Put the file on the disk, where the file system can do so on demand."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def deliver(target: Path, data: bytes | Callable[[], Iterable[bytes]]) -> None:
    """Write a file that the user asked for: it appears whole, or an older one stays as it was.

    `data` may be made piece by piece, and again where a first try fails. Follows a link, keeps the permissions of an
    older file, and writes into a device or pipe as it is. Raises RequestError.
    """
    check_target(target)
    make = data if callable(data) else lambda: [data]
    real = Path(os.path.realpath(target))
    there = _status(target)
    try:
        if there is None:
            write_atomically(real, make())
        elif not S_ISREG(there.st_mode):
            with target.open("wb", buffering=0) as device:
                for piece in make():
                    _write(device.fileno(), piece)
        else:
            try:
                write_atomically(real, make(), S_IMODE(there.st_mode))
            except OSError as error:
                if error.errno not in _NO_RENAME:
                    raise
                _write_over(real, b"".join(make()))
    except OSError as error:
        left = "" if there is None else "; what was there is as it was"
        raise RequestError(
            f"{str(target)!r} cannot be written: {error.strerror}{left}; make room, or write {target.name} elsewhere"
        ) from None


def check_target(target: Path) -> None:
    """Check, before any work, that `deliver` can write this file. Raises RequestError."""
    try:
        target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise RequestError(f"{str(target)!r} cannot be written: {error.strerror}; give another name") from None
    there = _status(target)
    if target.is_dir():
        raise RequestError(f"{str(target)!r} is a folder: name a file in it")
    if there is not None and not os.access(target, os.W_OK):
        raise RequestError(f"{str(target)!r} is write-protected: give another name")
    folder = Path(os.path.realpath(target)).parent if target.is_symlink() else target.parent
    if there is None and not folder.is_dir():
        raise RequestError(f"folder {str(folder)!r} not found: create it, or write {target.name} elsewhere")
    if there is None and (why := unwritable(folder)):
        raise RequestError(f"folder {str(folder)!r} cannot be written ({why}): write {target.name} elsewhere")


def check_new(target: Path, folder: bool, force: bool) -> None:
    """Check, before any work, that `whole_file` or `whole_folder` can make this target. Raises RequestError.

    What is there already is replaced only with `force`; an empty folder is as good as none.
    """
    if not folder:
        check_target(target)
    elif target.exists() and not target.is_dir():
        raise RequestError(f"{str(target)!r} is a file, but this makes a folder: give another name")
    elif why := unwritable(target):
        raise RequestError(f"folder {str(target)!r} cannot be written ({why}): give another name")
    if not force and target.exists() and not (folder and not any(target.iterdir())):
        raise RequestError(f"{str(target)!r} exists: give another name with -o, or replace it with --force")


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A name beside the target to write a file under; it then takes the place of the target, unless an error occurs.

    For files that are too large for `deliver`. Raises RequestError for what the system refuses.
    """
    real = Path(os.path.realpath(target))
    making = _beside(real)
    with _explained(target):
        try:
            yield making
            with making.open("rb") as file:
                _sync(file.fileno())
            making.replace(real)
        finally:
            making.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target to write into; what it holds then moves into the target, unless an error occurs.

    There it replaces what has the same name; everything else in the target stays. Raises RequestError for what the
    system refuses.
    """
    real = Path(os.path.realpath(target))
    making = _beside(real)
    with _explained(target):
        try:
            making.mkdir(parents=True)
            yield making
            if not real.exists() or not any(real.iterdir()):
                making.replace(real)
            else:
                for made in sorted(making.iterdir()):
                    _replace(real / made.name, made)
        finally:
            shutil.rmtree(making, ignore_errors=True)


def _replace(there: Path, made: Path) -> None:
    if there.is_dir() and not there.is_symlink():
        shutil.rmtree(there)
    elif made.is_dir():
        there.unlink(missing_ok=True)
    made.replace(there)


def _beside(target: Path) -> Path:
    """A temporary name in the target's folder: short enough for every file system, and random, so that others cannot
    lay a link there."""
    return target.with_name(f".{target.name[:40]}.{os.urandom(4).hex()}.tmp")


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)  # pyarrow's own text repeats itself
        raise RequestError(
            f"{str(target)!r} cannot be written: {reason}; make room, or give another name with -o"
        ) from None


def unwritable(folder: Path) -> str | None:
    """Why no file can be created in this folder, or in the one that will hold it; None if one can, as far as can be
    told before trying."""
    while not is_there(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{str(folder)!r} is a file"
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if read_only else errno.EACCES)


def _status(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return path.stat()
    return None


def _write_over(path: Path, data: bytes) -> None:
    """Write into the file itself. Its old bytes keep their place on the disk until the new ones fit."""
    old = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        try:
            _write(file.fileno(), data)
            file.truncate(len(data))
        except OSError:
            file.seek(0)
            _write(file.fileno(), old)
            file.truncate(len(old))
            raise


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while len(left):
        left = left[os.write(descriptor, left) :]
