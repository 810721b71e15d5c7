"""`patchmine fires`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.index import IndexedUnit
    from patchmine.questions.fires import Fires
    from patchmine.sheets.page import Page


def fires(
    photo: Annotated[
        str, typer.Argument(metavar="PHOTO", help="An image file, or the path of a photograph in the index.")
    ],
    layer: options.Layer = None,
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many units.")] = defaults.K,
    crop: options.Crop = None,
    share: options.Share = None,
    out: options.Sheet = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """List the units that a photograph drives unusually hard, and the place in it that drives each one.

    `percentile` is the share of the indexed photographs that drive the unit less; ties count half. Units of equal
    percentile are ranked by the distance from their mean activation, in standard deviations.

    Example: `patchmine fires my.jpg -i imagenet-val.patchmine -k 8 -o fires.pdf`
    """
    from patchmine.cli.deliver import Form, print_labels
    from patchmine.cli.running import opened

    form = Form(json, csv, out)
    at = opened(index, source, model, weights)
    found = at.fires(photo, layer=layer, k=k, crop=crop or form.crop, share=share)
    form.draw(lambda: _page(found, crop or form.crop, share))
    form.answer(
        found,
        f"{photo} among {len(at)} photographs of {at.name}",
        lambda: print_labels(at.labels, [fired.unit for fired in found.units]),
    )


def _page(found: Fires[IndexedUnit], crop: str, share: float | None) -> Page:
    from patchmine.sheets.layouts.fires import BEST, fires_page

    return fires_page(found, [fired.unit.top(BEST, crop=crop, share=share) for fired in found.units])
