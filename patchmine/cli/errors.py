"""The one place where errors become exit codes."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from patchmine.buckets.copies import deliver_all, named
from patchmine.cli.output import reserved
from patchmine.cli.stopping import Terminated
from patchmine.defaults import check
from patchmine.errors import PatchmineError, nearest

if TYPE_CHECKING:
    from patchmine.owncode.faults import Fault

show_traceback = False

_EXAMPLE = r"Examples?: `(patchmine [^`]+)`"
UsageError: Any = typer.BadParameter.__bases__[0]  # Typer's own or click's, as the version of Typer has it


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with its errors printed as one line: exit 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            check(kwargs)
            with reserved():
                found = command(*args, **kwargs)
                for unkept in deliver_all():
                    say(unkept)
            sys.stdout.flush()  # here, where a full disk is one line
            return found
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
            if isinstance(error, OSError):
                _drop_output()
            say(line)
            raise typer.Exit(1) from None

    return run


@contextmanager
def usage_told() -> Iterator[None]:
    """Print an unknown command, a wrong option or a missing argument as one line that says what to type, and exit 2."""
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        say(_usage(error))
        raise typer.Exit(2) from None


def _usage(error: Any) -> str:
    """What to say of wrong usage: the user's own word, then the nearest known one or an example of the command."""
    context, kind, message = error.ctx, type(error).__name__, error.message.rstrip(".")
    command = context.info_name if context is not None and context.parent is not None else "patchmine"
    example = None if context is None else re.search(_EXAMPLE, context.command.help or "")
    advice = f"as in: {example[1]}" if example else "see patchmine --help"
    parameter = getattr(error, "param", None)
    wanted = "" if parameter is None else max(parameter.opts, key=len)
    if parameter is not None and not wanted.startswith("-"):
        wanted = parameter.metavar or wanted.upper()
    if kind == "NoSuchOption":
        known = {word for other in context.command.get_params(context) for word in other.opts if word[:2] == "--"}
        close = nearest(error.option_name, known)
        subject = "" if command == "patchmine" else f"{command} has "
        return f"{subject}no option {error.option_name!r}{close if 'did you mean' in close else f', {advice}'}"
    if kind == "MissingParameter":
        said = f"{command} needs {wanted}"
    elif kind == "BadOptionUsage":
        said = f"{error.option_name} {'needs a value' if 'requires' in message else 'takes no value'}"
    elif kind == "BadParameter":
        said = f"{wanted} {message}"
    elif "unexpected extra" in message:
        said = f"{command} has no place for {message.rpartition('(')[2].removesuffix(')')!r}"
    else:
        return message
    return f"{said}, {advice}"


def _line(error: BaseException, fault: Fault | None) -> str | None:
    """What to say of an error; None for a bug of patchmine."""
    if isinstance(error, PatchmineError):
        return str(error)
    if fault is not None:
        return f"{fault.owner} fails: {fault}"
    if isinstance(error, OSError) and (error.filename or error.strerror):  # a full disk, a folder that is not writable
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    if isinstance(error, MemoryError | RuntimeError) and _out_of_memory(error):
        return "out of memory: close other programs, or ask for less (fewer --workers, a smaller --batch-size or -k)"
    return None


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

    line = printable(" ".join(named(text).split()))
    print(f"patchmine: {line}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)
