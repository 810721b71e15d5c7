"""`patchmine similar`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.questions.similar import Similar
    from patchmine.reading.opened import Index
    from patchmine.units import Box


def similar(
    unit: Annotated[
        str | None,
        typer.Option("--unit", metavar="U", help="Similar to the best patch of this unit.", show_default=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="FILE",
            help="Similar to this photograph: a file, or one of the index by its path there.",
            show_default=False,
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            "--box", metavar="L,T,R,B", help="Only this part of it, in pixels of the photograph.", show_default=False
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer", metavar="L", help="Where to compare. Default: the unit's, else the last.", show_default=False
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many patches, and how many units.")] = defaults.K,
    several: Annotated[
        bool, typer.Option("--several", help="Several patches of one photograph, not its nearest alone.")
    ] = False,
    crop: options.Crop = None,
    share: options.Share = defaults.SHARE,
    out: options.Sheet = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """What looks like this to the network: the nearest patches, and for a unit the units that go with it.

    Patches are compared by the cosine of what all channels of the layer do at their place, units by the correlation of
    their activations over all photographs. One patch of each photograph is shown, unless `--several`.

    Example: `patchmine similar --unit blocks.6:33`, `patchmine similar --image my.jpg --box 40,30,200,180 -o like.png`
    """
    from patchmine.cli.errors import say
    from patchmine.cli.output import print_csv, print_json
    from patchmine.errors import RequestError
    from patchmine.reading.opened import Cropping, open_index

    if json and csv:
        raise RequestError("--json and --csv exclude each other: give one of them")
    if out is not None:
        from patchmine.sheets import check_target

        check_target(out)
    opened = open_index(index, source)
    found = opened.similar(
        unit,
        image=image,
        box=None if box is None else _box(box),
        layer=layer,
        k=k,
        several=several,
        crop=crop or ("auto" if out is not None else "rf"),
        share=share,
        model=model,
        weights=weights,
        note=say,
    )
    if out is not None:
        from patchmine.sheets import draw_similar

        missing = draw_similar(opened, found, out, Cropping(opened.crop(found.asked.unit, crop or "auto"), share))
        if missing:
            say(f"{len(missing)} of {len(found.patches)} photographs could not be shown; {missing[0]}")
    if json:
        print_json(found.as_dict(opened))
    elif csv:
        print_csv(found.rows(), list(found.columns))
    else:
        _print(opened, found)
        if out is not None:
            print(out)


def _box(text: str) -> Box:
    from patchmine.errors import RequestError
    from patchmine.units import Box

    words = text.split(",")
    if len(words) != 4 or not all(word.strip().isascii() and word.strip().isdigit() for word in words):
        raise RequestError(f"--box {text} is no box: write left,top,right,bottom in pixels, as in --box 40,30,200,180")
    return Box(*(int(word) for word in words))


def _print(index: Index, found: Similar) -> None:
    from patchmine.cli.output import print_line, print_table, tell_labels
    from patchmine.questions.similar import HEADER

    print_line(f"patches of {index.name} nearest to {found.asked_for} in {found.layer}")
    print_table(found.shown(), HEADER)
    units = [unit for unit, _ in found.units]
    if found.units:
        print_line(f"units that go with {found.asked_for}")
        print_table([(f"{s:.4f}", str(u.unit), u.name) for u, s in found.units], ["correlation", "unit", "name"])
    tell_labels(index, [index.unit(found.asked.unit), *units] if found.sight is None else units)
