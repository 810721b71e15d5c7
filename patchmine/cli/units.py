"""`patchmine units`."""

from __future__ import annotations

from typing import Annotated

import typer

from patchmine.cli import options

KEYS = ("max", "mean", "positive", "tied")


def units(
    layer: options.Layer = None,
    match: Annotated[
        str | None,
        typer.Option(
            "--match",
            metavar="PATTERN",
            help="A shell pattern over names and LAYER:CHANNEL.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="KEY", help=f"Descending by {', '.join(KEYS)}.", show_default=False),
    ] = None,
    index: options.IndexDir = None,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """What is in the index, unit by unit.

    Example: `patchmine units --layer blocks.6 --sort max`
    """
    from patchmine.cli.output import print_csv, print_json, print_table
    from patchmine.errors import RequestError, nearest
    from patchmine.index import open_index

    if sort is not None and sort not in KEYS:
        raise RequestError(f"cannot sort by {sort!r}{nearest(sort, KEYS)}")
    opened = open_index(index)
    found = [unit.summary() for unit in opened.units(layer, match)]
    if match is not None and not found:
        raise RequestError(f"no unit fits {match!r}; a pattern such as '*_41*' or 'blocks.6:*' does")
    if sort is not None:
        found.sort(key=lambda unit: -float("inf") if unit[sort] is None else unit[sort], reverse=True)
    if json:
        print_json({"index": opened.name, "units": found})
    elif csv:
        print_csv(found, list(found[0]) if found else [])
    else:
        print_table(
            [
                (
                    f"{u['layer']}:{u['channel']}",
                    u["name"],
                    _short(u["max"]),
                    _short(u["mean"]),
                    f"{u['positive']:.0%}",
                    u["tied"],
                )
                for u in found
            ],
            ["unit", "name", "max", "mean", "positive", "tied"],
        )


def _short(number: float | None) -> str | None:
    return None if number is None else f"{number:.4g}"
