"""An index as one file: a tar without compression, whose first member lists every file with its size and digest.

A tar from a stranger cannot write outside of its folder, follow links or fill the disk: only the listed names are
taken, each a plain relative path of a plain file, in their order, and no more bytes than the tar itself has. The same
index gives the same bytes: the members have no time and no owner.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from patchmine.errors import RequestError, StoreError
from patchmine.store.reading import MANIFEST, RELEVANCE_SHARDS, SHARDS, read_manifest
from patchmine.system import digests
from patchmine.system.atomic import check_new, whole_file, whole_folder
from patchmine.system.progress import Progress
from patchmine.system.regular_files import withheld
from patchmine.system.untrusted_json import Misfit, Part, parse

LIST = "patchmine.json"
"""The first member."""

_LEFT_OUT = (SHARDS, RELEVANCE_SHARDS, "index.lock", "index.log")
"""What belongs to the machine that built the index."""

_LIST_BYTES = 256 << 20
_BLOCK = 1 << 20
_MOST = 1 << 60


@dataclass(frozen=True)
class _Listed:
    path: str
    size: int
    digest: str


def pack(directory: Path, target: Path, force: bool, progress: Progress) -> int:
    """Write the finished index into the file `target`; returns the number of its files.

    Raises StoreError where there is no finished index, RequestError if the target exists, unless `force`, or cannot be
    written.
    """
    check_new(target, False, force)
    read_manifest(directory)
    paths = sorted(_files(directory))
    progress.begin(len(paths), 0, "files")
    with whole_file(target) as making, tarfile.open(making, "w", format=tarfile.PAX_FORMAT) as tar:
        listed = [_listed(directory, path) for path in paths]
        head = {"format": 1, "name": directory.resolve().name, "files": list(map(vars, listed))}
        data = json.dumps(head, indent=1).encode()
        tar.addfile(_member(LIST, len(data)), io.BytesIO(data))
        for entry in listed:
            with (directory / entry.path).open("rb") as opened:
                tar.addfile(_member(entry.path, entry.size), opened)
            progress.advance(1)
    return len(paths)


def unpack(file: Path, out: Path | None, force: bool, progress: Progress) -> tuple[Path, int]:
    """Unpack an index into the folder `out`, by default one of its own name; returns the folder and its count of files.

    Nothing is left behind if a file is not as it was packed. Raises StoreError for a file that is not a whole packed
    index, RequestError if the folder exists, unless `force`, or cannot be written.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            name, listed = _head(tar, file.stat().st_size)
            target = out or Path(name)
            check_new(target, True, force)
            progress.begin(len(listed), 0, "files")
            with whole_folder(target) as making:
                for expected in listed:
                    _extract(tar, expected, making)
                    progress.advance(1)
                if tar.next() is not None:
                    raise Misfit("it holds more than it lists")
                read_manifest(making)
    except Misfit as misfit:
        raise StoreError(f"{str(file)!r} is not a whole packed index: {misfit}; pack it again") from None
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise StoreError(f"{str(file)!r} is not a whole packed index: {error}; pack it again") from None
    except FileNotFoundError:
        raise StoreError(f"file {str(file)!r} not found: give one that patchmine pack wrote") from None
    except OSError as error:
        raise withheld(file, error) or RequestError(f"{str(file)!r} cannot be read: {error.strerror}") from None
    return target, len(listed)


def _files(directory: Path) -> Iterator[str]:
    """The relative paths of the files of an index, without what belongs to its machine; links are left out."""
    for folder, folders, names in os.walk(directory):
        within = Path(folder).relative_to(directory)
        if not within.parts:
            folders[:] = [name for name in folders if name not in _LEFT_OUT]
            names = [name for name in names if name not in _LEFT_OUT]
        for name in names:
            if not name.endswith(".tmp") and not (Path(folder) / name).is_symlink():
                yield (within / name).as_posix()


def _listed(directory: Path, path: str) -> _Listed:
    file = directory / path
    return _Listed(path, file.stat().st_size, digests.of_file(file))


def _member(path: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size = size
    return member


def _head(tar: tarfile.TarFile, size: int) -> tuple[str, list[_Listed]]:
    """The name of the index and its files, of a tar with `size` bytes. Raises Misfit."""
    first = tar.next()
    if first is None or first.name != LIST or not first.isreg() or first.size > min(size, _LIST_BYTES):
        raise Misfit(f"it does not begin with {LIST}")
    document = parse(_opened(tar, first).read())
    if document.whole("format", 0, 1 << 30) != 1:
        raise Misfit("a newer patchmine packed it")
    listed = [_entry(part) for part in document.parts("files")]
    if len({entry.path for entry in listed}) < len(listed) or MANIFEST not in {entry.path for entry in listed}:
        raise Misfit("its list is not that of an index")
    if sum(entry.size for entry in listed) > size:
        raise Misfit("it lists more bytes than it has")
    name = document.text("name")
    if PurePosixPath(name).name != name or name in (".", ".."):
        raise Misfit(f"its name {name!r} is not that of a folder")
    return name, listed


def _entry(part: Part) -> _Listed:
    path = part.text("path")
    if PurePosixPath(path).is_absolute() or any(word in ("", ".", "..") for word in path.split("/")) or "\\" in path:
        raise Misfit(f"{path!r} leads out of it")
    return _Listed(path, part.whole("size", 0, _MOST), part.text("digest"))


def _extract(tar: tarfile.TarFile, expected: _Listed, out: Path) -> None:
    member = tar.next()
    if (
        member is None
        or not member.isreg()
        or member.issparse()
        or member.name != expected.path
        or member.size != expected.size
    ):
        raise Misfit(f"{expected.path} is missing or another file")
    target = out / expected.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with _opened(tar, member) as packed, target.open("xb") as file:
        shutil.copyfileobj(packed, file, _BLOCK)
    if target.stat().st_size != expected.size or digests.of_file(target) != expected.digest:
        raise Misfit(f"{expected.path} has changed since it was packed")


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    opened = tar.extractfile(member)
    assert opened is not None  # a plain file
    return opened
