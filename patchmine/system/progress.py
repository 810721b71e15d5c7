"""How work reports its progress: a protocol, and the receiver that discards everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Skipped = tuple[str, str]
"""The path of a photograph that cannot be read, and the reason."""


class Progress(Protocol):
    """Receives the progress of a piece of work.

    `begin` is called once, with the totals and the name of the things counted. Then `advance` gets the number done
    since the last call and the photographs among them that were skipped, and `committed` the number of shards on disk.
    """

    def begin(self, total: int, done: int, what: str = "photographs") -> None: ...
    def advance(self, count: int, skipped: Sequence[Skipped] = ()) -> None: ...
    def committed(self, shards: int, of: int) -> None: ...
    def note(self, text: str) -> None: ...


_THINGS = ("attribution", "crop", "file", "image", "layer", "photograph", "projection", "step", "unit")
_ONE = {"patches": "patch"} | {f"{thing}s": thing for thing in _THINGS}
"""The things that progress counts, and one of them."""


def of_count(count: int, what: str) -> str:
    """The name of the things counted, for one of them: `layer for scores` in the place of `layers for scores`."""
    return " ".join(_ONE.get(word, word) for word in what.split(" ")) if count == 1 else what


def pace(rate: float) -> str:
    """A rate as text: `93/s`, and with two digits below ten, `0.37/s`."""
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


class Silent:
    """Discards every report."""

    def begin(self, total: int, done: int, what: str = "photographs") -> None: ...
    def advance(self, count: int, skipped: Sequence[Skipped] = ()) -> None: ...
    def committed(self, shards: int, of: int) -> None: ...
    def note(self, text: str) -> None: ...
