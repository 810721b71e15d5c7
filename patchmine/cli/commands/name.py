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
        str | None,
        typer.Argument(
            metavar="[U]",
            help="The unit: its name, LAYER:CHANNEL or LAYER_CHANNEL.",
            show_default=False,
            autocompletion=completion.units,
        ),
    ] = None,
    called: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Its new name.", show_default=False)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the name that was given to U.")] = False,
    auto: Annotated[bool, typer.Option("--auto", help="Recompute the labels of all units.")] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="FILE", help="With --auto: class labels, as for patchmine index.", show_default=False
        ),
    ] = None,
    layer: options.Layer = None,
    index: options.IndexDir = None,
    json: options.Json = False,
) -> None:
    """Name a unit, recompute all labels, or list the given names.

    Example: `patchmine name blocks.6:33 koi`
    """
    from patchmine.cli.output import print_json, print_line
    from patchmine.errors import RequestError
    from patchmine.index import open_index
    from patchmine.questions import rename

    wanted = [unit is not None and called is not None, remove, auto]
    if sum(wanted) > 1 or (remove and unit is None) or (auto and unit is not None):
        raise RequestError("give only one of U NAME, U --remove and --auto, or nothing to list the names")
    if labels is not None and not auto:
        raise RequestError("--labels needs --auto: patchmine name --auto --labels FILE")
    if unit is not None and called is None and not remove:
        raise RequestError(f"no name given for {unit!r}: patchmine name {unit} NAME, or patchmine name {unit} --remove")
    opened = open_index(index)
    if auto:
        about = rename.label_anew(opened, labels)
        opened.deliver()
        if json:
            print_json({"index": opened.name, "labels": about})
        else:
            from patchmine.labels.of_index import naming_text, said

            print_line(f"{about.get('units', 0)} of {sum(opened.layers.values())} units have a label")
            print_line(f"names: {naming_text(about, opened.layers)}")
            print_line(f"labels: {said(about)}")
        return
    if unit is not None:
        rename.give(opened, opened.unit(unit, layer).unit, called)
        opened.deliver()
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
        print_line("no unit has a given name; give one with: patchmine name U NAME")
    waiting = sorted(index.names_file.given.keys() - given.keys())
    if waiting:
        say(f"{len(waiting)} names belong to units that are not in this index, such as {waiting[0]}")
