"""`patchmine similar`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.index import IndexedUnit
    from patchmine.questions.similar import Similar
    from patchmine.sheets.page import Page
    from patchmine.units import Box


def similar(
    unit: Annotated[
        str | None,
        typer.Option("--unit", metavar="U", help="Unit whose best patch is the query.", show_default=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="FILE",
            help="Photograph that is the query: an image file, or the path of a photograph in the index.",
            show_default=False,
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            "--box",
            metavar="L,T,R,B",
            help="Use only this part of --image, in pixels of the photograph.",
            show_default=False,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer",
            metavar="L",
            help="Layer to compare in. Default: the unit's own, the last for --image, and with --box the one whose "
            "effective field is nearest to the box's size.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many patches, and how many units.")] = defaults.K,
    several: Annotated[
        bool, typer.Option("--several", help="Allow several patches of one photograph, not only its nearest.")
    ] = False,
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
    """Find the patches that the network finds most similar to a photograph or to the best patch of a unit.

    Patches are compared by the cosine similarity of all channels of the layer at their place. With `--unit` the answer
    also lists similar units, compared by the correlation of their activations over all photographs. It holds one patch
    of each photograph, or more with `--several`.

    Example: `patchmine similar --unit blocks.6:33`, `patchmine similar --image my.jpg --box 40,30,200,180 -o like.png`
    """
    from patchmine.cli.deliver import Form
    from patchmine.cli.errors import say
    from patchmine.cli.running import opened

    form = Form(json, csv, out)
    at = opened(index, source, model, weights)
    found = at.similar(
        unit,
        image=image,
        box=None if box is None else _box(box),
        layer=layer,
        k=k,
        several=several,
        crop=crop or form.crop,
        share=share,
        note=say,
    )
    form.draw(lambda: _page(found), len(found.patches))
    form.answer(found, f"patches of {at.name} nearest to {found.asked_for} in {found.layer}", lambda: _print(found))


def _box(text: str) -> Box:
    from patchmine.errors import RequestError
    from patchmine.units import Box

    words = text.split(",")
    if len(words) != 4 or not all(word.strip().isascii() and word.strip().isdigit() for word in words):
        raise RequestError(f"--box {text} is not a box: write left,top,right,bottom in pixels, such as 40,30,200,180")
    return Box(*(int(word) for word in words))


def _page(found: Similar[IndexedUnit]) -> Page:
    from patchmine.sheets.layouts.similar import similar_page

    return similar_page(found)


def _print(found: Similar[IndexedUnit]) -> None:
    from patchmine.cli.deliver import print_labels
    from patchmine.cli.output import print_line, print_table

    units = [unit for unit, _ in found.units]
    if found.units:
        print_line(f"units that correlate with {found.asked_for}")
        print_table([(f"{s:.4f}", str(u.unit), u.name) for u, s in found.units], ["correlation", "unit", "name"])
    print_labels(found.index.labels, [found.index.unit(found.asked.unit), *units] if found.sight is None else units)
