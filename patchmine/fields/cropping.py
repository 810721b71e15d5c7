"""Which part of the input a patch shows: the receptive field, the effective one, or the whole input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from patchmine.defaults import SHARE, TIGHT_SHARE, check
from patchmine.errors import RequestError
from patchmine.fields.field import ReceptiveField
from patchmine.photographs.placement import View
from patchmine.units import Box, Position

SLIVER = 16
"""The largest ratio of a tile's sides."""


@dataclass(frozen=True)
class Cropping:
    """A way to crop patches.

    `crop` is `rf` for the receptive field, or for a token and its surroundings, `erf` for the effective field, which
    holds `share` (above 0, at most 1) of the gradient's energy, `image` for the whole input, or `tight` for the
    smallest box that alone brings back `share` of the activation. `auto` is `rf` while the receptive field covers less
    than half of the input, `erf` beyond where it has been measured, and `tight` for the patches whose tight crop the
    index keeps. `share` None is the crop's default.

    `otherwise` is what a patch without a tight crop shows. Raises RequestError for an unknown crop
    or an invalid share.
    """

    crop: str = "rf"
    share: float | None = None
    otherwise: str = "rf"

    def __post_init__(self) -> None:
        check({"crop": self.crop, "share": self.share})

    @property
    def energy(self) -> float:
        """The share of the gradient's energy inside an effective field."""
        return SHARE if self.share is None or self.crop == "tight" else self.share

    @property
    def retained(self) -> float:
        """The share of the activation that a tight crop brings back."""
        return TIGHT_SHARE if self.share is None else self.share

    def settled(self, field: ReceptiveField, channel: int) -> Cropping:
        """The same with `auto` decided for a unit, but for tight crops: `rf` or `erf`.

        Raises RequestError for `erf` where no gradient was measured.
        """
        crop = self.crop
        if crop == "auto":
            height, width = field.input
            whole = field.group(channel).whole(Position(0, 0))
            crop = "erf" if 2 * whole.area > height * width and field.effective is not None else "rf"
        if crop == "erf" and field.effective is None:
            raise RequestError(f"layer {field.layer} has no effective field, as no gradient reached it: use --crop rf")
        otherwise = (
            Cropping(self.otherwise).settled(field, channel).crop if self.otherwise == "auto" else self.otherwise
        )
        return replace(self, crop=crop, otherwise=otherwise)

    @property
    def _shown(self) -> str:
        return self.otherwise if self.crop == "tight" else self.crop

    def box(self, field: ReceptiveField, channel: int, position: Position) -> Box:
        """What the crop shows of the input, clipped to it, in input pixels; for `tight` what it shows otherwise.

        The crop must be settled.
        """
        if self._shown == "image":
            return Box(0, 0, field.input[1], field.input[0])
        effective = field.effective_box(channel, position, self.energy) if self._shown == "erf" else None
        if field.squares and effective is None:
            return field.surroundings(channel, position)
        reached = field.reached(channel, position)
        return reached if effective is None else reached.intersect(effective)

    def view(self, field: ReceptiveField, channel: int, position: Position) -> View:
        """What a tile shows, in input pixels: the field in a frame of the same size for every patch of a unit, or a
        token, outlined, with its surroundings.

        A field larger than the input gets the input as its frame. The crop must be settled.
        """
        group = field.group(channel)
        seen, window = group.seen(position), group.whole(position)
        height, width = field.input
        if self._shown == "image":
            whole = Box(0, 0, width, height)
            effective = field.effective_box(channel, position, self.energy)
            outline = seen if seen != whole else effective and effective.intersect(whole)
            return View(_widened(whole), whole, (outline,))
        if field.squares and self._shown == "rf":
            window = field.surroundings(channel, position)
            return View(window, window, (seen,))
        if self._shown == "erf":
            window = field.effective_box(channel, position, self.energy) or window
        elif group.size is None:
            # Fields of different sizes at different places: frames of one size, so that all tiles have one scale.
            window = _centered(seen, *group.largest)
        across = (window.left, window.right) if window.width < width else (0, width)
        down = (window.top, window.bottom) if window.height < height else (0, height)
        window = _widened(Box(across[0], down[0], across[1], down[1]))
        return View(window, field.reached(channel, position).intersect(window))


def squared(box: Box, size: tuple[int, int]) -> Box:
    """A square around the box, moved inside an input of (height, width) where it fits."""
    side = max(box.width, box.height)
    square = _centered(box, side, side)
    left = max(0, min(square.left, size[1] - side)) if side <= size[1] else square.left
    top = max(0, min(square.top, size[0] - side)) if side <= size[0] else square.top
    return Box(left, top, left + side, top + side)


def _widened(box: Box) -> Box:
    """The box, with room around a sliver: its tile would otherwise be thousands of pixels long."""
    width, height = max(box.width, ceil(box.height / SLIVER)), max(box.height, ceil(box.width / SLIVER))
    return box if (width, height) == (box.width, box.height) else _centered(box, height, width)


def _centered(box: Box, height: int, width: int) -> Box:
    left, top = (box.left + box.right - width) // 2, (box.top + box.bottom - height) // 2
    return Box(left, top, left + width, top + height)
