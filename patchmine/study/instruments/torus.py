"""Whether a network is on a torus: rolling the input by whole strides must roll a layer's map, and do nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from patchmine.errors import RequestError
from patchmine.networks.network import Tap, last_call, run_until, survey, tapped

TOLERANCE = 1e-5
"""Of the map's largest value: sums in another order stay below, a padded edge is far above."""

MOST_PX = 512
"""The largest stride that is looked for."""


def torus(module: nn.Module, layer: str, size: tuple[int, int]) -> float:
    """The largest change of a layer's map when the input is rolled, against the map rolled.

    The network is one of `padded(..., "circular")`, the canvas `size` (height, width) in pixels. The input is normal
    noise, rolled by one stride down, by one to the right, and by half the canvas and a stride in both. The change is
    relative to the map's largest absolute value; not finite where the map is not; 0 where the map is 0 everywhere.

    Raises RequestError for a canvas that is no whole number of strides, and for a layer of one cell; ModelError for a
    layer that there is not.
    """
    tap = survey(module, _noise(module, size), [layer])[0]
    step = _step(module, tap, size)
    return change_when_rolled(module, tap, size, step)


def change_when_rolled(module: nn.Module, tap: Tap, size: tuple[int, int], step: tuple[int, int]) -> float:
    """`torus` for any network, a layer surveyed at this size, and a stride that is known."""
    picture = _noise(module, size)
    maps = _maps(module, tap, picture)
    largest = float(maps.abs().max())
    changes = []
    for down, across in ((1, 0), (0, 1), (maps.shape[2] // 2 + 1, maps.shape[3] // 2 + 1)):
        moved = _maps(module, tap, picture.roll((down * step[0], across * step[1]), (2, 3)))
        changes.append(float((moved - maps.roll((down, across), (2, 3))).abs().max()))
    change = float(torch.tensor(changes).max())  # not a number stays that
    return change / largest if largest else change


def check_torus(module: nn.Module, layer: str, size: tuple[int, int]) -> float:
    """`torus`, refused where it is more than rounding: padding could not be changed everywhere.

    The RequestError names the first layer of the network at which the map does not roll with the input.
    """
    change = torus(module, layer, size)
    if change <= TOLERANCE:
        return change
    step = _step(module, survey(module, _noise(module, size), [layer])[0], size)
    place, broken = _first_break(module, size, step) or (layer, change)
    raise RequestError(
        f"{layer} cannot be put on a torus: at {place} the map changes by {broken:.1g} of its largest value when the "
        "input is rolled, so it pads in its own code or looks at where it is; choose a layer before it"
    )


def stride(module: nn.Module, layer: str) -> tuple[int, int]:
    """Input pixels from one cell of the layer to the next, (down, to the right), of a network on the torus.

    There a canvas of n pixels gives n / stride cells, rounded up, so the stride is the largest side with one cell.
    Raises RequestError where the grid does not grow with the canvas, or the network takes no other canvas.
    """
    grid = _grids(module, layer)
    if grid(1) != (1, 1):
        rows, columns = grid(1)
        raise RequestError(f"{layer} has {columns}x{rows} cells however small the canvas is: choose a layer before it")
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
    """Pixels by which the input is rolled when the map is rolled by one cell."""
    grid = tap.layout.grid
    if grid == (1, 1):
        raise RequestError(f"{tap.layer} has one cell on a canvas of {size[1]}x{size[0]} pixels: nothing can be rolled")
    grows = _grids(module, tap.layer)(1) == (1, 1)
    least = stride(module, tap.layer) if grows else grid  # an adaptive pool has so many cells on any canvas
    for side, each in zip(size, least, strict=True):
        if side % each:
            below, above = side // each * each, (side // each + 1) * each
            raise RequestError(
                f"a canvas of {size[1]}x{size[0]} pixels does not divide into whole cells of {tap.layer}: "
                f"instead of {side} give {f'{below} or ' if below else ''}{above}"
            )
    return size[0] // grid[0], size[1] // grid[1]


def _first_break(module: nn.Module, size: tuple[int, int], step: tuple[int, int]) -> tuple[str, float] | None:
    """The first layer, in the order in which they end, whose map does not roll with the input, and by how much."""
    picture = _noise(module, size)
    before = _all_maps(module, picture)
    after = _all_maps(module, picture.roll(step, (2, 3)))
    for (name, maps), (_, moved) in zip(before, after, strict=True):
        cells = [n * each for n, each in zip(maps.shape[2:], step, strict=True)]
        if any(cell % side and n > 1 for cell, side, n in zip(cells, size, maps.shape[2:], strict=True)):
            continue  # of a larger stride than the layer in question
        rolled = maps.roll([cell // side for cell, side in zip(cells, size, strict=True)], (2, 3))
        change = float((moved - rolled).abs().max()) / max(float(maps.abs().max()), 1e-30)
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


def _maps(module: nn.Module, tap: Tap, picture: Tensor) -> Tensor:
    found: list[Tensor] = []
    keep = last_call(tap, lambda output: found.append(tap.layout.grid_of(output).clone()))
    with torch.inference_mode(), tapped(module, {tap.layer: keep}):
        run_until(module, picture, tap.layer, tap.calls)
    return found[0]


def _noise(module: nn.Module, size: tuple[int, int]) -> Tensor:
    """Normal noise (1, 3, height, width), the same each time."""
    some = next(iter(module.parameters()), torch.zeros(()))
    noise = torch.randn((1, 3, *size), generator=torch.Generator().manual_seed(0))
    return noise.to(some.device, some.dtype)


__all__ = ["TOLERANCE", "change_when_rolled", "check_torus", "stride", "torus"]
