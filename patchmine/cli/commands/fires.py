"""`patchmine fires`."""

from __future__ import annotations

from typing import Annotated

import typer

from patchmine import defaults
from patchmine.cli import options


def fires(
    photo: Annotated[
        str, typer.Argument(metavar="PHOTO", help="A file, or a photograph of the index by its path there.")
    ],
    layer: options.Layer = None,
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many units.")] = defaults.K,
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
    """Which units a photograph drives unusually hard, and where in it.

    `percentile` is the share of the photographs of the index that drive the unit less; those that drive it as much
    count half. Equal ones are ranked by their distance from the unit's mean, in standard deviations.

    Example: `patchmine fires my.jpg -i imagenet-val.patchmine -k 8 -o fires.pdf`
    """
    from patchmine.cli.errors import say
    from patchmine.cli.output import print_csv, print_json, print_line, print_table, tell_labels
    from patchmine.errors import RequestError
    from patchmine.questions.fires import HEADER
    from patchmine.reading.opened import open_index

    if json and csv:
        raise RequestError("--json and --csv exclude each other: give one of them")
    if out is not None:
        from patchmine.sheets import check_target

        check_target(out)
    opened = open_index(index, source)
    wanted = crop or ("auto" if out is not None else "rf")
    found = opened.fires(photo, layer=layer, k=k, crop=wanted, share=share, model=model, weights=weights)
    if out is not None:
        from patchmine.sheets import draw_fires

        missing = draw_fires(opened, found, out, crop=wanted, share=share)
        if missing:
            say(f"{len(missing)} photographs could not be shown; {missing[0]}")
    if json:
        print_json(found.as_dict(opened))
    elif csv:
        print_csv(found.rows(), list(found.columns))
    else:
        print_line(f"{photo} among {len(opened)} photographs of {opened.name}")
        print_table(found.shown(), HEADER)
        tell_labels(opened, [fired.unit for fired in found.units])
        if out is not None:
            print(out)
