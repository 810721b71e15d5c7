"""How the tests look at a command that has run."""

from __future__ import annotations

from typing import Protocol


class Done(Protocol):
    """The result of a command, whichever way it ran."""

    @property
    def returncode(self) -> int: ...

    @property
    def stdout(self) -> str: ...

    @property
    def stderr(self) -> str: ...


def failed(done: Done, code: int = 1) -> str:
    """The one line that a refused command prints."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("patchmine: ")
    return lines[0]
