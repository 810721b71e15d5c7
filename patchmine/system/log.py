"""Progress as plain lines, at most one every half minute, for a log file or when stderr is not a terminal."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

from patchmine.system.progress import Progress, Skipped, of_count, pace

LINE_EVERY_S = 30
"""Minimum seconds between two progress lines."""


class Lines:
    """Writes progress as plain lines: number done, rate per second, time left, photographs skipped, shards.

    `write` receives each line. `each_skipped` adds a line for every skipped photograph, with the reason.
    """

    def __init__(self, write: Callable[[str], None], each_skipped: bool = False) -> None:
        self.note = write
        self.each_skipped = each_skipped
        self.skipped = 0
        self.shards = ""

    def begin(self, total: int, done: int, what: str = "photographs") -> None:
        self.total, self.done, self.before, self.what = total, done, done, of_count(total, what)
        self.start = self.said = monotonic()
        self.note(f"{total} {self.what}" + (f", {done} already done" if done else ""))

    def advance(self, count: int, skipped: Sequence[Skipped] = ()) -> None:
        self.done += count
        self.skipped += len(skipped)
        if self.each_skipped:
            for path, reason in skipped:
                self.note(f"skipped {path}: {reason}")
        if monotonic() - self.said >= LINE_EVERY_S:
            self.said = monotonic()
            rate = (self.done - self.before) / (self.said - self.start)
            left = timedelta(seconds=round((self.total - self.done) / rate)) if rate else "?"
            skipped_so_far = f", {self.skipped} skipped" if self.skipped else ""
            self.note(f"{self.done}/{self.total} {self.what}, {pace(rate)}, {left} left{skipped_so_far}{self.shards}")

    def committed(self, shards: int, of: int) -> None:
        if not self.shards:
            self.note(f"{of} shard{'s' if of != 1 else ''}" + (f", {shards} already done" if shards else ""))
        self.shards = f", shard {shards} of {of}"


class Both:
    """Forwards progress to two receivers."""

    def __init__(self, one: Progress, other: Progress) -> None:
        self.one, self.other = one, other

    def begin(self, total: int, done: int, what: str = "photographs") -> None:
        self.one.begin(total, done, what)
        self.other.begin(total, done, what)

    def advance(self, count: int, skipped: Sequence[Skipped] = ()) -> None:
        self.one.advance(count, skipped)
        self.other.advance(count, skipped)

    def committed(self, shards: int, of: int) -> None:
        self.one.committed(shards, of)
        self.other.committed(shards, of)

    def note(self, text: str) -> None:
        self.one.note(text)
        self.other.note(text)


@contextmanager
def logged(file: Path, progress: Progress) -> Iterator[Progress]:
    """Append everything that `progress` receives to `file` as well, with timestamps, and any error that ends the block.

    If the log cannot be written, the run continues without it.
    """

    def write(text: str) -> None:
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        with suppress(OSError), file.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"{now}  {text}\n")

    write(f"started by process {os.getpid()} on {platform.node()}")
    try:
        yield Both(progress, Lines(write, each_skipped=True))
    except BaseException as error:
        write(f"stopped by {type(error).__name__}{f': {error}' if str(error) else ''}")
        raise
