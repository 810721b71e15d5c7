"""`patchmine synth`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchmine.cli import completion, options
from patchmine.synthesis.recipe import METHODS, OBJECTIVES, Recipe

if TYPE_CHECKING:
    from patchmine.index import Index
    from patchmine.synthesis.keeping import Made
    from patchmine.units import Unit


def synth(
    unit: options.OneUnit = None,
    all_in: Annotated[
        str | None,
        typer.Option(
            "--all-in",
            metavar="LAYER",
            help="Make images for every unit of this layer; run the same command to resume.",
            show_default=False,
            autocompletion=completion.layers,
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help=f"What the image maximizes: {', '.join(OBJECTIVES)}.")
    ] = Recipe.objective,
    method: Annotated[str, typer.Option(help=f"How the image is represented: {', '.join(METHODS)}.")] = Recipe.method,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            help="Side of the image in input pixels. Default: the unit's field, or the whole input for channel.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of the ascent.")] = Recipe.steps,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed; another seed gives another image.")] = Recipe.seed,
    start: Annotated[
        int | None,
        typer.Option(
            "--from",
            metavar="RANK",
            help="Start from the unit's patch of this rank, not from noise.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="File of the image: .png, at its own resolution.", show_default=False
        ),
    ] = None,
    layer: options.Layer = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
) -> None:
    """Synthesize the image that a unit responds to most strongly, at the scale of its patches.

    `neuron` maximizes the unit at one place, in an image as large as its field. `channel` maximizes its mean over all
    places of a whole input, which gives a texture. `negative` minimizes the unit at one place, and `diverse` makes
    several images that differ from each other. The index keeps all images, so that the same command answers at once.

    Example: `patchmine synth --unit blocks.4:50 -o liked.png`
    """
    from patchmine.cli.running import opened
    from patchmine.errors import RequestError
    from patchmine.system import allocator

    allocator.keep_flat()  # before torch starts its threads
    recipe = Recipe(objective, method, steps, seed, size)
    if unit is None and all_in is None:
        raise RequestError("no unit given: give --unit U, or --all-in LAYER for all units of a layer")
    if unit is not None and all_in is not None:
        raise RequestError(f"--unit and --all-in {all_in} exclude each other: give only one of them")
    if out is not None:
        _check_target(out, all_in)
    at = opened(index, source, model, weights)
    if all_in is not None:
        from patchmine.synthesis.library import units_of

        units = units_of(at, all_in)
    else:
        units = [at.unit(str(unit), layer).unit]
    made = _made(at, units, recipe, start, must_keep=out is None)
    _print(at, made, json)
    if out is not None:
        _write(made[0][1], out)
        if not json:
            from patchmine.cli.output import print_line

            print_line(str(out))


def _check_target(out: Path, all_in: str | None) -> None:
    from patchmine.errors import RequestError
    from patchmine.system.atomic import check_target

    if all_in is not None:
        raise RequestError(f"-o {out} holds the image of one unit: leave it out, the index keeps those of --all-in")
    if out.suffix.lower() != ".png":
        raise RequestError(f"{str(out)!r} is not a PNG file: end its name in .png, or draw a sheet with compare")
    check_target(out)


def _made(
    opened: Index, units: list[Unit], recipe: Recipe, start: int | None, must_keep: bool
) -> list[tuple[Unit, Made]]:
    """The images of all units; an interrupt reports how many are kept."""
    from patchmine.cli import progress
    from patchmine.cli.stopping import stoppable
    from patchmine.synthesis.keeping import Dead
    from patchmine.synthesis.library import synthesized

    done: list[tuple[Unit, Made]] = []
    try:
        with stoppable(), progress.shown() as display:
            for pair in synthesized(opened, units, recipe, start=start, progress=display, must_keep=must_keep):
                done.append(pair)
    except KeyboardInterrupt as interrupt:
        kept = f"{opened.name} keeps the images of {len(done)} of {len(units)} units; run the same command to resume"
        raise type(interrupt)(kept if len(units) > 1 else "the unfinished image is not kept") from None
    if len(units) == 1 and isinstance(done[0][1], Dead):
        from patchmine.errors import UnitError

        raise UnitError(f"{units[0]} {done[0][1].reason}; try another unit or another --seed")
    order = {unit: number for number, unit in enumerate(units)}
    return sorted(done, key=lambda pair: order[pair[0]])


def _print(opened: Index, made: list[tuple[Unit, Made]], json: bool) -> None:
    from patchmine.cli.errors import say
    from patchmine.cli.output import print_json, print_table
    from patchmine.synthesis.keeping import Dead

    rows: list[dict[str, Any]] = []
    for unit, images in made:
        about = opened.unit(unit).as_dict()
        numbers = opened.unit(unit).statistics
        best = numbers.maximum if numbers.finite else None
        if isinstance(images, Dead):
            rows.append({**about, "best_real": best, "dead": images.reason, "images": []})
            continue
        rows.append({**about, "best_real": best, "dead": None, "images": [image.as_dict() for image in images]})
        for image in images:
            if image.stopped is not None:
                say(f"{unit}: a value was no longer finite at step {image.stopped}; the image is the last good one")
    if json:
        recipe = next((images[0].recipe.as_dict() for _, images in made if not isinstance(images, Dead)), None)
        print_json({"index": opened.name, "recipe": recipe, "units": rows})
        return
    print_table(
        [
            (row["name"], f"{row['layer']}:{row['channel']}", f"{image['value']:.4g}", f"{image['mean']:.4g}",
             f"{row['best_real']:.4g}", f"{image['width']}x{image['height']}", image["file"] or "not kept")
            for row in rows
            for image in row["images"]
        ],
        ["name", "unit", "value", "mean", "best real", "pixels", "file"],
    )  # fmt: skip
    dead = [f"{row['layer']}:{row['channel']}" for row in rows if row["dead"]]
    if dead:
        say(f"{len(dead)} units have no image, because no gradient reaches the input: {', '.join(dead[:8])}")


def _write(made: Made, out: Path) -> None:
    """Write the unit's images side by side, without scaling."""
    import io

    from PIL import Image

    from patchmine.synthesis.keeping import Dead
    from patchmine.system.atomic import deliver

    assert not isinstance(made, Dead)
    pictures = [one.image() for one in made]
    width, gap = pictures[0].width, 2 if len(pictures) > 1 else 0
    row = Image.new("RGB", (len(pictures) * (width + gap) - gap, pictures[0].height), "white")
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * (width + gap), 0))
    buffer = io.BytesIO()
    row.save(buffer, "PNG")
    deliver(out, buffer.getvalue())
