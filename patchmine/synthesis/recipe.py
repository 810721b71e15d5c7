"""How a synthetic image is made: everything that can change a byte of it, with the defaults. Standard library only."""

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
    """What is asked of the image and how it is found.

    `objective`: `neuron` is the unit at one position, `channel` its mean over all positions, `negative` the unit at one
    position driven down, `diverse` the neuron objective for `images` pictures that are kept apart. `method`: `fourier`
    optimizes 1/f-scaled Fourier coefficients of decorrelated colours, `maco` their phases alone under the amplitudes of
    photographs, `pixels` the pixels themselves, with none of the aids.

    `size` is the side of the picture in input pixels; None: what the unit sees (`channel`: the network's input).
    `jitter` (a share of what the unit sees of the picture; `channel`: of the picture), `scale` and `rotation` (degrees)
    are the largest changes that the picture is shown under; with `wrap` the jitter alone, what leaves on one side
    coming back on the other. `rate` is the step of Adam, None the method's own. `diversity` is how much likeness among
    the images of a unit costs, in units of its activation.
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
            raise RequestError(f"there is no objective {self.objective!r}{nearest(self.objective, OBJECTIVES)}")
        if self.method not in METHODS:
            raise RequestError(f"there is no method {self.method!r}{nearest(self.method, METHODS)}")
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
        """The same with every default that depends on another value filled in: what is hashed."""
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
    """How many images stand beside the patches, unless asked otherwise: a whole input is as large as several."""
    return 1 if objective == "channel" else 3


def _check(name: str, value: float, low: float, high: float) -> None:
    if not isfinite(value) or not low <= value <= high:
        raise RequestError(f"{name} {value} cannot be: give a number from {low:g} to {high:g}")


Advance = Callable[[int, int], None]
"""Told the number of steps done and that of all steps."""

__all__ = ["DIVERSE", "METHODS", "OBJECTIVES", "Advance", "Recipe", "beside"]
