"""Drawn photographs with known ground truth: colored shapes at known places on a muted background.

Picture i of a seed is the same whatever the number of pictures. Its first shape gives the class and lies
inside the part that a 224-pixel center crop of a short side of 256 keeps; up to two smaller ones lie anywhere.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry
from patchmine.units import Box

HELP = "shapes:N (N drawn pictures with known ground truth; shapes:N@SEED draws others)"

# The numbers of shapes and colors are coprime, so that cycling through both at once yields every pair.
SHAPES = ("circle", "square", "triangle", "cross")
COLORS = {
    "red": (215, 40, 45),
    "green": (40, 190, 60),
    "blue": (45, 65, 215),
    "yellow": (225, 205, 40),
    "magenta": (205, 45, 200),
}

# The side of a shape as a share of the picture's short side.
MAIN_SHARE = (0.22, 0.36)
OTHER_SHARE = (0.16, 0.22)

# The share of the short side, around the center, that contains the whole main shape.
CENTER_SHARE = 0.84


@dataclass(frozen=True)
class Drawn:
    """One shape as drawn. `box` is in source pixels, and the shape touches each of its edges."""

    shape: str
    color: str
    box: Box
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Shapes:
    count: int
    seed: int = 0
    kind: str = "shapes"

    @property
    def spec(self) -> str:
        return f"shapes:{self.count}" + (f"@{self.seed}" if self.seed else "")

    @property
    def name(self) -> str:
        return f"shapes-{self.count}" + (f"-{self.seed}" if self.seed else "")

    def entries(self) -> list[Entry]:
        digits = self._digits
        return [Entry(f"{i:0{digits}d}.png", " ".join(reversed(_main_of(i)))) for i in range(self.count)]

    def read(self, path: str) -> bytes:
        from PIL import Image

        match = re.fullmatch(rf"([0-9]{{{self._digits}}})\.png", path)
        if match is None or int(match[1]) >= self.count:
            raise PhotographError(f"not a picture of {self.spec}")
        buffer = io.BytesIO()
        Image.fromarray(self.paint(int(match[1]))).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def truth(self, i: int) -> list[tuple[str, str, Box]]:
        """The ground truth of picture i: (shape, color, box in source pixels) of each shape, the main one first."""
        return [(drawn.shape, drawn.color, drawn.box) for drawn in self.plan(i)[1]]

    def plan(self, i: int) -> tuple[tuple[int, int], list[Drawn]]:
        """The size (width, height) of picture i in pixels, and its shapes."""
        rng = np.random.default_rng((self.seed, i, 0))
        short, long = int(rng.integers(240, 400)), int(rng.integers(400, 560))
        width, height = (long, short) if rng.random() < 0.5 else (short, long)
        others = [(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))) for _ in range(int(rng.integers(0, 3)))]
        drawn: list[Drawn] = []
        for n, (shape, color) in enumerate([_main_of(i), *others]):
            side = round(short * float(rng.uniform(*(OTHER_SHARE if n else MAIN_SHARE))))
            rgb = np.clip(np.array(COLORS[color]) + rng.integers(-12, 13, 3), 0, 255)
            box = _free_place(rng, (width, height), side, [other.box for other in drawn])
            if box is not None:
                drawn.append(Drawn(shape, color, box, (int(rgb[0]), int(rgb[1]), int(rgb[2]))))
        return (width, height), drawn

    def paint(self, i: int) -> NDArray[np.uint8]:
        """Picture i: uint8 (height, width, 3)."""
        (width, height), shapes = self.plan(i)
        rng = np.random.default_rng((self.seed, i, 1))
        picture = _background(rng, width, height)
        for drawn in shapes:
            box = drawn.box
            picture[box.top : box.bottom, box.left : box.right][mask_of(drawn.shape, box.width)] = drawn.rgb
        # The grain is the same in all three channels, so that it carries no color.
        picture += 6 * rng.standard_normal((height, width, 1), np.float32)
        return np.clip(picture, 0, 255, out=picture).astype(np.uint8)

    @property
    def _digits(self) -> int:
        return max(6, len(str(self.count - 1)))


def claim(spec: str) -> Shapes | None:
    if not spec.startswith("shapes:"):
        return None
    match = re.fullmatch(r"shapes:([1-9][0-9]{0,7})(?:@([0-9]{1,9}))?", spec)
    if match is None:
        raise SourceError(f"{spec!r} is not shapes:N or shapes:N@SEED: write, for example, shapes:200 or shapes:200@7")
    return Shapes(int(match[1]), int(match[2] or 0))


def mask_of(shape: str, side: int) -> NDArray[np.bool_]:
    """The pixels of a shape inside its box of side x side, as bool (side, side)."""
    y, x = np.abs(np.mgrid[:side, :side] - (side - 1) / 2)
    match shape:
        case "circle":
            return x**2 + y**2 <= (side / 2) ** 2
        case "square":
            return np.ones((side, side), bool)
        case "triangle":
            return x <= np.arange(1, side + 1)[:, None] / 2
        case "cross":
            return (x <= side / 6) | (y <= side / 6)
    raise ValueError(f"unknown shape {shape!r}")


def _main_of(i: int) -> tuple[str, str]:
    return SHAPES[i % len(SHAPES)], list(COLORS)[i % len(COLORS)]


def _free_place(rng: np.random.Generator, size: tuple[int, int], side: int, taken: list[Box]) -> Box | None:
    """A random square box with a gap to all of `taken`; None after 20 tries without one.

    The first box of a picture goes to the center, where every try succeeds.
    """
    margin = (0, 0)
    if not taken:
        kept = CENTER_SHARE * min(size)
        margin = (int((size[0] - kept) / 2) + 1, int((size[1] - kept) / 2) + 1)
    for _ in range(20):
        left = int(rng.integers(margin[0], size[0] - margin[0] - side + 1))
        top = int(rng.integers(margin[1], size[1] - margin[1] - side + 1))
        gap = max(4, min(size) // 20)
        around = Box(left - gap, top - gap, left + side + gap, top + side + gap)
        if not any(around.intersect(box).area for box in taken):
            return Box(left, top, left + side, top + side)
    return None


def _background(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """A gradient between two grays with a hint of color, and soft waves: float32 (height, width, 3)."""
    ends = (rng.uniform(60, 190, (2, 1)) + rng.uniform(-9, 9, (2, 3))).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[:height, :width]
    y, x = (y / max(width, height)).astype(np.float32), (x / max(width, height)).astype(np.float32)
    along = x * cos(angle) + y * sin(angle)
    along = (along - along.min()) / (along.max() - along.min())
    waves = np.zeros_like(along)
    for _ in range(3):
        across, down, phase = rng.uniform(-20, 20), rng.uniform(-20, 20), rng.uniform(0, 2 * np.pi)
        waves += 5 * np.sin(across * x + (down * y + phase))
    picture: NDArray[np.float32] = along[:, :, None] * (ends[1] - ends[0]) + ends[0]
    picture += waves[:, :, None]
    return picture
