"""Exact receptive fields of any layer of any network, by abstract interpretation.

The network runs once on a blank input. Every aten operator that it calls is also applied to what its operands can see
of the input (`reach`, `rules`). So no table of layer types and no graph capture is needed: residual,
concatenated, and shuffled branches, functional calls, and modules called twice need no special treatment.

A field is structural: it is what an activation depends on, whatever the weights and the image are. A weight that
happens to be zero, or a ReLU that is off, does not shrink it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.errors import FieldError
from patchmine.fields.calls import Seen, Unknown
from patchmine.fields.field import FieldGroup, ReceptiveField
from patchmine.fields.observer import Observer
from patchmine.fields.reach import (
    FULL,
    FULL_LOW,
    GLOBAL,
    HIGH,
    INF,
    LOW,
    PLANES,
    WHOLE,
    WHOLE_LOW,
    Reach,
    compact,
    of_input,
    reshaped,
)
from patchmine.networks import virtual
from patchmine.networks.calls import module_and_call, no_such_call
from patchmine.networks.layouts import Layout, Layouts
from patchmine.networks.taps import tapped

FieldKind = Literal["local", "full"]
"""Whether gates computed from the whole image count: `local` holds them constant, `full` includes them."""


def receptive_fields(
    module: nn.Module,
    input_size: tuple[int, int],
    layers: Sequence[str],
    *,
    channels: int = 3,
    field: FieldKind = "local",
) -> dict[str, ReceptiveField]:
    """The receptive fields of layers for one input of (height, width) pixels; `NAME@N` is the N-th call of a module.

    `full` is everything that an activation depends on. `local` holds constant anything computed from the whole image at
    once (squeeze-and-excite gates, attention, norms over the image). The two differ only where the status is
    `whole_input`. Layers that depend on nothing else, such as a classifier, keep the full field.

    Raises ModelError for a layer that is unknown, is not called, or has no grid. Raises FieldError if a field cannot be
    determined, for example because the network fails on an input of this size.
    """
    height, width = input_size
    some = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    blank = torch.zeros(1, channels, height, width, dtype=some.dtype, device=some.device)
    observer = Observer(blank, of_input(height, width))
    found: dict[str, tuple[Layout, Seen, tuple[int, ...]]] = {}
    modules = dict(module.named_modules())
    layouts = Layouts(module, input_size)

    calls = dict.fromkeys(layers, 0)

    def tap(layer: str) -> Callable[[Tensor], None]:
        _, call = module_and_call(layer, modules)

        def see(output: Tensor) -> None:
            calls[layer] += 1
            if call in (None, calls[layer]):
                found[layer] = layouts.of(layer, output), observer.seen_by(output), tuple(output.shape)

        return see

    training = [name or "the network" for name, part in modules.items() if part.training]
    if training:
        raise FieldError(f"{training[0]} is in training mode: call eval() on the network first")
    with torch.no_grad(), tapped(module, {layer: tap(layer) for layer in layers}):
        try:
            with observer.following(modules):
                module(blank)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            if observer.own:
                raise
            raise FieldError(
                f"the network fails on an input of {height}x{width} in {observer.here}: {_line(error)}"
            ) from error
    for layer in layers:
        if layer not in found:
            raise no_such_call(layer, module_and_call(layer, modules)[0], calls[layer])
    own = {layer: _field(layer, *found[layer], input_size, field) for layer in layers}
    readouts = virtual.carried(module)
    return {
        layer: one.across_channels(readouts[layer].units) if layer in readouts else one for layer, one in own.items()
    }


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _field(
    layer: str,
    layout: Layout,
    seen: Seen,
    shape: tuple[int, ...],
    input_size: tuple[int, int],
    field: FieldKind,
) -> ReceptiveField:
    """The receptive field of a layer, from the reach of its output."""
    if isinstance(seen, Unknown):
        raise FieldError(f"the receptive field of layer {layer!r} cannot be determined: {seen.reason}")
    if seen is None:
        raise FieldError(f"the output of layer {layer!r} does not depend on the input")
    if shape[0] != 1:
        raise FieldError(f"the output of layer {layer!r} has shape {shape}: not one grid for one picture")
    height, width = layout.grid
    on_grid = _on_grid(seen, layout)
    rows = _along(layer, on_grid.rows, 3, layout.channels, height)
    cols = _along(layer, on_grid.cols, 2, layout.channels, width)
    if (rows[FULL_LOW] == INF).all():
        raise FieldError(f"the output of layer {layer!r} does not depend on the input: choose a later layer")
    widened = (rows[GLOBAL] < INF).any() or (cols[GLOBAL] < INF).any()
    # A channel keeps its full field if holding the gates constant would leave nothing at some place.
    local = torch.ones(layout.channels, dtype=torch.bool)
    for planes in (rows, cols):
        local &= ((planes[LOW] < INF) | (planes[FULL_LOW] == INF)).all(1)
    if field == "full" and widened:
        local = torch.zeros_like(local)
    if layout.tokens == "grid" and widened and field == "local":
        square = _squares(layout.channels, layout.grid, input_size)
        return ReceptiveField(
            layer, layout.channels, layout.grid, input_size, "whole_input", (square,), local=True, tokens="grid"
        )
    down, across = _chosen(rows, local), _chosen(cols, local)
    groups = []
    for start, stop in _runs(down, across):
        row_ends, col_ends = _intervals(down[:, start], input_size[0]), _intervals(across[:, start], input_size[1])
        vertical, horizontal = _form(down[:, start], row_ends), _form(across[:, start], col_ends)
        size, stride, offset = zip(vertical, horizontal, strict=True) if vertical and horizontal else (None,) * 3
        groups.append(FieldGroup((start, stop), row_ends, col_ends, size, stride, offset))
    return ReceptiveField(
        layer=layer,
        channels=layout.channels,
        grid=layout.grid,
        input=input_size,
        status="whole_input" if widened else "exact",
        groups=tuple(groups),
        local=bool(widened and local.any()),
        tokens=layout.tokens,
    )


def _squares(channels: int, grid: tuple[int, int], input_size: tuple[int, int]) -> FieldGroup:
    """The squares of the input that tokens stand for, in the form of a field."""
    sides = [length // cells for length, cells in zip(input_size, grid, strict=True)]
    rows, cols = (
        np.array([[cell * side, (cell + 1) * side] for cell in range(cells)], np.int32)
        for side, cells in zip(sides, grid, strict=True)
    )
    size = (sides[0], sides[1])
    return FieldGroup((0, channels), rows, cols, size, size, (0, 0))


def _on_grid(reach: Reach, layout: Layout) -> Reach:
    """The reach as (planes, 1, channels, grid height, grid width), arranged as `Layout.grid_of` arranges the output."""
    if layout.order != "tokens":
        order = {
            "nchw": lambda p: p,
            "nhwc": lambda p: p.permute(0, 1, 4, 2, 3),
            "vector": lambda p: p[..., None, None],
        }
        return reach.each(order[layout.order])

    def places(planes: Tensor) -> Tensor:
        if planes.shape[2] > 1:
            planes = planes[:, :, layout.sequence]
        return planes.transpose(2, 3)

    old = (1, layout.channels, layout.grid[0] * layout.grid[1])
    return reshaped(reach.each(places), old, (1, layout.channels, *layout.grid)).each(compact)


def _along(layer: str, planes: Tensor, across: int, channels: int, length: int) -> Tensor:
    """The planes (planes, channels, length) of one axis, from planes on the grid; `across` is the other axis.

    Along the other axis the full field must be constant or empty (a border of constant padding). The local field only
    has to contain the others at some place there, since a gate may be dropped at some places alone. Anything else is
    not a product of rows and columns, or the output is read as the wrong grid.
    """
    planes = planes[:, 0]
    if planes.shape[across] == 1:
        return planes.squeeze(across).expand(PLANES, channels, length)
    hull = planes.amin(across, keepdim=True)
    reached = (planes == hull)[:-1] & (planes == hull)[1:]  # both ends of the low planes
    full = reached[FULL_LOW] | (planes[FULL_LOW] == INF)
    local, whole = (reached[low].any(across - 1) for low in (LOW, WHOLE_LOW))
    exact = bool((planes[GLOBAL] == INF).all())
    if not (bool(full.all()) and bool(local.all()) and (bool(whole.all()) or not exact)):
        raise FieldError(
            f"the receptive fields of layer {layer!r} are not a product of rows and columns, "
            "or its output is not a grid"
        )
    hull[WHOLE] = hull[WHOLE].masked_fill(~whole.unsqueeze(across - 1), -INF)
    return hull.squeeze(across).expand(PLANES, channels, length)


def _chosen(planes: Tensor, local: Tensor) -> Tensor:
    """The planes (6, channels, positions) to report: both ends of the field, both ends before clipping, and the steps.

    If a channel has no local field, its full field is reported, without a form before clipping.
    """
    ends = torch.where(local[:, None], planes[LOW : HIGH + 1], planes[FULL])
    return torch.cat([ends, planes[WHOLE_LOW:].masked_fill(~local[:, None], INF)])


def _runs(down: Tensor, across: Tensor) -> list[tuple[int, int]]:
    """Runs of consecutive channels with equal fields."""
    keys = torch.cat([down.transpose(0, 1).flatten(1), across.transpose(0, 1).flatten(1)], 1)
    ends = ((keys[1:] != keys[:-1]).any(1).nonzero()[:, 0] + 1).tolist()
    return list(zip([0, *ends], [*ends, len(keys)], strict=True))


def _intervals(chosen: Tensor, length: int) -> NDArray[np.int32]:
    """Half-open intervals int32 (positions, 2); [0, 0) for a position that sees nothing."""
    low, high = chosen[:2]
    empty = low == INF
    ends = torch.stack([low.masked_fill(empty, 0), (1 - high).masked_fill(empty, 0)], 1)
    assert float(ends.min()) >= 0 and float(ends.max()) <= length, "a field reaches beyond the input"
    return ends.numpy().astype(np.int32)


def _form(chosen: Tensor, seen: NDArray[np.int32]) -> tuple[int, int, int] | None:
    """(size, stride, offset) such that position y sees [offset + y * stride, ... + size) before clipping."""
    low, high = chosen[2].double().numpy(), 1 - chosen[3].double().numpy()
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    step = float(chosen[4, 0])
    known = np.isfinite(step) and bool((chosen[4] == step).all() and (chosen[5] == -step).all())
    if len(low) > 1:
        stride = low[1] - low[0]
        if len(low) == 2 and not (known and step == stride):
            return None
    elif known:
        stride = step
    else:
        return None
    size, offset = high[0] - low[0], low[0]
    at = offset + stride * np.arange(len(low))
    inside = seen[:, 1] > seen[:, 0]
    if (
        stride < 1
        or any(float(value) != int(value) for value in (size, stride, offset))
        or (low != at).any()
        or (high != at + size).any()
        or (at > seen[:, 0])[inside].any()
        or (at + size < seen[:, 1])[inside].any()
    ):
        return None
    return int(size), int(stride), int(offset)
