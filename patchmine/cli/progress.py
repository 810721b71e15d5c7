"""Progress on stderr: a bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

from patchmine.request import Progress

LINE_EVERY_S = 30


@contextmanager
def shown() -> Iterator[Progress]:
    """A progress display for the length of the block."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    bar = Bar()
    try:
        yield bar
    finally:
        bar.stop()


class Lines:
    """Plain lines for logs: number done, number a second, time left."""

    def begin(self, total: int, done: int, what: str = "photographs") -> None:
        self.total, self.done, self.before, self.what = total, done, done, what
        self.start = self.said = monotonic()
        self.note(f"{total} {what}" + (f", {done} of them done before" if done else ""))

    def advance(self, count: int) -> None:
        self.done += count
        if monotonic() - self.said >= LINE_EVERY_S:
            self.said = monotonic()
            rate = (self.done - self.before) / (self.said - self.start)
            left = timedelta(seconds=round((self.total - self.done) / rate)) if rate else "?"
            self.note(f"{self.done}/{self.total} {self.what}, {rate:.0f}/s, {left} left")

    def note(self, text: str) -> None:
        print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


class Bar:
    """Rich's bar with the number a second and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.speed:.0f}/s" if task.speed else "")

        self.rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task: Any = None

    def begin(self, total: int, done: int, what: str = "photographs") -> None:
        self.rich.start()
        self.task = self.rich.add_task(what, total=total)
        self.rich.reset(self.task, total=total, completed=done)

    def advance(self, count: int) -> None:
        self.rich.advance(self.task, count)

    def note(self, text: str) -> None:
        self.rich.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        self.rich.stop()
