"""`patchmine tighten`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options
from patchmine.defaults import Run

if TYPE_CHECKING:
    from patchmine.index import Index
    from patchmine.reading.cropped import Tightened

RUN = Run()


def tighten(
    unit: options.Units = None,
    layer: options.Layer = None,
    k: Annotated[int, typer.Option("-k", metavar="K", help="Patches of each unit.")] = defaults.TIGHT_K,
    pick: Annotated[str, typer.Option("--pick", help=f"Which patches: {', '.join(defaults.PICKS)}.")] = defaults.PICKS[
        0
    ],
    share: Annotated[
        float, typer.Option("--share", help="Share of the activation that a tight crop retains.")
    ] = defaults.TIGHT_SHARE,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    workers: options.Workers = RUN.workers,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """Find the tight crops of the best patches: the smallest boxes that alone bring back most of the activation.

    Without `--unit` and `--layer` it does so for every unit. The index keeps the crops, and every command with
    `--crop auto` or `--crop tight` shows them. You can stop it at any time; run the same command again to resume.

    Example: `patchmine tighten --layer blocks.6 -k 9`
    """
    from patchmine.cli.deliver import Form
    from patchmine.cli.running import opened

    form = Form(json, csv)
    at = opened(index, source, model, weights)
    found = tightened(at, unit, layer, k, pick, share, workers)
    form.answer(found, f"tight crops kept in {at.name}")


def tightened(
    index: Index, units: Sequence[str] | None, layer: str | None, k: int, pick: str, share: float, workers: int
) -> Tightened:
    """Find the crops with progress; an interrupt reports how many units are done."""
    from patchmine.reading.cropped import Tightened

    found = Tightened(index.name, share)
    try:
        for unit, crops in index.tighten(units, layer=layer, k=k, pick=pick, share=share, workers=workers):
            found.add(index, unit.as_dict(), crops)
    except KeyboardInterrupt as interrupt:
        index.deliver()
        kept = f"{index.name} keeps the tight crops of {len(found)} units; run the same command to resume"
        raise type(interrupt)(kept) from None
    index.deliver()
    return found
