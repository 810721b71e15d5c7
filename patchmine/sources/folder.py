"""A folder of photographs: recursive, sorted by path, the first folder level is the class."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, Listed, Passed, absolute, class_in_path, is_hidden, suffixes
from patchmine.system.regular_files import is_folder, read_whole

FOLDER = "a folder"

_KINDS = ((stat.S_ISDIR, FOLDER), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
_BAD_LINKS = {errno.ELOOP: "a link that leads to itself", errno.ENOENT: "a link to nothing"}

HELP = "a folder of photographs (recursive; the first folder level is the class)"


@dataclass(frozen=True)
class Folder:
    """`spec` is the absolute path; a symbolic link to the folder is kept as typed."""

    spec: str
    kind: str = "folder"

    @property
    def name(self) -> str:
        return Path(self.spec).name or "photographs"

    def entries(self) -> list[Entry]:
        return self.listed().entries

    def listed(self) -> Listed:
        passed, known = Passed(), suffixes()
        paths = sorted(_images(self.spec, known, passed))
        if not paths:
            looked_for = " ".join(known)
            raise SourceError(
                f"no images in the folder {self.spec!r}: looked for {looked_for}, recursively{passed.clause()}"
            )
        return Listed([Entry(path, class_in_path(path)) for path in paths], passed)

    def read(self, path: str) -> bytes:
        """The bytes of one file. Symbolic links inside the folder are the user's own and are followed."""
        if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise PhotographError("its path leads out of the folder")
        try:
            return read_whole(Path(self.spec, path))
        except FileNotFoundError:
            raise PhotographError(f"no longer in the folder {self.spec!r}") from None
        except OSError as error:
            raise PhotographError(f"cannot be read: {error.strerror}") from None


def claim(spec: str) -> Folder | None:
    path = Path(spec).expanduser()
    # An empty spec would mean the working directory, which an unset shell variable hardly intends.
    if not spec or not is_folder(path):
        return None
    return Folder(absolute(path))


def _images(root: str, known: tuple[str, ...], passed: Passed) -> Iterator[str]:
    """Paths of the files below `root` that end in one of `known`, relative to it and unsorted; adds to `passed`.

    Each folder is entered once, by its real path before any link to it, so that links cannot loop or move a
    photograph out of its class.
    """
    entered: set[tuple[int, int]] = set()
    real, linked = [(root, "")], list[tuple[str, str]]()
    while real or linked:
        if not real:
            linked.sort(reverse=True)
        is_link = not real
        folder, prefix = linked.pop() if is_link else real.pop()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in entered:
                if is_link:
                    passed.left_out[prefix.removesuffix("/")] = "a link to a folder that is listed already"
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as places:
                for place in places:
                    path = prefix + place.name
                    if is_hidden(place.name):
                        continue
                    unlike = _unlike(place)
                    if unlike == FOLDER:
                        (linked if place.is_symlink() else real).append((place.path, f"{path}/"))
                    elif unlike is not None:
                        passed.left_out[path] = unlike
                    elif place.name.lower().endswith(known):
                        yield path
                    else:
                        passed.add(path)
        except OSError as error:
            raise SourceError(
                f"cannot list the folder {folder!r} ({error.strerror}): make it readable, or move it elsewhere"
            ) from None


def _unlike(place: os.DirEntry[str]) -> str | None:
    """None for a regular file or a link to one, FOLDER for a folder, else why nothing can be read there."""
    try:
        if place.is_file():  # asks the file system only about links
            return None
        mode = place.stat().st_mode
    except OSError as error:
        if not place.is_symlink():
            return error.strerror
        return _BAD_LINKS.get(error.errno or 0, f"a link whose target cannot be reached ({error.strerror})")
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "not a regular file")
