"""`patchmine name`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchmine.cli import completion, options

if TYPE_CHECKING:
    from patchmine.index import Index


def name(
    unit: Annotated[
        str | None, typer.Argument(metavar="[U]", show_default=False, autocompletion=completion.units)
    ] = None,
    called: Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the name of U away again.")] = False,
    auto: Annotated[bool, typer.Option("--auto", help="Compute the labels of all units anew.")] = False,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="With --auto: classes, as for index.", show_default=False),
    ] = None,
    layer: options.Layer = None,
    index: options.IndexDir = None,
    json: options.Json = False,
) -> None:
    """Call a unit something, label all units anew, or list the names that were given.

    Example: `patchmine name blocks.6:33 koi`
    """
    from patchmine.cli.output import print_json, print_line
    from patchmine.errors import RequestError
    from patchmine.index import open_index
    from patchmine.questions import rename

    wanted = [unit is not None and called is not None, remove, auto]
    if sum(wanted) > 1 or (remove and unit is None) or (auto and unit is not None):
        raise RequestError("give one of: U NAME, U --remove, --auto, or nothing for the names that there are")
    if labels is not None and not auto:
        raise RequestError("--labels is for --auto: patchmine name --auto --labels FILE")
    if unit is not None and called is None and not remove:
        raise RequestError(f"say what {unit!r} is to be called: patchmine name {unit} NAME, or --remove")
    opened = open_index(index)
    if auto:
        about = rename.label_anew(opened, labels)
        if json:
            print_json({"index": opened.name, "labels": about})
        else:
            from patchmine.labels.of_index import said

            print_line(f"{about.get('units', 0)} of {sum(opened.layers.values())} units have a label")
            print_line(f"labels: {said(about)}")
        return
    if unit is not None:
        rename.give(opened, opened.unit(unit, layer).unit, called)
        opened = open_index(index)
    _list(opened, json)


def _list(index: Index, json: bool) -> None:
    from patchmine.cli.errors import say
    from patchmine.cli.output import print_json, print_line, print_table

    given: dict[str, Any] = {str(unit): name for unit, name in sorted(index.names.given.items())}
    if json:
        print_json({"index": index.name, "given": given})
    elif given:
        print_table(list(given.items()), ["unit", "name"])
    else:
        print_line("no unit has been given a name: patchmine name U NAME")
    waiting = sorted(index.names_file.given.keys() - given.keys())
    if waiting:
        say(f"{len(waiting)} names are kept for units that this index has not, such as {waiting[0]}")
