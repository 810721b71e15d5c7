"""Printing on stdout, which belongs to patchmine alone while a command runs."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from patchmine.system.printable import printable

_stdout: TextIO | None = None


class _Piped(io.FileIO):
    """A pipe whose reader ends the command when it goes away, as `head` does. Broken sockets must not."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                signal.raise_signal(signal.SIGPIPE)
            return len(data)


def end_with_readers() -> None:
    """End the process quietly when the reader of its output or of its errors goes away."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            pipe = hasattr(signal, "SIGPIPE") and stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
        except OSError:  # a stream of a program that calls this one, in memory
            continue
        if pipe:
            raw = _Piped(stream.fileno(), "w", closefd=False)
            by_line = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            piped = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors, **by_line)
            setattr(sys, name, piped)


@contextmanager
def reserved() -> Iterator[None]:
    """Inside the block only the functions below print on stdout. What other code prints, such as a network of the
    user's own, goes to stderr."""
    global _stdout
    _stdout = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _stdout = None


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document. Bytes of a path that are not UTF-8 become \\udcXX escapes, which are valid JSON."""
    print(json.dumps(document, allow_nan=False), file=_stdout)


def print_line(text: str, at_once: bool = False) -> None:
    """Print one line; `at_once` if the command then works on, and a program may wait for the line."""
    print(printable(text), file=_tolerate(), flush=at_once)


def print_csv(rows: Iterable[Mapping[str, Any]], header: Sequence[str]) -> None:
    import csv

    writer = csv.DictWriter(_tolerate(), header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> None:
    """Print aligned columns; numbers are right-aligned."""
    from patchmine.reading.tables import text_table

    print("\n".join(text_table(rows, header)), file=_tolerate())


def _tolerate() -> TextIO:
    """Stdout, which shows an escape where a terminal or pipe cannot show a character."""
    stdout = _stdout or sys.stdout
    if hasattr(stdout, "reconfigure"):
        stdout.reconfigure(errors="backslashreplace")
    return stdout
