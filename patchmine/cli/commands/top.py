"""`patchmine top`: the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchmine import defaults
from patchmine.cli import options


def top(
    unit: options.Unit,
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many patches.")] = defaults.K,
    pick: Annotated[str, typer.Option("--pick", help=f"{', '.join(defaults.PICKS)}.")] = defaults.PICKS[0],
    of_class: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Only photographs of this class or noun.", show_default=False),
    ] = None,
    not_class: Annotated[
        str | None,
        typer.Option("--not-class", metavar="NAME", help="No photographs of this class or noun.", show_default=False),
    ] = None,
    diverse: Annotated[
        bool, typer.Option("--diverse", help="One photograph of each class, and none that is nearly another.")
    ] = False,
    layer: options.Layer = None,
    crop: options.Crop = None,
    share: options.Share = defaults.SHARE,
    seed: Annotated[int, typer.Option("--seed", help="For --pick random.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="SHEET", help="A contact sheet: .png, .pdf or .svg.", show_default=False),
    ] = None,
    project: options.Project = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """The patches of real photographs that drive a unit hardest.

    Example: `patchmine top --unit blocks.6:33 -k 25 -o fish.png`
    """
    from patchmine.errors import RequestError
    from patchmine.reading.answers import PATCH_HEADER, patch_row
    from patchmine.reading.opened import Cropping, open_index

    if json and csv:
        raise RequestError("--json and --csv exclude each other: give one of them")
    if project is not None and out is None:
        raise RequestError(f"--project {project} is drawn, not printed: say where with -o SHEET.png")
    if out is not None:
        from patchmine.sheets import check_target

        check_target(out)
    opened = open_index(index, source)
    found = opened.unit(unit, layer)
    meant = opened.crop(found.unit, crop or ("auto" if out is not None else "rf"))
    patches = found.top(k, pick, meant, seed, share, of_class=of_class, not_class=not_class, diverse=diverse)
    if out is not None:
        from patchmine.cli.errors import say
        from patchmine.sheets import draw_sheet

        cropping = Cropping(meant, share)
        if project is None:
            missing = draw_sheet(found, patches, out, pick=pick, cropping=cropping)
        else:
            from patchmine.cli import progress

            with progress.shown() as display:
                projector = opened.projector(project, model=model, weights=weights, progress=display)
                missing = draw_sheet(found, patches, out, pick=pick, cropping=cropping, projector=projector)
        if missing:
            say(f"{len(missing)} of {len(patches)} photographs could not be shown; {missing[0]}")

    from patchmine.cli.output import print_csv, print_json, print_line, print_table, tell_labels

    if json:
        print_json(
            {
                "index": opened.name,
                "pick": pick,
                "crop": meant,
                "unit": found.as_dict(),
                "patches": [patch.as_dict() for patch in patches],
                "labels": opened.labels.about,
            }
        )
    elif csv:
        print_csv(patches.rows(), list(patches.columns))
    else:
        print_line(f"{found.name} ({found.unit}) in {opened.name}: {pick}")
        print_table([patch_row(patch) for patch in patches], PATCH_HEADER)
        tell_labels(opened, [found])
        if out is not None:
            print(out)
