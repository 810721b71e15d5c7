"""`patchmine compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from patchmine.cli import options
from patchmine.synthesis.recipe import METHODS, OBJECTIVES, Recipe, beside

if TYPE_CHECKING:
    from patchmine.index import IndexedUnit
    from patchmine.questions.compare import Comparison
    from patchmine.sheets.page import Page


def compare(
    unit: options.Unit,
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many patches.")] = 9,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            metavar="N",
            help="Number of synthetic images. Default: 3, or 1 with --objective channel.",
            show_default=False,
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help=f"What the images maximize: {', '.join(OBJECTIVES)}.")
    ] = Recipe.objective,
    method: Annotated[str, typer.Option(help=f"How the images are represented: {', '.join(METHODS)}.")] = Recipe.method,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of the ascent.")] = Recipe.steps,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed; another seed gives other images.")] = Recipe.seed,
    out: options.Sheet = None,
    crop: options.Crop = None,
    share: options.Share = None,
    layer: options.Layer = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
) -> None:
    """Show real patches beside synthetic images of a unit, at the same scale, and report whether they agree.

    The facts below them compare the activation on the synthetic images with that on photographs, and name the real
    patches nearest to the first synthetic image. A warning appears if that image drives the unit along another path
    than photographs do.

    Example: `patchmine compare --unit blocks.4:50 -o compare.pdf`
    """
    from patchmine.cli.deliver import Form
    from patchmine.cli.running import opened
    from patchmine.errors import RequestError
    from patchmine.system import allocator

    allocator.keep_flat()  # before torch starts its threads
    if out is None and not json:
        raise RequestError("no output given: give -o FILE (.png, .pdf or .svg), or --json for the numbers alone")
    form = Form(json, out=out)
    asked = opened(index, source, model, weights).unit(unit, layer)
    recipe = Recipe(objective, method, steps, seed, images=beside(objective) if images is None else images)
    found = _found(asked, recipe, k, crop or "auto", share)
    form.draw(lambda: _page(found))
    form.print(found.as_dict, found.rows, list(found.columns), lambda: _print(found))


def _found(asked: IndexedUnit, recipe: Recipe, k: int, crop: str, share: float | None) -> Comparison:
    from patchmine.cli import progress
    from patchmine.cli.stopping import stoppable
    from patchmine.index import Cropping
    from patchmine.questions.compare import compare as against

    with stoppable(), progress.shown() as display:
        return against(asked, recipe, k=k, cropping=Cropping(crop, share), progress=display)


def _page(found: Comparison) -> Page:
    from patchmine.sheets.layouts.compare import compare_page

    return compare_page(found)


def _print(found: Comparison) -> None:
    from patchmine.cli.output import print_line

    for text in (*found.warnings(), *found.facts()):
        print_line(text)
