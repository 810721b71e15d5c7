"""`patchmine serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from patchmine import defaults
from patchmine.cli import options, stopping


def serve(
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="H", help="Address to listen at. Beyond this machine, the pages ask for a token."
        ),
    ] = defaults.HOST,
    port: Annotated[int, typer.Option("--port", metavar="P", help="Port to listen at; 0 takes any.")] = defaults.PORT,
    compute: Annotated[
        bool,
        typer.Option("--compute", help="Let pages compute tight crops and synthetic images, which the index keeps."),
    ] = False,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = False,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
) -> None:
    """Show the index in a browser: its network, layers and units, and photographs that you drop on a page.

    Prints its address once it answers. Ctrl-C ends it.

    Example: `patchmine serve -i photographs.patchmine --open`
    """
    from patchmine.cli.errors import say
    from patchmine.cli.output import print_line
    from patchmine.errors import RequestError
    from patchmine.index import find_index

    if not 0 <= port < 1 << 16:
        raise RequestError(f"--port must be from 0 to 65535, not {port}")
    try:
        from patchmine.web.live.current import Current
        from patchmine.web.live.server import serve as run
    except ModuleNotFoundError as error:
        raise RequestError(f"serve needs {error.name}: pip install 'patchmine[web]'") from None
    current = Current(find_index(index), source, model, weights)

    def answers(address: str) -> None:
        print_line(address, at_once=True)
        say(f"serves {current.index().name}; Ctrl-C ends it")
        if browser:
            import webbrowser

            webbrowser.open(address)

    stopping.waits_for_threads = run(current, host, port, compute, answers)
