"""The one place where errors become exit codes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from patchmine.cli.output import reserved
from patchmine.cli.stopping import Terminated
from patchmine.defaults import check
from patchmine.errors import PatchmineError

if TYPE_CHECKING:
    from patchmine.owncode.faults import Fault

show_traceback = False


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with its errors printed as one line: exit 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            check(kwargs)
            with reserved():
                return command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            say(f"interrupted{': ' if str(interrupt) else ''}{interrupt}")
            raise typer.Exit(143 if isinstance(interrupt, Terminated) else 130) from None
        except (Exception, SystemExit) as error:
            from patchmine.owncode.faults import fault_of

            fault = fault_of(error)
            line = _line(error, fault)
            if line is None or (show_traceback and fault is None):
                raise
            if show_traceback and fault is not None:
                print(fault.traceback(), end="", file=sys.stderr)
            say(line)
            raise typer.Exit(1) from None

    return run


def _line(error: BaseException, fault: Fault | None) -> str | None:
    """What to say of an error; None for a bug of patchmine."""
    if isinstance(error, PatchmineError):
        return str(error)
    if fault is not None:
        return f"{fault.owner} fails: {fault}"
    if isinstance(error, OSError) and (error.filename or error.strerror):  # a full disk, a folder that is not writable
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    return None


def say(text: str) -> None:
    from patchmine.system.printable import printable

    line = printable(" ".join(text.split()))
    print(f"patchmine: {line}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
