"""Synthetic images in the folder `synthetic/` of an index, with every setting that made them.

An image is a PNG; a JSON document beside it holds its settings and results. Both appear whole or not at all, the
document last, so that a killed job resumes where it stopped. A cached image is used if its settings are equal to those
requested, and made again otherwise.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchmine.buckets.copies import bring
from patchmine.errors import StoreError
from patchmine.photographs.upright import own_pillow
from patchmine.reading.patch import Patch
from patchmine.synthesis.canvas import Canvas
from patchmine.synthesis.recipe import Recipe
from patchmine.system import digests
from patchmine.system.atomic import unwritable, write_atomically
from patchmine.system.untrusted_json import Misfit, parse, read_bounded
from patchmine.units import Box, Position, Unit

if TYPE_CHECKING:
    from patchmine.synthesis.ascent import Synthetic

NOT_FINITE = "has no finite activation on noise"
DEAD = "has no image, as no gradient reaches the image: the unit is dead or blocked by a layer without a gradient"

_DOCUMENT, _PICTURE = 1 << 20, 64 << 20  # the most bytes to read from files that may come from a stranger
_HUGE = 3.5e38


@dataclass(frozen=True)
class SyntheticImage:
    """An image that drives a unit hard.

    `picture` uint8 (height, width, 3), one pixel for each input pixel. `value` is the unit's activation on it at the
    canvas's position, with the eight bits of the picture and unmoved, `mean` that over all positions. `stopped` is
    the step at which something was no longer finite; the picture is then the last good one. `number` counts those of
    one unit. `file` is where the index keeps it, None where it cannot.
    """

    unit: Unit
    number: int
    recipe: Recipe
    canvas: Canvas
    picture: NDArray[np.uint8]
    value: float
    mean: float
    stopped: int | None
    file: Path | None

    def image(self) -> Image.Image:
        return Image.fromarray(self.picture)

    def _repr_png_(self) -> bytes:
        return _png(self.picture)

    def as_dict(self) -> dict[str, Any]:
        """One of `images` in the JSON of `synth`."""
        return {
            "number": self.number,
            "file": None if self.file is None else str(self.file),
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


@dataclass(frozen=True)
class Wanted:
    """A unit with everything that determines its images."""

    unit: Unit
    canvas: Canvas
    start: Patch | None
    settings: dict[str, Any]

    @property
    def stem(self) -> str:
        layer = re.sub(r"[^A-Za-z0-9_.]", "_", self.unit.layer).lstrip(".")[:80]
        return f"{layer}-{self.unit.channel}-{digests.of_json(self.settings)[:12]}"


class Keeper:
    """Writes images into the index; where that cannot be, says so once and hands them on as they are."""

    def __init__(self, folder: Path, note: Callable[[str], None], must_keep: bool) -> None:
        self._folder, self._note, self._must_keep = folder, note, must_keep
        why = unwritable(folder)
        self._keeps = why is None
        if why is not None:
            self._refused(why)

    def keep(self, one: Wanted, found: Sequence[Synthetic], seconds: float, batch: int) -> Made:
        """Write pictures and document, and return what `read` will, or else the images without files."""
        if self._keeps:
            try:
                self._folder.mkdir(exist_ok=True)
                _write(self._folder, one, found, seconds, batch)
                made = read(self._folder, one)
                if made is not None:
                    return made
                why = "the files just written cannot be read back"
            except OSError as error:
                why = error.strerror or str(error)
            self._keeps = False
            self._refused(why)
        return _of_memory(one, found)

    def _refused(self, why: str) -> None:
        text = f"the images cannot be kept in {str(self._folder)!r} ({why})"
        if self._must_keep:
            raise StoreError(f"{text}: what is there stays; mend that, or take one image with -o FILE")
        self._note(f"{text}: they are shown this once")


def _sound(image: Synthetic) -> bool:
    return bool(image.alive and image.stopped != 0 and np.isfinite([image.value, image.mean]).all())


def _of_memory(one: Wanted, found: Sequence[Synthetic]) -> Made:
    """What `read` gives of kept images."""
    dead = next((image for image in found if not _sound(image)), None)
    if dead is not None:
        return Dead(one.unit, NOT_FINITE if dead.alive else DEAD)
    recipe = Recipe(**one.settings["recipe"])
    return [
        SyntheticImage(one.unit, n, recipe, i.canvas, i.picture, float(i.value), float(i.mean), i.stopped, None)
        for n, i in enumerate(found)
    ]


def _write(folder: Path, one: Wanted, found: Sequence[Synthetic], seconds: float, batch: int) -> None:
    """Write pictures and document. Raises OSError."""
    import torch

    rows = []
    for number, image in enumerate(found):
        sound = _sound(image)
        if sound:
            write_atomically(folder / f"{one.stem}-{number}.png", [_png(image.picture)])
        rows.append(
            {
                "alive": image.alive,
                "sound": sound,
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


def read(folder: Path, one: Wanted) -> Made | None:
    """The cached images for these settings; None if there are none, or none that are sound."""
    try:
        bring(folder / f"{one.stem}.json")
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
                return Dead(one.unit, NOT_FINITE if row.truth("alive") else DEAD)
            file = folder / f"{one.stem}-{number}.png"
            bring(file)
            canvas = _canvas(row.part("canvas").data, one.canvas)
            picture = _picture(file, (one.canvas.picture.width, one.canvas.picture.height))
            stopped = row.whole("stopped", 0, recipe.steps) if row.given("stopped") else None
            value, mean = row.number("value", -_HUGE, _HUGE), row.number("mean", -_HUGE, _HUGE)
            images.append(SyntheticImage(one.unit, number, recipe, canvas, picture, value, mean, stopped, file))
    except (OSError, Misfit, KeyError, TypeError, ValueError):
        return None
    return images


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
    data = read_bounded(file, _PICTURE)
    with own_pillow(), Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.size != size or image.mode != "RGB":
            raise Misfit(f"{file.name} is not a picture of {size[0]}x{size[1]} pixels")
        return np.array(image)


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _number(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None
