"""What each element of a tensor can see of the input: an abstract value, and the algebra on it.

For every element of one tensor, a `Reach` holds the hull of the input rows and the hull of the input columns that the
element depends on. Each of its two halves is a float32 tensor of shape (planes, *dims). Every dim has the length of the
tensor's own dim, or 1 if nothing changes along it: the rows of a feature map are (9, 1, 1, H, 1).

The planes are such that the reach of a value computed from several others is their *minimum*: upper ends are stored
negated, and an element that depends on nothing holds +inf.

    FULL_LOW, FULL_HIGH   first and last input row, clipped to the input
    GLOBAL                -1 after a reduction over the whole extent, +inf elsewhere
    LOW, HIGH             as FULL, but without dependencies through such a reduction (gates held constant)
    WHOLE_LOW, WHOLE_HIGH as LOW and HIGH before clipping: padding continues the grid linearly
    STEP, MINUS_STEP      input rows from one grid row to the next, for one-row grids where it cannot be read off

The hull of a union is the minimum over it, in any order, so a window that is a product of ranges is processed one dim
at a time. Everything here is exact, except that a hull does not record the gaps inside it (dilation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod

import numpy as np
import torch
from torch import Tensor

INF = float("inf")
PLANES = 9
FULL_LOW, FULL_HIGH, GLOBAL, LOW, HIGH, WHOLE_LOW, WHOLE_HIGH, STEP, MINUS_STEP = range(PLANES)
FULL, CLIPPED, LOCAL = slice(0, 2), slice(0, 5), slice(3, 9)
WHOLE, STEPS = slice(5, 7), slice(7, 9)
NOWHERE = torch.iinfo(torch.int64).min  # a tap that looks at nothing, not even padding


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """The rows and columns of the input that the elements of one tensor depend on; see the module docstring."""

    rows: Tensor
    cols: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> Reach:
        """Apply the same change of shape to both halves."""
        return Reach(change(self.rows), change(self.cols))


def of_input(height: int, width: int) -> Reach:
    """The reach of an input of shape (1, channels, height, width): every pixel sees itself."""
    return Reach(_identity(height)[:, None, None, :, None], _identity(width)[:, None, None, None, :])


def _identity(length: int) -> Tensor:
    planes = torch.full((PLANES, length), INF)
    here = torch.arange(length, dtype=torch.float32)
    for low, high in ((FULL_LOW, FULL_HIGH), (LOW, HIGH), (WHOLE_LOW, WHOLE_HIGH)):
        planes[low], planes[high] = here, -here
    planes[STEP], planes[MINUS_STEP] = 1.0, -1.0
    return planes


def nothing(ndim: int) -> Tensor:
    """One half of the reach of a constant with `ndim` dims."""
    return torch.full((PLANES,) + (1,) * ndim, INF)


def compact(planes: Tensor) -> Tensor:
    """The same planes, with every dim along which nothing changes reduced to length 1."""
    for dim in range(1, planes.ndim):
        if planes.shape[dim] > 1:
            first = planes.narrow(dim, 0, 1)
            if bool((planes == first).all()):
                planes = first
    return planes


def united(*reaches: Reach) -> Reach:
    """The union of several reaches, broadcast against one another as torch does."""

    def unite(halves: Sequence[Tensor]) -> Tensor:
        ndim = max(half.ndim for half in halves)
        result, *rest = (_lifted(half, ndim) for half in halves)
        for other in rest:
            result = torch.minimum(result, other)
        return result

    first, *others = reaches
    if not others:
        return first
    return Reach(unite([reach.rows for reach in reaches]), unite([reach.cols for reach in reaches]))


def _lifted(planes: Tensor, ndim: int) -> Tensor:
    missing = ndim - planes.ndim
    return planes.reshape(planes.shape[:1] + (1,) * missing + planes.shape[1:]) if missing > 0 else planes


def lifted(reach: Reach, ndim: int) -> Reach:
    """The reach of a tensor expanded to `ndim` dims, with new dims in front."""
    return reach.each(lambda planes: _lifted(planes, ndim + 1))


def expanded(planes: Tensor, shape: Sequence[int]) -> Tensor:
    """The planes at the full shape of their tensor, as a view."""
    return planes.expand(PLANES, *shape)


def reshaped(reach: Reach, old: Sequence[int], new: Sequence[int]) -> Reach:
    """The reach of a tensor of shape `old` viewed as shape `new`, in row-major order."""
    return reach.each(lambda planes: _reshaped(planes, tuple(old), tuple(new)))


def _reshaped(planes: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    if old == new:
        return planes
    if prod(old) == 0:
        return nothing(len(new))
    wide: list[int] = []
    target: list[int] = []
    mixed = False
    i = j = 0
    while i < len(old) or j < len(new):
        start_i, start_j = i, j
        have = old[i] if i < len(old) else 1
        want = new[j] if j < len(new) else 1
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while have != want:
            if have < want:
                have, i = have * old[i], i + 1
            else:
                want, j = want * new[j], j + 1
        if all(length == 1 for length in planes.shape[1 + start_i : 1 + i]):
            wide += [1] * (i - start_i)
            target += [1] * (j - start_j)
        else:
            wide += old[start_i:i]
            target += new[start_j:j]
            mixed |= sum(n > 1 for n in old[start_i:i]) > 1 or sum(n > 1 for n in new[start_j:j]) > 1
    result = planes.expand(PLANES, *wide).reshape(PLANES, *target)
    if mixed:
        result = result.clone()
        result[STEPS] = -INF
        result = compact(result)
    return result


def reduced(reach: Reach, dims: Sequence[int], windowed: bool = False) -> Reach:
    """The reach of a sum, maximum, norm, ... over `dims` (not negative) of a tensor; these dims keep length 1.

    A global reduction sets GLOBAL and clears the local planes. `windowed` means that the caller knows it to be a
    window, which is never global.
    """

    def shrink(half: Tensor) -> Tensor:
        over = _varying(half, dims)
        if not over:
            return half
        half = half.amin(over, keepdim=True)
        return half if windowed else without_step(half)

    smaller = reach.each(shrink)
    return smaller if windowed else gated(smaller, global_places(reach, dims))


def _varying(half: Tensor, dims: Sequence[int]) -> list[int]:
    """The dims among `dims` along which anything changes, as dims of the planes."""
    return [dim + 1 for dim in dims if half.shape[dim + 1] > 1]


def global_places(reach: Reach, dims: Sequence[int]) -> Tensor | None:
    """Where a reduction over `dims` is global, as bool with these dims kept; None if it is global nowhere.

    A reduction is global where the positions that it combines span more than half of all positions of the tensor. No
    movable window does that.
    """
    everywhere = None
    for half in (reach.rows, reach.cols):
        axes = _varying(half, dims)
        if axes:
            far = _far_apart(half, axes)
            everywhere = far if everywhere is None else everywhere | far
    return everywhere if everywhere is not None and bool(everywhere.any()) else None


def _far_apart(half: Tensor, axes: Sequence[int]) -> Tensor:
    center = (half[WHOLE_LOW] - half[WHOLE_HIGH]) / 2
    known = center.isfinite()
    low, high = center.masked_fill(~known, INF), center.masked_fill(~known, -INF)
    over = [axis - 1 for axis in axes]
    total = high.max() - low.min()
    span = high.amax(over, keepdim=True) - low.amin(over, keepdim=True)
    return (span > 0) & (span > total / 2)


def gated(reach: Reach, everywhere: Tensor | None) -> Reach:
    """The reach with GLOBAL set and the local planes cleared at these places."""
    if everywhere is None:
        return reach
    places = everywhere

    def forget(half: Tensor) -> Tensor:
        half = half.expand(PLANES, *np.broadcast_shapes(half.shape[1:], places.shape)).clone()
        half[LOCAL] = half[LOCAL].masked_fill(places, INF)
        # An element that depends on nothing has not passed through any reduction.
        half[GLOBAL] = half[GLOBAL].masked_fill(places & (half[FULL_LOW] < INF), -1.0)
        return compact(half)

    return reach.each(forget)


def without_step(planes: Tensor) -> Tensor:
    """The same planes without a claim about the distance between neighbors."""
    planes = planes.clone()
    planes[STEPS] = torch.where(planes[STEPS] == INF, planes[STEPS], -INF)
    return planes


def scaled(planes: Tensor, factor: float | None) -> Tensor:
    """The same planes after the distance between neighbors grew by `factor`; None means that it became irregular."""
    if factor == 1:
        return planes
    if factor is None:
        return without_step(planes)
    planes = planes.clone()
    planes[STEPS] *= factor
    return planes


# An operator that fills with zeros must leave +inf there, so planes pass through it with an offset.
OFFSET = float(2**17)


def coded(planes: Tensor) -> Tensor:
    """Encode planes for an operator that moves elements and fills with zeros; `decoded` reads the result."""
    shifted = torch.where(planes == -INF, 1.0, planes + OFFSET)
    return torch.where(planes == INF, 0.0, shifted).contiguous()


def decoded(shifted: Tensor) -> Tensor:
    planes = torch.where(shifted == 1.0, -INF, shifted - OFFSET)
    return torch.where(shifted == 0.0, INF, planes)


def padded(planes: Tensor, dim: int, size: int, before: int, after: int, own: bool) -> Tensor:
    """Planes with constants padded around a dim of length `size` (in the tensor); `dim` counts dims of the planes.

    The clipped planes see nothing there; the whole ones continue linearly. `own` means that the dim is the axis that
    these planes describe. Negative widths crop.
    """
    if before < 0 or after < 0:
        keep = size + min(before, 0) + min(after, 0)
        if planes.shape[dim] > 1:
            planes = planes.narrow(dim, max(-before, 0), keep)
        size, before, after = keep, max(before, 0), max(after, 0)
    if not before and not after:
        return planes
    planes = planes.expand(*planes.shape[:dim], size, *planes.shape[dim + 1 :])
    first, last = planes.narrow(dim, 0, 1), planes.narrow(dim, size - 1, 1)
    if size > 1:
        slopes = (
            planes[WHOLE].narrow(dim, 1, 1) - first[WHOLE],
            last[WHOLE] - planes[WHOLE].narrow(dim, size - 2, 1),
        )
    elif own:
        known = first[STEP].isfinite() & (first[STEP] == -first[MINUS_STEP])
        slope = torch.where(known, first[STEPS], 0.0)
        slopes = slope, slope
        if not bool(known.all()):
            planes = torch.where(known | (planes == INF), planes, _irregular(planes))
            first = last = planes
    else:
        slopes = (torch.zeros(()),) * 2
    shape = [1] * first.ndim
    shape[dim] = -1
    parts = [planes]
    if before:
        steps = torch.arange(-before, 0, dtype=torch.float32).reshape(shape)
        parts.insert(0, _continued(first, slopes[0], steps))
    if after:
        steps = torch.arange(1, after + 1, dtype=torch.float32).reshape(shape)
        parts.append(_continued(last, slopes[1], steps))
    return torch.cat(parts, dim)


def _irregular(planes: Tensor) -> Tensor:
    planes = planes.clone()
    planes[STEPS] = -INF
    return planes


def _continued(edge: Tensor, slope: Tensor, steps: Tensor) -> Tensor:
    """The planes at `steps` positions beyond an edge, continued linearly."""
    whole = edge[WHOLE] + slope * steps
    whole = torch.where(whole.isnan() | (edge[WHOLE] == INF), INF, whole)
    count = np.broadcast_shapes(edge.shape[1:], steps.shape[1:])
    return torch.cat(
        [torch.full((CLIPPED.stop, *count), INF), whole, edge[STEPS].expand(2, *count)],
    )


def windowed(planes: Tensor, dim: int, size: int, taps: Tensor, own: bool, factor: float | None) -> Tensor:
    """The reach of windows along one dim of length `size`; `dim` counts dims of the planes.

    `taps` is int64 (outputs, taps): the positions that each output looks at. Positions outside 0..size-1 are padding;
    NOWHERE marks an unused tap. `own` and `factor` are as in `padded` and `scaled`.
    """
    real = taps != NOWHERE
    if planes.shape[dim] == 1 and (size > 1 or not own):
        seen = (real & (taps >= 0) & (taps < size)).any(1)
        if not bool(seen.all()):
            shape = [1] * (planes.ndim - 1)
            shape[dim - 1] = -1
            planes = planes.expand(*planes.shape[:dim], len(taps), *planes.shape[dim + 1 :]).clone()
            planes[CLIPPED] = planes[CLIPPED].masked_fill(~seen.reshape(shape), INF)
            planes = planes.masked_fill(~real.any(1).reshape(shape), INF)
        return scaled(planes, factor) if own else planes
    low, high = int(taps[real].min()), int(taps[real].max())
    before, after = max(0, -low), max(0, high - size + 1)
    planes = padded(planes, dim, size, before, after, own)
    places = taps + before
    if not bool(real.all()):
        planes = torch.cat([planes, torch.full_like(planes.narrow(dim, 0, 1), INF)], dim)
        places = torch.where(real, places, planes.shape[dim] - 1)
    seen_by_tap = [planes.index_select(dim, places[:, tap]) for tap in range(taps.shape[1])]
    planes = reduce(torch.minimum, seen_by_tap)
    return scaled(planes, factor) if own else planes


def kernel_taps(outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Taps of a convolution or a pool along one dim: output o looks at o * stride - padding + k * dilation."""
    starts = torch.arange(outputs)[:, None] * stride - padding
    return starts + torch.arange(kernel)[None] * dilation


def transposed_taps(outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Taps of a transposed convolution along one dim: input i reaches output i * stride - padding + k * dilation."""
    distance = torch.arange(outputs)[:, None] + padding - torch.arange(kernel)[None] * dilation
    return torch.where(distance % stride == 0, distance.div(stride, rounding_mode="floor"), NOWHERE)


def adaptive_taps(size: int, outputs: int) -> Tensor:
    """Taps of an adaptive pool: in PyTorch, bin i is [floor(i * size / outputs), ceil((i + 1) * size / outputs))."""
    starts = [i * size // outputs for i in range(outputs)]
    stops = [-(-(i + 1) * size // outputs) for i in range(outputs)]
    longest = max(stop - start for start, stop in zip(starts, stops, strict=True))
    return torch.tensor(
        [[min(start + k, stop - 1) for k in range(longest)] for start, stop in zip(starts, stops, strict=True)]
    )
