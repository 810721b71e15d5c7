"""Verifies that a network is on a torus: rolling the input by whole strides must only roll a layer's map."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from patchmine.errors import RequestError
from patchmine.networks.taps import Tap, maps, survey

TOLERANCE = 1e-5
"""The largest accepted change, as a share of the map's largest value: reordered sums stay below, a padded edge is far
above."""

MOST_PX = 512
"""The largest stride that is searched for, in pixels."""


def torus(module: nn.Module, layer: str, size: tuple[int, int]) -> float:
    """The largest difference between a layer's map for a rolled input and its rolled map.

    The network comes from `padded(..., "circular")`; `size` is the canvas's (height, width) in pixels. The input is
    normal noise, rolled by one stride down, by one stride right, and by half the canvas and a stride in both. The
    change is relative to the map's largest absolute value. It is not finite if the map is not, and 0 if the map is 0
    everywhere.

    Raises RequestError for a canvas that is not a whole number of strides, and for a layer of one cell. Raises
    ModelError for an unknown layer.
    """
    tap = survey(module, _noise(module, size), [layer])[0]
    step = _step(module, tap, size)
    return change_when_rolled(module, tap, size, step)


def change_when_rolled(module: nn.Module, tap: Tap, size: tuple[int, int], step: tuple[int, int]) -> float:
    """Like `torus`, for any network, a layer surveyed at this size, and a known stride."""
    picture = _noise(module, size)
    still = maps(module, picture, (tap,))[tap.layer]
    largest = float(still.abs().max())
    changes = []
    for down, across in ((1, 0), (0, 1), (still.shape[2] // 2 + 1, still.shape[3] // 2 + 1)):
        moved = maps(module, picture.roll((down * step[0], across * step[1]), (2, 3)), (tap,))[tap.layer]
        changes.append(float((moved - still.roll((down, across), (2, 3))).abs().max()))
    change = float(torch.tensor(changes).max())  # NaN stays NaN
    return change / largest if largest else change


def check_torus(module: nn.Module, layer: str, size: tuple[int, int]) -> float:
    """The result of `torus`, refused if it exceeds rounding: padding could not be changed everywhere.

    The RequestError names the first layer of the network at which the map does not roll with the input.
    """
    change = torus(module, layer, size)
    if change <= TOLERANCE:
        return change
    step = _step(module, survey(module, _noise(module, size), [layer])[0], size)
    place, broken = _first_break(module, size, step) or (layer, change)
    raise RequestError(
        f"{layer} cannot be put on a torus: at {place} the map changes by {broken:.1g} of its largest value when the "
        "input is rolled, so it pads in its own code or depends on the position; choose an earlier layer"
    )


def stride(module: nn.Module, layer: str) -> tuple[int, int]:
    """Input pixels between neighboring cells of the layer, (down, to the right), for a network on the torus.

    On the torus a canvas of n pixels gives n / stride cells, rounded up, so the stride is the largest side with one
    cell. Raises RequestError if the grid does not grow with the canvas, or if the network accepts no other canvas.
    """
    grid = _grids(module, layer)
    if grid(1) != (1, 1):
        rows, columns = grid(1)
        raise RequestError(f"{layer} has {columns}x{rows} cells however small the canvas is: choose an earlier layer")
    side = 2
    while min(grid(side)) < 2:
        side *= 2
        if side > MOST_PX:
            raise RequestError(f"{layer} has one cell however large the canvas is, so there is nothing to roll")
    return _largest_with_one(grid, 0, side), _largest_with_one(grid, 1, side)


def _largest_with_one(grid: Callable[[int], tuple[int, int]], axis: int, above: int) -> int:
    one, more = 1, above
    while more - one > 1:
        middle = (one + more) // 2
        one, more = (middle, more) if grid(middle)[axis] < 2 else (one, middle)
    return one


def _grids(module: nn.Module, layer: str) -> Callable[[int], tuple[int, int]]:
    @cache
    def grid(side: int) -> tuple[int, int]:
        try:
            return survey(module, _noise(module, (side, side)), [layer])[0].layout.grid
        except RuntimeError as error:
            raise RequestError(
                f"this network cannot take a canvas of {side}x{side} pixels ({str(error).splitlines()[0]}), "
                f"so {layer} cannot be put on a torus"
            ) from None

    return grid


def _step(module: nn.Module, tap: Tap, size: tuple[int, int]) -> tuple[int, int]:
    """Pixels by which the input must roll for the map to roll by one cell."""
    grid = tap.layout.grid
    if grid == (1, 1):
        raise RequestError(f"{tap.layer} has one cell on a canvas of {size[1]}x{size[0]} pixels: nothing can be rolled")
    grows = _grids(module, tap.layer)(1) == (1, 1)
    least = stride(module, tap.layer) if grows else grid  # an adaptive pool has this many cells on any canvas
    for side, each in zip(size, least, strict=True):
        if side % each:
            below, above = side // each * each, (side // each + 1) * each
            raise RequestError(
                f"a canvas of {size[1]}x{size[0]} pixels does not divide into whole cells of {tap.layer}: "
                f"instead of {side} give {f'{below} or ' if below else ''}{above}"
            )
    return size[0] // grid[0], size[1] // grid[1]


def _first_break(module: nn.Module, size: tuple[int, int], step: tuple[int, int]) -> tuple[str, float] | None:
    """The first layer, in order of completion, whose map does not roll with the input, and by how much."""
    picture = _noise(module, size)
    before = _all_maps(module, picture)
    after = _all_maps(module, picture.roll(step, (2, 3)))
    for (name, still), (_, moved) in zip(before, after, strict=True):
        cells = [n * each for n, each in zip(still.shape[2:], step, strict=True)]
        if any(cell % side and n > 1 for cell, side, n in zip(cells, size, still.shape[2:], strict=True)):
            continue  # its stride is larger than that of the layer in question
        rolled = still.roll([cell // side for cell, side in zip(cells, size, strict=True)], (2, 3))
        change = float((moved - rolled).abs().max()) / max(float(still.abs().max()), 1e-30)
        if not change <= TOLERANCE:
            return name, change
    return None


def _all_maps(module: nn.Module, picture: Tensor) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_part: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                found.append((name, output.clone()))  # the next layer may overwrite it

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in module.named_modules() if name]
    try:
        with torch.inference_mode():
            module(picture)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _noise(module: nn.Module, size: tuple[int, int]) -> Tensor:
    """Normal noise (1, 3, height, width), the same each time."""
    some = next(iter(module.parameters()), torch.zeros(()))
    noise = torch.randn((1, 3, *size), generator=torch.Generator().manual_seed(0))
    return noise.to(some.device, some.dtype)


__all__ = ["TOLERANCE", "change_when_rolled", "check_torus", "stride", "torus"]
