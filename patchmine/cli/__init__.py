"""The command line: each command parses, calls one function and prints. Nothing heavy is imported here."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from inspect import get_annotations
from keyword import iskeyword
from pathlib import Path

import typer

from patchmine.cli import errors, output, words

COMMANDS = {
    "index": "index",
    "merge": "merge",
    "top": "top",
    "sheet": "sheet",
    "units": "units",
    "name": "name",
    "similar": "similar",
    "fires": "fires",
    "tighten": "tighten",
    "synth": "synth",
    "why": "why",
    "probe": "probe",
    "compare": "compare",
    "between": "between",
    "serve": "serve",
    "site": "site",
    "info": "info",
    "layers": "layers",
    "rf": "layers",
    "verify": "verify",
    "export": "export",
    "import": "import_",
    "embed": "embed",
    "pack": "pack",
    "unpack": "pack",
    "demo": "demo",
}
"""The commands in the order of `--help`, and the module of `commands` that holds each."""


@cache
def application(*names: str, listed: bool = False) -> typer.Typer:
    """The program with these commands alone: importing a command and reading its signature takes longer than most
    answers. If they are only to be `listed`, their signatures are not read."""
    app = typer.Typer(
        name="patchmine",
        cls=words.Group,
        help="Find the patches of real photographs that drive a unit of a vision network hardest.",
        epilog="Start with: patchmine index PHOTOGRAPHS/ && patchmine top --unit blocks.6:33 -o sheet.png",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    app.callback()(_options)
    for name in names:
        module = import_module(f"patchmine.cli.commands.{COMMANDS[name]}")
        command = getattr(module, f"{name}_" if iskeyword(name) else name)
        app.command(name, cls=words.Command)(_described(command) if listed else _whole(command))
    return app


def _whole(command: Callable[..., None]) -> Callable[..., None]:
    command.__annotations__ = get_annotations(command, eval_str=True)  # once: Typer reads them several times
    return errors.guarded(command)


def _described(command: Callable[..., None]) -> Callable[[], None]:
    def nothing() -> None:
        """In the list of commands only the text of a command shows, not its options."""

    nothing.__doc__ = command.__doc__
    return nothing


def __getattr__(name: str) -> typer.Typer:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return application(*COMMANDS)  # the whole program, for tests and for the pages that document it


def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    errors.show_traceback = debug
    if version:
        from importlib.metadata import version as installed

        print(f"patchmine {installed('patchmine')}")
        raise typer.Exit


def main() -> None:
    """The console script `patchmine`."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by the caller: the next file opened would take its place
            setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115
    output.end_with_readers()
    # Threads that spin at a barrier while another process needs the core cost up to nine tenths of the speed. torch's
    # OpenMP reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.simplefilter("ignore")  # those of libraries, which concern no user; PYTHONWARNINGS may make errors of them
    arguments = sys.argv[1:]
    # People add --debug at the end of the line that failed; it belongs to every command.
    if "--debug" in arguments:
        arguments = ["--debug", *(word for word in arguments if word != "--debug")]
    if arguments == ["--version"]:
        arguments += ["info"]  # the callback ends the program before the command runs
    named = next((word for word in arguments if not word.startswith("-")), "")
    names = [named] if named in COMMANDS else COMMANDS
    application(*names, listed=arguments == ["--help"])(arguments)
