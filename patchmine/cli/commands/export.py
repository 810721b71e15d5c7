"""`patchmine export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchmine import defaults
from patchmine.cli import options
from patchmine.defaults import Run

RUN = Run()


def export(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What to write: {options.EXPORTS}.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="The folder or file to make.")],
    unit: options.Units = None,
    layer: options.LayersOfIndex = None,
    k: Annotated[
        int | None,
        typer.Option(
            "-k", metavar="K", help="Patches of each unit. Default: what the kind's readers expect.", show_default=False
        ),
    ] = None,
    picks: Annotated[
        list[str] | None,
        typer.Option(
            "--pick",
            metavar="P",
            help=f"Which patches: {', '.join(defaults.PICKS)}; most kinds take several. Default: top.",
            show_default=False,
        ),
    ] = None,
    crop: options.Crop = None,
    share: options.Share = None,
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool",
            help=f"For clip-dissect and cosy: {' or '.join(defaults.POOLS)} over positions. Default: what they expect.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of every random choice.")] = 0,
    force: options.Force = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at a photograph that cannot be read, instead of leaving it out.")
    ] = False,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    workers: options.Workers = RUN.workers,
    index: options.IndexDir = None,
    source: options.Moved = None,
) -> None:
    """Write the patches of an index in the format of another tool.

    Without `--unit` and `--layer` it takes every unit. The same command writes the same bytes again.

    Example: `patchmine export coco -o detections --layer blocks.6 -k 9`
    """
    from patchmine.cli import progress
    from patchmine.cli.output import print_line
    from patchmine.cli.running import opened
    from patchmine.cli.stopping import stoppable
    from patchmine.exports import Asked, Order

    asked = Asked(
        k=k,
        picks=tuple(picks or (defaults.PICKS[0],)),
        crop=crop or "rf",
        share=share,
        seed=seed,
        pool=pool,
        strict=strict,
        workers=workers,
    )
    order = Order(kind, out, asked, force)
    at = opened(index, source, model, weights)
    with stoppable(), progress.shown() as display:
        made = order.carry_out(at, unit or (), layer or (), display)
    print_line(f"{out}: {made}")
