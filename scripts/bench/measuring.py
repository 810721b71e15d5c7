"""What the benchmarks share: their command line, a clock, figures taken in rounds, and folders of many photographs.

Things to compare are measured in turns, once a round, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import perf_counter

from patchmine.sources import Entry

TRIAL_S = 2.0
"""How long a bare forward pass is repeated."""


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of the benchmark."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def seconds_of(work: Callable[[], object]) -> float:
    """The time that one call takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


class Figures(dict[str, list[float]]):
    """Figures by name, one a round."""

    def add(self, name: str, figure: float) -> None:
        self.setdefault(name, []).append(figure)

    def medians(self) -> dict[str, float]:
        return {name: median(figures) for name, figures in self.items()}

    def ratios(self, name: str, base: str) -> list[float]:
        """Round by round."""
        return [one / other for one, other in zip(self[name], self[base], strict=True)]

    def table(self) -> str:
        """A line for each figure: its median, then every round. A name with a slash is that of a ratio."""
        lines = []
        for name, figures in self.items():
            places = 2 if "/" in name else 1
            every = ", ".join(f"{figure:.{places}f}" for figure in figures)
            lines.append(f"{name:52} {median(figures):>8.{places}f}   of {every}")
        return "\n".join(lines)


def repeated(source: Path, entries: Sequence[Entry], count: int, into: Path) -> None:
    """Fill a folder with `count` links to the photographs of `source`, in their class folders, over and over."""
    for number, entry in enumerate(islice(cycle(entries), count)):
        link = into / entry.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.with_name(f"{number}-{link.name}").symlink_to((source / entry.path).resolve())
