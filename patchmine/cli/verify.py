"""`patchmine verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from patchmine import request
from patchmine.cli import options

UNITS, K = 16, 5


def verify(
    crops: Annotated[bool, typer.Option("--crops", help="Feed crops alone back through the network.")] = False,
    units: Annotated[int, typer.Option("--units", metavar="N", help="Units of each layer, drawn at random.")] = UNITS,
    k: Annotated[int, typer.Option("-k", metavar="K", help="Patches of each unit.")] = K,
    share: options.Share = request.SHARE,
    seed: Annotated[int, typer.Option("--seed", help="For the choice of units.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="M",
            help="The network of the index; to be typed where it is a file of code, which is run.",
            show_default=False,
        ),
    ] = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
) -> None:
    """Check an index against the network that made it.

    With `--crops`: which share of its activation does a patch keep when the network sees the crop alone, on a grey
    background, at its place and scale? That is the honest measure of a crop.

    Example: `patchmine verify --crops --units 16`
    """
    from patchmine.cli.output import print_json, print_table
    from patchmine.cli.progress import shown
    from patchmine.errors import RequestError
    from patchmine.index import open_index
    from patchmine.models import load_for_index

    if not crops:
        raise RequestError("say what to verify: patchmine verify --crops")
    if units < 1 or k < 1:
        raise RequestError("--units and -k count from 1: nothing would be verified")
    opened = open_index(index, source)
    network = load_for_index(opened.job, model, weights)

    from patchmine.retained import CROPS, retained, summary

    drawn = sum(min(units, channels) for channels in opened.layers.values())
    with shown() as display:
        display.begin(drawn * min(k, len(opened)) * len(CROPS), 0, "crops")
        found = retained(opened, network, units=units, k=k, share=share, seed=seed, advance=display.advance)
    if json:
        shares = [
            {"layer": e.unit.layer, "channel": e.unit.channel, "crop": e.crop, "retained": e.shares.tolist()}
            for e in found
        ]
        print_json({"index": opened.name, "share": share, "layers": summary(found), "units": shares})
        return
    print(f"activation retained by a crop alone, {units} units of each layer, top {k}; erf: {share:.0%} of the energy")
    print_table(
        [
            (row["layer"], row["crop"], row["patches"], *(_percent(row[key]) for key in ("median", "p10")))
            for row in summary(found)
        ],
        ["layer", "crop", "patches", "median", "10th percentile"],
    )


def _percent(number: float | None) -> str | None:
    return None if number is None else f"{number:.0%}"
