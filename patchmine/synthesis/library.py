"""Synthetic images of an index's units, kept in its folder `synthetic/` with every setting that made them.

An image is a PNG; a JSON document beside it holds its settings and results. Both appear whole or not at all, the
document last, so that a killed job resumes where it stopped. A cached image is used if its settings are equal to those
requested, and made again otherwise.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchmine.errors import RequestError, StoreError, UnitError
from patchmine.fields.cropping import Cropping
from patchmine.reading.opened import OpenIndex
from patchmine.reading.patch import Patch
from patchmine.store import reading as store
from patchmine.synthesis import canvas as canvases
from patchmine.synthesis.canvas import Canvas
from patchmine.synthesis.recipe import Recipe
from patchmine.system import digests
from patchmine.system.atomic import write_atomically
from patchmine.system.progress import Progress, Silent
from patchmine.system.untrusted_json import Misfit, parse, read_bounded
from patchmine.units import Box, Position, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from patchmine.fields.field import ReceptiveField
    from patchmine.networks.network import Network
    from patchmine.synthesis.ascent import Synthetic

VERSION = 2
"""The version of the algorithm: another version makes the images again."""

BATCH = 16
"""The number of images that are made at once."""

_DOCUMENT, _PICTURE = 1 << 20, 64 << 20  # the most bytes to read from files that may come from a stranger
_HUGE = 3.5e38


@dataclass(frozen=True)
class SyntheticImage:
    """An image that drives a unit hard.

    `picture` uint8 (height, width, 3), one pixel for each input pixel. `value` is the unit's activation on it at the
    canvas's position, with the eight bits of the picture and unmoved, `mean` that over all positions. `stopped` is
    the step at which something was no longer finite; the picture is then the last good one. `number` counts those of
    one unit.
    """

    unit: Unit
    number: int
    recipe: Recipe
    canvas: Canvas
    picture: NDArray[np.uint8]
    value: float
    mean: float
    stopped: int | None
    file: Path

    def image(self) -> Image.Image:
        return Image.fromarray(self.picture)

    def _repr_png_(self) -> bytes:
        return _png(self.picture)

    def as_dict(self) -> dict[str, Any]:
        """One of `images` in the JSON of `synth`."""
        return {
            "number": self.number,
            "file": str(self.file),
            "width": self.picture.shape[1],
            "height": self.picture.shape[0],
            "value": self.value,
            "mean": self.mean,
            "stopped": self.stopped,
            "canvas": self.canvas.as_dict(),
        }


@dataclass(frozen=True)
class Dead:
    """A unit without an image: no gradient reaches the image, or its activation is not finite."""

    unit: Unit
    reason: str


Made = list[SyntheticImage] | Dead


def synthesized(
    index: OpenIndex[Any],
    units: Sequence[Unit],
    recipe: Recipe,
    *,
    start: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Unit, Made]]:
    """The images of these units, the cached ones first, each as soon as it is on disk.

    With `start`, a rank, each image starts in the unit's patch of that rank instead of in noise. The network is loaded
    only if something has to be made. Raises RequestError, ModelError, StoreError and, for
    a spectrum or a start that cannot be read, SourceError.
    """
    shown = progress or Silent()
    recipe = recipe.settled()
    folder = _folder(index)
    wanted = [_Wanted.of(index, unit, recipe, start) for unit in units]
    missing = []
    for one in wanted:
        made = _read(folder, one)
        if made is None:
            missing.append(one)
        else:
            yield one.unit, made
    if not missing:
        return
    work = recipe.steps * recipe.images
    shown.begin(work * len(wanted), work * (len(wanted) - len(missing)), "steps")
    yield from _make(index, missing, recipe, index.network(), shown)


@dataclass(frozen=True)
class _Wanted:
    """A unit with everything that determines its images."""

    unit: Unit
    canvas: Canvas
    start: Patch | None
    settings: dict[str, Any]

    @classmethod
    def of(cls, index: OpenIndex[Any], unit: Unit, recipe: Recipe, start: int | None) -> _Wanted:
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
        return cls(unit, canvas, patch, json.loads(json.dumps(settings)))

    @property
    def stem(self) -> str:
        layer = re.sub(r"[^A-Za-z0-9_.]", "_", self.unit.layer).lstrip(".")[:80]
        return f"{layer}-{self.unit.channel}-{digests.of_json(self.settings)[:12]}"


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


def _make(
    index: OpenIndex[Any], wanted: Sequence[_Wanted], recipe: Recipe, network: Network, progress: Progress
) -> Iterator[tuple[Unit, Made]]:
    from patchmine.fields.exact import receptive_fields
    from patchmine.synthesis.amplitudes import of_index
    from patchmine.synthesis.ascent import Ascent

    amplitudes = of_index(index, progress.note) if recipe.method == "maco" else None
    folder = _folder(index)
    folder.mkdir(exist_ok=True)
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
                    yield one.unit, _keep(folder, one, own, seconds / len(batch), len(found))


def _advance(progress: Progress, images: int, _done: int, _of: int) -> None:
    progress.advance(images)


def _starts(index: OpenIndex[Any], batch: Sequence[_Wanted]) -> Tensor | None:
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


def _keep(folder: Path, one: _Wanted, found: Sequence[Synthetic], seconds: float, batch: int) -> Made:
    """Write pictures and document, and return what `_read` will."""
    import torch

    rows = []
    for number, image in enumerate(found):
        sound = image.alive and image.stopped != 0 and np.isfinite([image.value, image.mean]).all()
        if sound:
            write_atomically(folder / f"{one.stem}-{number}.png", [_png(image.picture)])
        rows.append(
            {
                "alive": image.alive,
                "sound": bool(sound),
                "stopped": image.stopped,
                "value": image.value if sound else None,
                "mean": image.mean if sound else None,
                "canvas": image.canvas.as_dict(),
                "first_score": _number(image.scores[0]),
                "last_score": _number(image.scores[-1]),
            }
        )
    document = {
        "settings": one.settings,
        "images": rows,
        "seconds": round(seconds, 3),
        "batch": batch,
        "torch": torch.__version__,
    }
    write_atomically(folder / f"{one.stem}.json", [json.dumps(document, indent=1).encode() + b"\n"])
    made = _read(folder, one)
    if made is None:
        raise StoreError(f"the files just written to {str(folder)!r} cannot be read back: check the disk")
    return made


def _read(folder: Path, one: _Wanted) -> Made | None:
    """The cached images for these settings; None if there are none, or none that are sound."""
    try:
        document = parse(read_bounded(folder / f"{one.stem}.json", _DOCUMENT))
        if document.part("settings").data != one.settings:
            return None
        recipe = Recipe(**one.settings["recipe"])
        rows = document.parts("images")
        if len(rows) != recipe.images:
            return None
        images: list[SyntheticImage] = []
        for number, row in enumerate(rows):
            if not row.truth("sound"):
                why = "has no finite activation on noise" if row.truth("alive") else DEAD
                return Dead(one.unit, why)
            file = folder / f"{one.stem}-{number}.png"
            canvas = _canvas(row.part("canvas").data, one.canvas)
            picture = _picture(file, (one.canvas.picture.width, one.canvas.picture.height))
            stopped = row.whole("stopped", 0, recipe.steps) if row.given("stopped") else None
            value, mean = row.number("value", -_HUGE, _HUGE), row.number("mean", -_HUGE, _HUGE)
            images.append(SyntheticImage(one.unit, number, recipe, canvas, picture, value, mean, stopped, file))
    except (OSError, Misfit, KeyError, TypeError, ValueError):
        return None
    return images


DEAD = "has no image, as no gradient reaches the image: the unit is dead or blocked by a layer without a gradient"


def _canvas(data: dict[str, Any], asked: Canvas) -> Canvas:
    """The canvas that was used: it may be smaller than the whole input, but its picture is as large."""
    box = Box(**{side: int(data["window"][side]) for side in ("left", "top", "right", "bottom")})
    place = data["position"]
    found = Canvas((int(data["size"][0]), int(data["size"][1])), box, Position(int(place["y"]), int(place["x"])))
    same = (box.width, box.height) == (asked.picture.width, asked.picture.height)
    if not same or not (0 < found.size[0] <= asked.size[0] and 0 < found.size[1] <= asked.size[1]):
        raise Misfit("its canvas is a different one")
    if not Box(0, 0, found.size[1], found.size[0]).contains(box):
        raise Misfit("its window is outside its canvas")
    return found


def _picture(file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(read_bounded(file, _PICTURE)), formats=["PNG"]) as image:
        if image.size != size or image.mode != "RGB":
            raise Misfit(f"{file.name} is not a picture of {size[0]}x{size[1]} pixels")
        return np.array(image)


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _number(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None


def _folder(index: OpenIndex[Any]) -> Path:
    folder = index.directory / store.SYNTHETIC
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise StoreError(f"{str(folder)!r} is not a folder of the index: remove it, and images will be made again")
    return folder


def units_of(index: OpenIndex[Any], layer: str) -> list[Unit]:
    """All units of a layer. Raises UnitError for a layer that the index does not have."""
    index.check_layer(layer)
    return [Unit(layer, channel) for channel in range(index.layers[layer])]


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


__all__ = ["Dead", "Made", "SyntheticImage", "canvas_of", "images_of", "synthesized", "units_of"]
