"""Rules for operators that slide over a grid: padding, convolutions, pools, interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from patchmine.fields.calls import Call, NoRuleError, Seen, listed, rule
from patchmine.fields.reach import (
    CLIPPED,
    INF,
    PLANES,
    Reach,
    adaptive_taps,
    coded,
    compact,
    decoded,
    kernel_taps,
    lifted,
    padded,
    reduced,
    transposed_taps,
    united,
    windowed,
    without_step,
)


def spatial(tensor: Tensor, dims: int) -> list[int]:
    """The last `dims` dims of a tensor."""
    return list(range(tensor.ndim - dims, tensor.ndim))


def owns(dims: Sequence[int], dim: int, rows: bool) -> bool:
    """Whether a spatial dim is the one of the rows (or of the columns). A single spatial dim is ambiguous."""
    return len(dims) >= 2 and dim == dims[-2 if rows else -1]


def on_axes(reach: Reach, dims: Sequence[int], change: Callable[[Tensor, int, bool], Tensor]) -> Reach:
    """Apply `change(planes, dim, own)` along each of the spatial dims, to both halves."""

    def half(planes: Tensor, rows: bool) -> Tensor:
        for dim in dims:
            planes = change(planes, dim, owns(dims, dim, rows))
        return compact(planes) if sum(length > 1 for length in planes.shape[1:]) > 1 else planes

    return Reach(half(reach.rows, True), half(reach.cols, False))


def padded_around(reach: Reach, tensor: Tensor, widths: Sequence[int]) -> Reach:
    """The reach with constants padded around the last dims; `widths` are torch's, from the last dim on, before and
    after."""
    around = {tensor.ndim - 1 - i: widths[2 * i : 2 * i + 2] for i in range(len(widths) // 2)}

    def half(planes: Tensor, own: int) -> Tensor:
        for dim, (before, after) in sorted(around.items()):
            planes = padded(planes, dim + 1, tensor.shape[dim], before, after, own=dim == own)
        return planes

    return Reach(half(reach.rows, tensor.ndim - 2), half(reach.cols, tensor.ndim - 1))


@rule("constant_pad_nd")
def constant_pad(call: Call) -> Seen:
    return padded_around(call.some("self"), call["self"], call["pad"])


@rule("reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d")
def mirror_pad(call: Call) -> Seen:
    """The clipped planes see the mirrored (or repeated) cells; the whole ones continue as in any padding."""
    tensor, widths = call["self"], call["padding"]
    mirrored = call.name.startswith("reflection")

    def fold(planes: Tensor, dim: int, _own: bool) -> Tensor:
        size = tensor.shape[dim]
        before, after = widths[2 * (tensor.ndim - 1 - dim) :][:2]
        places = torch.arange(-before, size + after)
        if mirrored:
            places = places.abs()
            places = torch.where(places >= size, 2 * (size - 1) - places, places)
        places = places.clamp(0, size - 1)
        return planes if planes.shape[dim + 1] == 1 else planes.index_select(dim + 1, places)

    folded = on_axes(call.some("self"), spatial(tensor, len(widths) // 2), fold)
    continued = padded_around(call.some("self"), tensor, widths)

    def mixed(clipped: Tensor, whole: Tensor) -> Tensor:
        clipped, whole = torch.broadcast_tensors(clipped, whole)
        return compact(torch.cat([clipped[CLIPPED], whole[CLIPPED.stop :]]))

    return Reach(mixed(folded.rows, continued.rows), mixed(folded.cols, continued.cols))


# Windows ------------------------------------------------------------------------------------------------


def slide(
    reach: Reach, tensor: Tensor, dims: Sequence[int], taps: Sequence[Tensor], factors: Sequence[float | None]
) -> Reach:
    """The reach of windows along the spatial dims of a tensor, each with its taps and its stride (None: irregular)."""

    def change(planes: Tensor, dim: int, own: bool) -> Tensor:
        at = dims.index(dim)
        return windowed(planes, dim + 1, tensor.shape[dim], taps[at], own, factors[at])

    return on_axes(reach, dims, change)


@rule("convolution _convolution convolution_overrideable")
def convolution(call: Call) -> Seen:
    tensor, weight = call["input"], call["weight"]
    count = tensor.ndim - 2
    dims = spatial(tensor, count)
    stride, padding, dilation = (listed(call.get(n, 1), count) for n in ("stride", "padding", "dilation"))
    transposed, groups = call.get("transposed", False), call.get("groups", 1)
    kernel, outputs = weight.shape[2:], call.output.shape[2:]
    make = transposed_taps if transposed else kernel_taps
    taps = [make(*sizes) for sizes in zip(outputs, kernel, stride, padding, dilation, strict=True)]
    parts = []
    own = call.reach("input")
    if own is not None:
        own = own.each(lambda planes: _grouped(planes, tensor.shape[1], call.output.shape[1], groups))
        factors: list[float | None] = [None if transposed and s > 1 else s for s in stride]
        parts.append(slide(own, tensor, dims, taps, factors))
    given = call.reach("weight")
    if given is not None:
        # Weights computed from the input, of shape (out, in / groups, *kernel).
        if transposed:
            raise NoRuleError("its weights depend on the input")
        seen = reduced(given, range(1, weight.ndim))
        parts.append(seen.each(lambda planes: planes.transpose(1, 2)))
    bias = call.reach("bias")
    if bias is not None:
        parts.append(bias.each(lambda planes: planes.reshape(PLANES, 1, -1, *(1,) * count)))
    return united(*parts)


def _grouped(planes: Tensor, inputs: int, outputs: int, groups: int) -> Tensor:
    """The reach of the output channels, each combining the input channels of its group."""
    if planes.shape[2] == 1:
        return planes
    if groups == 1:
        return planes.amin(2, keepdim=True)
    planes = planes.unflatten(2, (groups, inputs // groups)).amin(3)
    return compact(planes.repeat_interleave(outputs // groups, 2))


@rule("avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices")
def pool(call: Call) -> list[Seen]:
    tensor = call["self"]
    count = int(call.name.split("pool")[1][0])
    dims = spatial(tensor, count)
    sizes, outputs = tensor.shape[-count:], call.output.shape[-count:]
    kernel = listed(call["kernel_size"], count)
    stride = listed(call.get("stride") or kernel, count)
    padding, dilation = listed(call.get("padding", 0), count), listed(call.get("dilation", 1), count)
    reach = call.some("self")
    if call.name.startswith("avg") and tuple(kernel) == tuple(sizes) and max(kernel) > 3:
        # An average over everything: some networks write global pooling this way.
        return [reduced(reach, dims)]
    taps = [kernel_taps(*each) for each in zip(outputs, kernel, stride, padding, dilation, strict=True)]
    return call.first(slide(reach, tensor, dims, taps, list(stride)))


@rule("_adaptive_avg_pool2d adaptive_max_pool2d adaptive_avg_pool1d adaptive_max_pool1d")
def adaptive_pool(call: Call) -> list[Seen]:
    tensor = call["self"]
    count = int(call.name.split("pool")[1][0])
    sizes, outputs = tensor.shape[-count:], call.output.shape[-count:]
    dims = spatial(tensor, count)
    # A single bin reduces over everything; several bins are windows.
    reach = reduced(call.some("self"), [dim for dim, bins in zip(dims, outputs, strict=True) if bins == 1])
    taps = [adaptive_taps(size, bins) for size, bins in zip(sizes, outputs, strict=True)]
    factors = [size / bins if size % bins == 0 else None for size, bins in zip(sizes, outputs, strict=True)]
    return call.first(slide(reach, tensor, dims, taps, factors))


@rule("upsample_nearest1d upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d")
@rule("upsample_linear1d upsample_bilinear2d upsample_bicubic2d")
@rule("_upsample_bilinear2d_aa _upsample_bicubic2d_aa")
def upsample(call: Call) -> Seen:
    """Finds the pixels that each output mixes by running the operator on one pixel at a time."""
    name = "input" if "input" in call.arguments else "self"
    if "output_size" not in call.arguments:
        raise NoRuleError("it is called with scale factors only")
    tensor = call[name]
    dims = spatial(tensor, tensor.ndim - 2)
    taps = []
    for dim in dims:
        size, output = tensor.shape[dim], call.output.shape[dim]
        others = [other for other in dims if other != dim]
        pixels = torch.eye(size)
        for other in others:
            # Two wide: some versions of torch mistake a one-column map for channels last, and fail.
            pixels = pixels.unsqueeze(other - 1).repeat_interleave(2, other - 1)
        sizes = [output if other == dim else 2 for other in dims]
        arguments = {**call.arguments, name: pixels[None], "output_size": sizes}
        arguments.pop("out", None)
        arguments.update((scale, None) for scale, of in (("scales_h", 2), ("scales_w", 3)) if of in others)
        weights = call.func(**arguments)[0]
        for other in others:
            weights = weights.narrow(other - 1, 0, 1)
        taps.append(_taps_of((weights.reshape(size, output) != 0).T))
    factors = [1 if tensor.shape[d] == call.output.shape[d] else None for d in dims]
    return slide(call.some(name), tensor, dims, taps, factors)


def _taps_of(used: Tensor) -> Tensor:
    """The first and last input that each output uses, which determine the hull. `used` is bool (out, in)."""
    size = used.shape[1]
    order = torch.arange(size)
    first = torch.where(used, order, size).amin(1)
    last = torch.where(used, order, -1).amax(1)
    return torch.stack([first, last], 1)


@rule("im2col")
def im2col(call: Call) -> Seen:
    """Pad first, as for every window, then arrange the columns."""
    height, width = listed(call["padding"], 2)
    tensor = call["self"]
    grown = padded_around(call.some("self"), tensor, [width, width, height, height])
    shape = (*tensor.shape[:-2], tensor.shape[-2] + 2 * height, tensor.shape[-1] + 2 * width)
    shape = (1,) * (4 - len(shape)) + shape
    kernel, dilation, stride = (listed(call[name], 2) for name in ("kernel_size", "dilation", "stride"))

    def columns(planes: Tensor) -> Tensor:
        wide = planes.expand(PLANES, *shape).flatten(0, 1)
        result = torch.ops.aten.im2col(coded(wide), kernel, dilation, [0, 0], stride)
        return without_step(compact(decoded(result).unflatten(0, (PLANES, shape[0]))))

    result = lifted(grown, 4).each(columns)
    return result if tensor.ndim == 4 else result.each(lambda planes: planes[:, 0])


@rule("col2im")
def col2im(call: Call) -> Seen:
    """Each output pixel is the sum of the columns that overlap it."""
    tensor = call["self"]
    if tensor.ndim != 3:
        raise NoRuleError("it has no batch dim")
    height, width = listed(call["output_size"], 2)
    kernel, dilation, padding, stride = (
        listed(call[name], 2) for name in ("kernel_size", "dilation", "padding", "stride")
    )
    down, across = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip((height, width), padding, dilation, kernel, stride, strict=True)
    )
    channels = tensor.shape[1] // prod(kernel)

    def overlap(planes: Tensor) -> Tensor:
        batch = tensor.shape[0]
        wide = planes.expand(PLANES, *tensor.shape)
        wide = wide.reshape(PLANES, batch, channels, kernel[0], kernel[1], down, across)
        area = torch.full((PLANES, batch, channels, height + 2 * padding[0], width + 2 * padding[1]), INF)
        for y in range(kernel[0]):
            for x in range(kernel[1]):
                top, left = y * dilation[0], x * dilation[1]
                here = area[
                    ...,
                    top : top + (down - 1) * stride[0] + 1 : stride[0],
                    left : left + (across - 1) * stride[1] + 1 : stride[1],
                ]
                torch.minimum(here, wide[..., y, x, :, :], out=here)
        inside = area[..., padding[0] : padding[0] + height, padding[1] : padding[1] + width]
        return without_step(compact(inside.contiguous()))

    return call.some("self").each(overlap)
