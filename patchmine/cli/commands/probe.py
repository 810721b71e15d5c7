"""`patchmine probe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.index import IndexedUnit
    from patchmine.probe.probing import Probe
    from patchmine.sheets.page import Page


def probe(
    unit: options.Unit,
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many of the best patches are changed.")] = defaults.K,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed; another seed takes other photographs to paste into, and phases.")
    ] = 0,
    out: options.Sheet = None,
    crop: options.Crop = None,
    share: options.Share = None,
    layer: options.Layer = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """Find out whether color or shape drives a unit: show it its best patches changed.

    Each patch is made gray, turned to other hues, reduced to one flat color, blurred, high-passed, scrambled,
    mirrored, turned, scaled, and pasted into another photograph. The command prints how much of the activation remains,
    with intervals over patches, and a verdict. The sheet shows what the network saw.

    Example: `patchmine probe --unit blocks.4:50 -o probe.pdf`
    """
    from patchmine.cli.deliver import Form
    from patchmine.cli.running import opened
    from patchmine.system import allocator

    allocator.keep_flat()  # before torch starts its threads
    form = Form(json, csv, out)
    asked = opened(index, source, model, weights).unit(unit, layer)
    found = _found(asked, k, crop or "auto", share, seed)
    form.draw(lambda: _page(found))
    patches = f"{len(found.changed)} patch{'es' if len(found.changed) > 1 else ''}"
    form.answer(found, f"{asked.name} ({asked.unit}), {patches}: {found.verdict}")


def _found(asked: IndexedUnit, k: int, crop: str, share: float | None, seed: int) -> Probe:
    from patchmine.cli import progress
    from patchmine.cli.stopping import stoppable
    from patchmine.index import Cropping

    asked.index.network()
    with stoppable(), progress.shown() as display:
        from patchmine.probe.probing import probe as probed

        return probed(asked, k=k, cropping=Cropping(crop, share), seed=seed, progress=display)


def _page(found: Probe) -> Page:
    from patchmine.sheets.layouts.probe import probe_page

    return probe_page(found)
