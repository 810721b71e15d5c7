"""The command line: each command parses, calls one function and prints. Nothing heavy is imported here."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import typer

from patchmine.cli import errors, output, words
from patchmine.cli.commands import (
    between,
    compare,
    demo,
    embed,
    export,
    fires,
    import_,
    index,
    info,
    layers,
    merge,
    name,
    pack,
    probe,
    serve,
    sheet,
    similar,
    site,
    synth,
    tighten,
    top,
    units,
    verify,
    why,
)

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

COMMANDS = (
    index.index,
    merge.merge,
    top.top,
    sheet.sheet,
    units.units,
    name.name,
    similar.similar,
    fires.fires,
    tighten.tighten,
    synth.synth,
    why.why,
    probe.probe,
    compare.compare,
    between.between,
    serve.serve,
    site.site,
    info.info,
    layers.layers,
    layers.rf,
    verify.verify,
    export.export,
    import_.import_,
    embed.embed,
    pack.pack,
    pack.unpack,
    demo.demo,
)

for command in COMMANDS:
    app.command(words.called(command), cls=words.Command)(errors.guarded(command))


@app.callback()
def options(
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
    _leave_out_others(next((word for word in arguments if not word.startswith("-")), ""))
    app(arguments)


def _leave_out_others(named: str) -> None:
    """Keep only the named command, if it exists: Typer reads the signature of every command, which takes longer than
    most answers."""
    alone = [info for info in app.registered_commands if info.name == named]
    if alone:
        app.registered_commands = alone
