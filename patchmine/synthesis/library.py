"""Synthetic images of an index's units: kept ones are read, missing ones are made and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from patchmine.errors import RequestError, StoreError, UnitError
from patchmine.fields.cropping import Cropping
from patchmine.networks.session import with_own_settings
from patchmine.reading.opened import OpenIndex
from patchmine.reading.patch import Patch
from patchmine.store import reading as store
from patchmine.synthesis import canvas as canvases
from patchmine.synthesis.canvas import Canvas
from patchmine.synthesis.keeping import Dead, Keeper, Made, SyntheticImage, Wanted, read
from patchmine.synthesis.recipe import Recipe
from patchmine.system.progress import Progress, Silent
from patchmine.units import Box, Position, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from patchmine.fields.field import ReceptiveField
    from patchmine.networks.network import Network

VERSION = 2
"""The version of the algorithm: another version makes the images again."""

BATCH = 16
"""The number of images that are made at once."""


def synthesized(
    index: OpenIndex[Any],
    units: Sequence[Unit],
    recipe: Recipe,
    *,
    start: int | None = None,
    progress: Progress | None = None,
    must_keep: bool = False,
) -> Iterator[tuple[Unit, Made]]:
    """The images of these units, the cached ones first, each as soon as it is on disk.

    With `start`, a rank, each image starts in the unit's patch of that rank instead of in noise. The network is loaded
    only if something has to be made. Images that cannot be kept are an error with `must_keep`, before any work if that
    can be known, and a note without. Raises RequestError, ModelError, StoreError and, for
    a spectrum or a start that cannot be read, SourceError.
    """
    shown = progress or Silent()
    recipe = recipe.settled()
    folder = _folder(index)
    wanted = [_wanted(index, unit, recipe, start) for unit in units]
    missing = []
    for one in wanted:
        made = read(folder, one)
        if made is None:
            missing.append(one)
        else:
            yield one.unit, made
    if not missing:
        return
    work = recipe.steps * recipe.images
    shown.begin(work * len(wanted), work * (len(wanted) - len(missing)), "steps")
    keeper = Keeper(folder, shown.note, must_keep)
    yield from _make(index, missing, recipe, index.network(), shown, keeper)


def kept(index: OpenIndex[Any], unit: Unit, recipe: Recipe) -> SyntheticImage | None:
    """The first image that the index keeps of a unit, made by this recipe; None if it keeps none."""
    made = read(_folder(index), _wanted(index, unit, recipe.settled(), None)) if _folder(index).is_dir() else None
    return made[0] if isinstance(made, list) and made else None


def _wanted(index: OpenIndex[Any], unit: Unit, recipe: Recipe, start: int | None) -> Wanted:
    """A unit's images, with everything that determines them."""
    canvas = canvas_of(index, unit, recipe)
    patch = None if start is None else _ranked(index, unit, start)
    job = index.job
    settings = {
        "version": VERSION,
        "layer": unit.layer,
        "channel": unit.channel,
        "recipe": recipe.as_dict(),
        "canvas": canvas.as_dict(),
        "weights": job.weights,
        "field": job.field,
        "mean": list(job.preprocessing.mean),
        "std": list(job.preprocessing.std),
        "start": None if patch is None else _start_as_dict(index, patch),
        "photographs": [job.digest, len(index)] if recipe.method == "maco" else None,
    }
    if job.code is not None:
        settings["code"] = job.code
    if unit.layer in dict(job.directions):
        settings["directions"] = dict(job.directions)[unit.layer]
    return Wanted(unit, canvas, patch, json.loads(json.dumps(settings)))


def canvas_of(
    index: OpenIndex[Any], unit: Unit, recipe: Recipe, at: Callable[[tuple[int, int]], ReceptiveField] | None = None
) -> Canvas:
    """Where the unit's picture lies. `at` is as for `canvas.of_field`; without it the canvas is the whole input.

    For one position the picture is what a sheet shows of a patch: the receptive field while that covers less than half
    of the input, else the effective one.
    """
    field = index.field(unit.layer)
    if not recipe.one_position:
        return canvases.whole(field.input, recipe.size)
    settled = index.settled(unit, Cropping("auto"))
    return canvases.of_field(field, unit.channel, recipe.size, settled.share if settled.crop == "erf" else None, at)


def _ranked(index: OpenIndex[Any], unit: Unit, rank: int) -> Patch:
    patches = index.unit(unit).top(rank) if rank >= 1 else []
    if len(patches) < rank or rank < 1:
        raise RequestError(f"--from {rank}: {unit} has patches of rank 1 to {len(index.unit(unit).top(max(rank, 1)))}")
    return patches[rank - 1]


def _start_as_dict(index: OpenIndex[Any], patch: Patch) -> dict[str, Any]:
    place = {"y": patch.position.y, "x": patch.position.x}
    return {"photograph": index.store.image(patch.image_id).digest, "position": place}


@with_own_settings
def _make(
    index: OpenIndex[Any],
    wanted: Sequence[Wanted],
    recipe: Recipe,
    network: Network,
    progress: Progress,
    keeper: Keeper,
) -> Iterator[tuple[Unit, Made]]:
    from patchmine.fields.exact import receptive_fields
    from patchmine.synthesis.amplitudes import of_index
    from patchmine.synthesis.ascent import Ascent

    amplitudes = of_index(index, progress.note) if recipe.method == "maco" else None
    for layer, of_layer in groupby(wanted, key=lambda one: one.unit.layer):

        @cache
        def at(size: tuple[int, int], layer: str = layer) -> ReceptiveField:
            fields = receptive_fields(network.module, size, [layer], field=index.job.field)  # type: ignore[arg-type]
            return fields[layer]

        network.layer(layer)
        placed = [(canvas_of(index, one.unit, recipe, at), one) for one in of_layer]
        for canvas, alike in groupby(placed, key=lambda pair: pair[0]):
            ascent = Ascent(network.module, layer, canvas, network.preprocessing)
            if ascent.tap.layout.channels != index.layers[layer]:
                raise StoreError(
                    f"layer {layer} of {network.name} differs from that in {index.name}: name its network with --model"
                )
            together = [one for _, one in alike]
            each = max(1, BATCH // recipe.images)
            for first in range(0, len(together), each):
                batch = together[first : first + each]
                began = perf_counter()
                channels = [one.unit.channel for one in batch]
                advance = partial(_advance, progress, len(batch) * recipe.images)
                found = ascent.run(channels, recipe, _starts(index, batch), amplitudes, advance)
                seconds = perf_counter() - began
                for number, one in enumerate(batch):
                    own = found[number * recipe.images : (number + 1) * recipe.images]
                    yield one.unit, keeper.keep(one, own, seconds / len(batch), len(found))


def _advance(progress: Progress, images: int, _done: int, _of: int) -> None:
    progress.advance(images)


def _starts(index: OpenIndex[Any], batch: Sequence[Wanted]) -> Tensor | None:
    """The starts float32 (units, 3, height, width) in 0..1; None for noise. Where a photograph ends it is gray."""
    if batch[0].start is None:
        return None
    import torch
    from torch.nn.functional import pad

    from patchmine.photographs.decode import prepare

    found = []
    for one in batch:
        patch = one.start
        assert patch is not None
        pixels = prepare(patch.photograph(), index.preprocessing).tensor.to(torch.float32) / 255
        box = _moved(one.canvas.picture, index.field(one.unit.layer), patch, one.canvas.position)
        height, width = pixels.shape[1:]
        gray = torch.tensor(index.preprocessing.mean).view(3, 1, 1)
        around = (-box.left, box.right - width, -box.top, box.bottom - height)
        found.append(pad(pixels - gray, around) + gray)
    return torch.stack(found)


def _moved(window: Box, field: ReceptiveField, patch: Patch, position: Position | None) -> Box:
    """The window, which is around one position's field, moved to that of the patch; at its place without a position."""
    if position is None:
        return window
    channel = patch.unit.channel
    (y, x), (to_y, to_x) = field.center(channel, position), field.center(channel, patch.position)
    down, across = round(to_y - y), round(to_x - x)
    return Box(window.left + across, window.top + down, window.right + across, window.bottom + down)


def _folder(index: OpenIndex[Any]) -> Path:
    folder = index.directory / store.SYNTHETIC
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise StoreError(f"{str(folder)!r} is not a folder of the index: remove it, and images will be made again")
    return folder


def units_of(index: OpenIndex[Any], layer: str) -> list[Unit]:
    """All units of a layer. Raises UnitError for a layer that the index does not have."""
    index.check_layer(layer)
    return [Unit(layer, channel) for channel in range(index.layers[layer])]


def kept_images(index: OpenIndex[Any], unit: Unit, recipe: Recipe) -> list[SyntheticImage]:
    """The images of one unit that the index keeps; none are made, and torch is not loaded. Empty without any."""
    made = read(_folder(index), _wanted(index, unit, recipe.settled(), None))
    return [] if made is None or isinstance(made, Dead) else made


def images_of(
    index: OpenIndex[Any],
    unit: Unit,
    recipe: Recipe,
    *,
    start: int | None = None,
    progress: Progress | None = None,
) -> list[SyntheticImage]:
    """The images of one unit. Raises UnitError for a dead unit, besides what `synthesized` raises."""
    ((_, made),) = synthesized(index, [unit], recipe, start=start, progress=progress)
    if isinstance(made, Dead):
        raise UnitError(f"{unit} {made.reason}; try another unit or another --seed")
    return made


__all__ = ["Dead", "Made", "SyntheticImage", "canvas_of", "images_of", "kept_images", "synthesized", "units_of"]
