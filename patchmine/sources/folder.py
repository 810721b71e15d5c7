"""A folder of photographs: recursive, sorted by path, the first folder level is the class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchmine.errors import PhotographError, SourceError
from patchmine.sources import SUFFIXES, Entry, first_folder, is_hidden
from patchmine.system.regular_files import is_folder, read_whole

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
        paths = sorted(_images(self.spec))
        if not paths:
            looked_for = " ".join(SUFFIXES)
            raise SourceError(f"no images in the folder {self.spec!r}: looked for {looked_for}, recursively")
        return [Entry(path, first_folder(path)) for path in paths]

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
    return Folder(str(path.resolve() if ".." in path.parts else path.absolute()))


def _images(root: str) -> Iterator[str]:
    """Paths of the image files below `root`, relative to it and unsorted.

    Each folder is entered once, by its real path before any link to it, so that links cannot loop or move a
    photograph out of its class.
    """
    entered: set[tuple[int, int]] = set()
    real, linked = [(root, "")], list[tuple[str, str]]()
    while real or linked:
        if not real:
            linked.sort(reverse=True)
        folder, prefix = real.pop() if real else linked.pop()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as places:
                for place in places:
                    if is_hidden(place.name):
                        continue
                    if place.is_dir():
                        below = linked if place.is_symlink() else real
                        below.append((place.path, f"{prefix}{place.name}/"))
                    elif place.name.lower().endswith(SUFFIXES) and place.is_file():
                        yield prefix + place.name
        except OSError as error:
            raise SourceError(
                f"cannot list the folder {folder!r} ({error.strerror}): make it readable, or move it elsewhere"
            ) from None
