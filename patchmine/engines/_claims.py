"""Who does what, when several processes share the work through a folder: every piece of it is a file to be renamed.

`todo` holds a file for each piece of work that is free, `held` one for each that a process has taken, with the name of
that process at its end. A rename is atomic, also on a network's file system, so one process alone can take a piece, and
one alone can take it back from a process that died: the dead one's name is part of what it renames. A process touches
what it holds every BEAT_S seconds; a claim that was not touched for STALE_S is free again. All times are those of the
folder's own file system, so clocks need not agree.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

STALE_S = 60.0
"""A claim whose process has not touched it for so many seconds is taken back."""

BEAT_S = 10.0
"""A living process touches its claims this often, in seconds."""


class Claims:
    """The claims of this process in a folder that it shares with others. Safe to use from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._todo, self._held = folder, folder / "todo", folder / "held"
        self._clock = folder / "clock"
        host = re.sub(r"[^\w-]", "-", platform.node())[:40]
        self._owner = f"{host}-{os.getpid()}-{token_hex(3)}"
        self._mine: set[str] = set()

    def prepare(self, pieces: Iterable[str]) -> None:
        """Make the folder with these pieces free, unless another process has made it. Raises OSError."""
        if self._folder.exists():
            return
        making = self._folder.with_name(f".{self._folder.name}.{self._owner}")
        for folder in (making / "todo", making / "held"):
            folder.mkdir(parents=True)
        for piece in (making / "clock", *(making / "todo" / piece for piece in pieces)):
            piece.touch()
        try:
            making.rename(self._folder)  # fails if the folder is there, because it is not empty
        except OSError:
            if not self._folder.exists():
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def known(self) -> set[str]:
        """Every piece that is free or held."""
        return {*_names(self._todo), *(piece.partition(".")[0] for piece in _names(self._held))}

    def add(self, piece: str) -> None:
        """Make a piece free that is neither free nor held. Raises OSError."""
        (self._todo / piece).touch()

    def take(self, wanted: Iterable[str]) -> str | None:
        """Take the first of these pieces that is free, else one whose process has died; None if there is neither."""
        free, stale = set(_names(self._todo)), self._stale()
        for piece in wanted:
            there = self._todo / piece if piece in free else stale.get(piece)
            if there is not None and self._renamed(there, piece):
                return piece
        return None

    def give_back(self, piece: str) -> None:
        """Make a piece free that this process holds."""
        self._mine.discard(piece)
        with suppress(OSError):
            self._file(piece).rename(self._todo / piece)

    def done(self, piece: str) -> None:
        """Remove a piece that this process holds: its work is done."""
        self._mine.discard(piece)
        self._file(piece).unlink(missing_ok=True)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Touch what this process holds for the length of the block; then give back what is left of it."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_S):
                for piece in tuple(self._mine):
                    with suppress(OSError):  # it was taken back, or the folder is gone because all work is done
                        os.utime(self._file(piece))

        thread = threading.Thread(target=beat, name="claims", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            for piece in tuple(self._mine):
                self.give_back(piece)

    def _file(self, piece: str) -> Path:
        return self._held / f"{piece}.{self._owner}"

    def _renamed(self, there: Path, piece: str) -> bool:
        try:
            os.utime(there)  # first, so that the claim is fresh when others see it
            there.rename(self._file(piece))
        except OSError:
            # NFS may repeat a request whose answer was lost, and then report that there is nothing to rename.
            if not self._file(piece).exists():
                return False
        self._mine.add(piece)
        return True

    def _stale(self) -> dict[str, Path]:
        """The files of pieces whose processes have not touched them for STALE_S, by piece."""
        found: dict[str, Path] = {}
        with suppress(OSError):
            os.utime(self._clock)
            now = self._clock.stat().st_mtime
            for place in os.scandir(self._held):
                piece, _, owner = place.name.partition(".")
                with suppress(OSError):
                    if owner != self._owner and now - place.stat().st_mtime > STALE_S:
                        found[piece] = Path(place.path)
        return found


def _names(folder: Path) -> list[str]:
    try:
        return [place.name for place in folder.iterdir()]
    except FileNotFoundError:  # all work is done, and somebody has tidied up
        return []
