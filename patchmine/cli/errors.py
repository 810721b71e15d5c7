"""The one place where errors become exit codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from patchmine.cli.stopping import Terminated
from patchmine.errors import PatchmineError

show_traceback = False


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with its errors printed as one line: exit 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            found = command(*args, **kwargs)
            sys.stdout.flush()  # here, where a full disk is one line
            return found
        except KeyboardInterrupt as interrupt:
            say(f"interrupted{': ' if str(interrupt) else ''}{interrupt}")
            raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
        except PatchmineError as error:
            if show_traceback:
                raise
            say(str(error))
            raise typer.Exit(1) from None
        except OSError as error:  # a full disk, a folder that cannot be written
            if show_traceback:
                raise
            _drop_output()
            say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
            raise typer.Exit(1) from None
        except (MemoryError, RuntimeError) as error:
            if show_traceback or not _out_of_memory(error):
                raise
            say("out of memory: close other programs, or ask for less (fewer --workers, a smaller --batch-size or -k)")
            raise typer.Exit(1) from None

    return run


def _drop_output() -> None:
    """Give up output that cannot be written, or Python tries again when it ends and prints a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    if isinstance(error, MemoryError):
        return True
    from patchmine.executors import out_of_memory

    return out_of_memory(error)


def say(text: str) -> None:
    from patchmine.system.printable import printable

    line = printable(" ".join(text.split()))
    print(f"patchmine: {line}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
