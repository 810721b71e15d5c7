"""Progress on stderr: a bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from patchmine.system.log import Lines
from patchmine.system.progress import Progress, Skipped, of_count, pace


@contextmanager
def shown() -> Iterator[Progress]:
    """A progress display for the length of the block."""
    if not sys.stderr.isatty():
        yield Lines(_say)
        return
    bar = Bar()
    try:
        yield bar
    finally:
        bar.stop()


def _say(text: str) -> None:
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


class Bar:
    """Rich's bar with the number a second, the time left, the shards on disk and the number skipped."""

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
                return Text(pace(task.speed) if task.speed else "")

        self.rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[more]}"),
            console=Console(stderr=True),
        )
        self.task: Any = None
        self.skipped = 0
        self.shards = ""

    def begin(self, total: int, done: int, what: str = "photographs") -> None:
        self.rich.start()
        self.task = self.rich.add_task(of_count(total, what), total=total, more="")
        self.rich.reset(self.task, total=total, completed=done)

    def advance(self, count: int, skipped: Sequence[Skipped] = ()) -> None:
        self.skipped += len(skipped)
        self.rich.update(self.task, advance=count, more=self._more())

    def committed(self, shards: int, of: int) -> None:
        self.shards = f"shard {shards}/{of}"
        self.rich.update(self.task, more=self._more())

    def _more(self) -> str:
        return "  ".join(part for part in (self.shards, f"{self.skipped} skipped" if self.skipped else "") if part)

    def note(self, text: str) -> None:
        self.rich.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        self.rich.stop()
