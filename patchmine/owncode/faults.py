"""An error in a network of the user's own or in a plug-in: its place and reason in one line, and its traceback."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from patchmine.owncode import script

plugins: dict[str, str] = {}
"""Words that name each plug-in, by its file."""

_INSIDE = str(Path(__file__).parents[1]) + os.sep
"""The folder of patchmine: an error that it raises is never the user's."""


@dataclass(frozen=True)
class Fault:
    """An error that code of the user's own raised, or that a library raised below it. `owner` names that code."""

    owner: str
    error: BaseException
    file: str
    line: int

    def __str__(self) -> str:
        """`net.py, line 7: ValueError: the reason`."""
        return f"{shown(self.file)}, line {self.line}: {reason(self.error)}"

    def traceback(self) -> str:
        """The traceback from the user's first line on."""
        steps = list(_steps(self.error))
        first = next((i for i, (frame, _) in enumerate(steps) if _owner(frame.f_code.co_filename)), len(steps))
        users = traceback.StackSummary.extract(iter(steps[first:]))
        return "".join(
            ["Traceback (most recent call last):\n", *users.format(), *traceback.format_exception_only(self.error)]
        )


def fault_of(error: BaseException | None) -> Fault | None:
    """The fault of the user's own code behind an error or behind its cause; None if the error is not theirs."""
    while error is not None:
        places = [(frame.f_code.co_filename, line) for frame, line in _steps(error)]
        if isinstance(error, SyntaxError) and error.filename:
            places.append((error.filename, error.lineno or 1))
        inside = bool(places) and places[-1][0].startswith(_INSIDE)
        for file, line in () if inside else reversed(places):
            owner = _owner(file)
            if owner is not None:
                return Fault(owner, error, file, line)
        error = error.__cause__ or error.__context__
    return None


def reason(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def shown(file: str) -> str:
    """A path relative to the working directory, unless it is shorter from the root."""
    try:
        return min(os.path.relpath(file), file, key=len)
    except ValueError:  # on another drive
        return file


def _steps(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """The frames and lines of a traceback, without those that import a module."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if file != script.__file__ and not file.startswith("<frozen importlib"):
            yield frame, line


def _owner(file: str) -> str | None:
    if file.startswith(_INSIDE):  # also where the user's file lies in a folder above patchmine's
        return None
    return "the network" if any(one.owns(file) for one in script.scripts) else plugins.get(file)
