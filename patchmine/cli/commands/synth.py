"""`patchmine synth`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchmine.cli import completion, options
from patchmine.synthesis.recipe import METHODS, OBJECTIVES, Recipe

if TYPE_CHECKING:
    from patchmine.index import Index
    from patchmine.synthesis.library import Made
    from patchmine.units import Unit


def synth(
    unit: options.OneUnit = None,
    all_in: Annotated[
        str | None,
        typer.Option(
            "--all-in",
            metavar="LAYER",
            help="Every unit of a layer; killed, the same command goes on.",
            show_default=False,
            autocompletion=completion.layers,
        ),
    ] = None,
    objective: Annotated[str, typer.Option(help=f"One of {', '.join(OBJECTIVES)}.")] = Recipe.objective,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = Recipe.method,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            help="The side of the picture in input pixels. Default: what the unit sees; for channel the whole input.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of the ascent.")] = Recipe.steps,
    seed: Annotated[int, typer.Option(metavar="N", help="Another one gives another image.")] = Recipe.seed,
    start: Annotated[
        int | None,
        typer.Option(
            "--from", metavar="RANK", help="Start in the unit's patch of this rank, not in noise.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="The picture: .png, pixel by pixel.", show_default=False),
    ] = None,
    layer: options.Layer = None,
    model: options.ModelOfIndex = None,
    weights: options.Weights = None,
    index: options.IndexDir = None,
    source: options.Moved = None,
    json: options.Json = False,
) -> None:
    """The picture that a unit would like best, at the scale of its patches.

    `neuron` is the unit at one place, on a picture as large as what it sees; `channel` its mean over all places of a
    whole input, a texture; `negative` what silences it; `diverse` several pictures that are kept apart. What is made is
    kept in the index and shown again at once.

    Example: `patchmine synth --unit blocks.4:50 -o liked.png`
    """
    from patchmine.cli.running import opened
    from patchmine.errors import RequestError
    from patchmine.system import allocator

    allocator.keep_flat()  # before torch starts its threads
    recipe = Recipe(objective, method, steps, seed, size)
    if (unit is None) == (all_in is None):
        raise RequestError("of which unit? give either --unit U or --all-in LAYER")
    if out is not None:
        _check_target(out, all_in)
    at = opened(index, source, model, weights)
    if all_in is not None:
        from patchmine.synthesis.library import units_of

        units = units_of(at, all_in)
    else:
        units = [at.unit(str(unit), layer).unit]
    made = _made(at, units, recipe, start)
    _print(at, made, json)
    if out is not None:
        _write(made[0][1], out)
        if not json:
            from patchmine.cli.output import print_line

            print_line(str(out))


def _check_target(out: Path, all_in: str | None) -> None:
    from patchmine.errors import RequestError

    if all_in is not None:
        raise RequestError(f"-o {out} holds one unit's picture: leave it out, those of --all-in are kept in the index")
    if out.suffix.lower() != ".png":
        raise RequestError(f"{str(out)!r} is no picture: end its name in .png, or draw a sheet with patchmine compare")
    if not out.resolve().parent.is_dir():
        raise RequestError(f"there is no folder {str(out.parent)!r} to put {out.name} in")


def _made(opened: Index, units: list[Unit], recipe: Recipe, start: int | None) -> list[tuple[Unit, Made]]:
    """The images of all units; stopped, it says what is kept."""
    from patchmine.cli import progress
    from patchmine.cli.stopping import stoppable
    from patchmine.synthesis.library import Dead, synthesized

    done: list[tuple[Unit, Made]] = []
    try:
        with stoppable(), progress.shown() as display:
            for pair in synthesized(opened, units, recipe, start=start, progress=display):
                done.append(pair)
    except KeyboardInterrupt as interrupt:
        kept = f"{len(done)} of {len(units)} units have their images in {opened.name}; the same command goes on"
        raise type(interrupt)(kept if len(units) > 1 else "nothing is kept of an unfinished image") from None
    if len(units) == 1 and isinstance(done[0][1], Dead):
        from patchmine.errors import UnitError

        raise UnitError(f"{units[0]} {done[0][1].reason}; take another unit, or another --seed")
    order = {unit: number for number, unit in enumerate(units)}
    return sorted(done, key=lambda pair: order[pair[0]])


def _print(opened: Index, made: list[tuple[Unit, Made]], json: bool) -> None:
    from patchmine.cli.errors import say
    from patchmine.cli.output import print_json, print_table
    from patchmine.synthesis.library import Dead

    rows: list[dict[str, Any]] = []
    for unit, images in made:
        about = opened.unit(unit).as_dict()
        best = opened.unit(unit).statistics.maximum
        if isinstance(images, Dead):
            rows.append({**about, "best_real": best, "dead": images.reason, "images": []})
            continue
        rows.append({**about, "best_real": best, "dead": None, "images": [image.as_dict() for image in images]})
        for image in images:
            if image.stopped is not None:
                say(f"{unit}: no longer finite at step {image.stopped}; the picture is the last good one")
    if json:
        recipe = next((images[0].recipe.as_dict() for _, images in made if not isinstance(images, Dead)), None)
        print_json({"index": opened.name, "recipe": recipe, "units": rows})
        return
    print_table(
        [
            (row["name"], f"{row['layer']}:{row['channel']}", f"{image['value']:.4g}", f"{image['mean']:.4g}",
             f"{row['best_real']:.4g}", f"{image['width']}x{image['height']}", image["file"])
            for row in rows
            for image in row["images"]
        ],
        ["name", "unit", "value", "mean", "best real", "pixels", "file"],
    )  # fmt: skip
    dead = [f"{row['layer']}:{row['channel']}" for row in rows if row["dead"]]
    if dead:
        say(f"{len(dead)} units have no image, for no gradient came back from them: {', '.join(dead[:8])}")


def _write(made: Made, out: Path) -> None:
    """The unit's pictures side by side, pixel by pixel."""
    import io

    from PIL import Image

    from patchmine.synthesis.library import Dead
    from patchmine.system.atomic import write_atomically

    assert not isinstance(made, Dead)
    pictures = [one.image() for one in made]
    width, gap = pictures[0].width, 2 if len(pictures) > 1 else 0
    row = Image.new("RGB", (len(pictures) * (width + gap) - gap, pictures[0].height), "white")
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * (width + gap), 0))
    buffer = io.BytesIO()
    row.save(buffer, "PNG")
    write_atomically(out, [buffer.getvalue()])
