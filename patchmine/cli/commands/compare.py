"""`patchmine compare`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from patchmine import defaults
from patchmine.cli import options
from patchmine.synthesis.recipe import METHODS, OBJECTIVES, Recipe, beside


def compare(
    unit: options.Unit,
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many patches.")] = 9,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", help="Synthetic ones. Default: 3, for channel 1.", show_default=False),
    ] = None,
    objective: Annotated[str, typer.Option(help=f"One of {', '.join(OBJECTIVES)}.")] = Recipe.objective,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = Recipe.method,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of the ascent.")] = Recipe.steps,
    seed: Annotated[int, typer.Option(metavar="N", help="Another one gives other images.")] = Recipe.seed,
    out: options.Sheet = None,
    crop: options.Crop = None,
    share: options.Share = defaults.SHARE,
    layer: options.Layer = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
) -> None:
    """Real patches beside what the unit would like best, at the same scale, and whether they agree.

    Below them: the activation on the synthetic images against photographs, which real patches are nearest to the
    synthetic one in the layer, and a warning where it drives the unit along another path than photographs do.

    Example: `patchmine compare --unit blocks.4:50 -o compare.pdf`
    """
    from patchmine.cli.errors import say
    from patchmine.cli.output import print_json, print_line
    from patchmine.errors import RequestError
    from patchmine.reading.opened import open_index
    from patchmine.sheets import check_target
    from patchmine.system import allocator

    allocator.keep_flat()  # before torch starts its threads
    if out is None and not json:
        raise RequestError("where to? give -o FILE (.png, .pdf or .svg), or --json for the numbers alone")
    if out is not None:
        check_target(out)
    opened = open_index(index, source)
    asked = opened.unit(unit, layer)
    recipe = Recipe(objective, method, steps, seed, images=beside(objective) if images is None else images)

    def load() -> Any:
        from patchmine.cli.stopping import starting

        with starting():
            import patchmine.synthesis.ascent  # noqa: F401
        return opened.loader(model, weights)()

    found = _found(asked, recipe, load, k, crop or "auto", share)
    if out is not None:
        from patchmine.sheets import draw_compare

        missing = draw_compare(found, out)
        if missing:
            say(f"{len(missing)} photographs could not be shown; {missing[0]}")
    if json:
        print_json(found.as_dict())
        return
    from patchmine.sheets.layouts.compare import facts, warnings

    for text in (*warnings(found), *facts(found)):
        print_line(text)
    print_line(str(out))


def _found(asked: Any, recipe: Recipe, load: Any, k: int, crop: str, share: float) -> Any:
    from patchmine.cli import progress
    from patchmine.cli.stopping import stoppable
    from patchmine.questions.compare import compare as against

    with stoppable(), progress.shown() as display:
        return against(asked, recipe, load, k=k, crop=crop, share=share, progress=display)
