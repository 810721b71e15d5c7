"""The copies of folders in buckets that this process has opened: their names for the user, the fetching of their files,
and their delivery. Every command asks this module; what talks to buckets is imported with the first copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from patchmine.errors import PatchmineError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from patchmine.buckets.objects import Place

    class Opened(Protocol):
        """A `copy.Copy`, as far as this module needs it."""

        url: str

        @property
        def listing(self) -> Mapping[str, Place]: ...
        def bring(self, file: Path) -> None: ...
        def bring_all(self) -> None: ...
        def deliver(self) -> None: ...
        def has_news(self) -> bool: ...


opened: dict[Path, Opened] = {}
"""The copies by directory, each as it was last refreshed."""


def bring(file: Path) -> None:
    """Fetch a file if it belongs to an opened copy. Raises StoreError."""
    for directory, copy in opened.items():
        if file.is_relative_to(directory):
            copy.bring(file)


def bring_all(directory: Path) -> None:
    """Fetch what is missing of a folder, if it is an opened copy. Raises StoreError."""
    if directory in opened:
        opened[directory].bring_all()


def deliver(directory: Path) -> None:
    """Deliver what was written into a folder, if it is an opened copy. Raises StoreError."""
    if directory in opened:
        opened[directory].deliver()


def deliver_all() -> Iterator[str]:
    """Deliver what was written into all opened copies; yields what went wrong."""
    for copy in opened.values():
        try:
            copy.deliver()
        except StoreError as error:
            if copy.has_news():
                yield f"{error}; what the command keeps in the index is only in the copy on this machine"


def size_of(directory: Path) -> int:
    """The bytes of the files in a folder, without those of folders in it; of an opened copy, those in the bucket."""
    if directory in opened:
        return sum(place.size for path, place in opened[directory].listing.items() if "/" not in path)
    return sum(file.stat().st_size for file in directory.iterdir() if file.is_file())


def named(text: str) -> str:
    """A text for the user in which each opened copy has the name of its bucket."""
    for directory, copy in opened.items():
        text = text.replace(str(directory), copy.url)
    return text


@contextmanager
def naming() -> Iterator[None]:
    """Let errors name the bucket instead of the copy."""
    try:
        yield
    except PatchmineError as error:
        error.args = (named(str(error)),)
        raise
