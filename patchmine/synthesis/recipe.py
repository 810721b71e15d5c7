"""How a synthetic image is made: everything that can change a byte of it, with defaults. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

from patchmine.errors import RequestError, nearest

OBJECTIVES = ("neuron", "channel", "negative", "diverse")
METHODS = ("fourier", "maco", "pixels")
DIVERSE = 4
"""Images of one unit under the objective `diverse`."""

_RATES = {"fourier": 0.05, "maco": 0.1, "pixels": 0.02}
_MOST_SIDE, _MOST_STEPS, _MOST_IMAGES = 4096, 100_000, 64


@dataclass(frozen=True)
class Recipe:
    """The objective of a synthetic image and the settings of its optimization.

    `objective`: `neuron` is the unit at one position, `channel` its mean over all positions, `negative` the unit at one
    position driven down, `diverse` the neuron objective for `images` images that are kept apart.

    `method`: `fourier` optimizes 1/f-scaled Fourier coefficients of decorrelated colors, `maco` only their phases, with
    the amplitudes of photographs, `pixels` the pixels themselves without regularization.

    `size` is the side of the image in input pixels; None is the size of the unit's field (`channel`: the network's
    input). `jitter`, `scale`, and `rotation` (degrees) are the largest random transformations of the image. `jitter` is
    a share of the unit's field in the image (`channel`: of the image). With `wrap` only jitter is applied, and content
    that leaves on one side reenters on the other.

    `rate` is the step size of Adam; None is the method's default. `diversity` is the penalty for similarity among the
    images of a unit, in units of its activation.
    """

    objective: str = "neuron"
    method: str = "fourier"
    steps: int = 256
    seed: int = 0
    size: int | None = None
    jitter: float = 0.04
    scale: float = 0.05
    rotation: float = 5.0
    rate: float | None = None
    images: int = 1
    diversity: float = 1.0
    wrap: bool = False

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise RequestError(f"unknown objective {self.objective!r}{nearest(self.objective, OBJECTIVES)}")
        if self.method not in METHODS:
            raise RequestError(f"unknown method {self.method!r}{nearest(self.method, METHODS)}")
        _check("--steps", self.steps, 1, _MOST_STEPS)
        _check("--seed", self.seed, 0, 2**63 - 1)
        _check("images", self.images, 1, _MOST_IMAGES)
        if self.size is not None:
            _check("--size", self.size, 1, _MOST_SIDE)
        _check("jitter", self.jitter, 0, 1)
        _check("scale", self.scale, 0, 0.9)
        _check("rotation", self.rotation, 0, 180)
        _check("diversity", self.diversity, 0, 1e6)
        if self.rate is not None:
            _check("rate", self.rate, 1e-9, 1e9)

    def settled(self) -> Recipe:
        """The same recipe with every dependent default filled in: the form that is hashed."""
        plain = self.method == "pixels"
        return replace(
            self,
            rate=_RATES[self.method] if self.rate is None else self.rate,
            jitter=0.0 if plain else self.jitter,
            scale=0.0 if plain or self.wrap else self.scale,
            rotation=0.0 if plain or self.wrap else self.rotation,
            images=DIVERSE if self.objective == "diverse" and self.images == 1 else self.images,
            diversity=self.diversity if self.objective == "diverse" else 0.0,
        )

    @property
    def one_position(self) -> bool:
        return self.objective != "channel"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def beside(objective: str) -> int:
    """How many images stand beside the patches by default: one whole input takes the room of several."""
    return 1 if objective == "channel" else 3


def _check(name: str, value: float, low: float, high: float) -> None:
    if not isfinite(value) or not low <= value <= high:
        raise RequestError(f"{name} must be from {low:g} to {high:g}, not {value}")


Advance = Callable[[int, int], None]
"""Receives the number of finished steps and the total number of steps."""


BESIDE = Recipe(images=beside(Recipe.objective))
"""The recipe of `compare` where nothing else is asked."""


__all__ = ["DIVERSE", "METHODS", "OBJECTIVES", "Advance", "Recipe", "beside"]
