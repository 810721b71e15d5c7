"""Rules for operators that only move elements: views, concatenations, shuffles, indexing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from patchmine.fields.calls import Call, NoRuleError, Seen, constant, dim_in, dims_in, listed, rule, tensors_in
from patchmine.fields.reach import (
    PLANES,
    Reach,
    coded,
    compact,
    decoded,
    expanded,
    lifted,
    reduced,
    reshaped,
    scaled,
    without_step,
)


@rule("view _unsafe_view _reshape_alias _reshape_copy view_copy squeeze unsqueeze")
def view(call: Call) -> Seen:
    if call.arguments.get("dtype") is not None:
        raise NoRuleError("it changes the data type of the elements")
    return reshaped(call.some("self"), call["self"].shape, call.output.shape)


@rule("permute transpose t")
def permute(call: Call) -> Seen:
    ndim = call["self"].ndim
    order = list(range(ndim))
    if "dims" in call.arguments:
        order = [dim_in(dim, ndim) for dim in call["dims"]]
    elif ndim > 1:
        a, b = dim_in(call.get("dim0", 0), ndim), dim_in(call.get("dim1", 1), ndim)
        order[a], order[b] = order[b], order[a]
    return call.some("self").each(lambda planes: planes.permute(0, *(dim + 1 for dim in order)))


@rule("expand")
def expand(call: Call) -> Seen:
    return lifted(call.some("self"), call.output.ndim)


@rule("select")
def select(call: Call) -> Seen:
    dim, index = dim_in(call["dim"], call["self"].ndim) + 1, call["index"]
    return call.some("self").each(lambda planes: planes.select(dim, index if planes.shape[dim] > 1 else 0))


@rule("slice")
def slices(call: Call) -> Seen:
    dim = dim_in(call.get("dim", 0), call["self"].ndim) + 1
    start, step = call.get("start", 0), call.get("step", 1)
    size = call["self"].shape[dim - 1]
    start = min(max(start + size if start < 0 else start, 0), size)
    count = call.output.shape[dim - 1]

    def cut(planes: Tensor) -> Tensor:
        if planes.shape[dim] == 1:
            return planes
        planes = planes.narrow(dim, start, (count - 1) * step + 1) if count else planes.narrow(dim, 0, 0)
        if step > 1:
            planes = scaled(planes[(slice(None),) * dim + (slice(None, None, step),)], step)
        return planes

    return call.some("self").each(cut)


@rule("split split_with_sizes")
def split(call: Call) -> list[Seen]:
    dim = dim_in(call.get("dim", 0), call["self"].ndim)
    reach = call.some("self")
    parts: list[Seen] = []
    start = 0
    for output in call.outputs:
        count = output.shape[dim]

        def cut(planes: Tensor, start: int = start, count: int = count) -> Tensor:
            return planes if planes.shape[dim + 1] == 1 else planes.narrow(dim + 1, start, count)

        parts.append(reach.each(cut))
        start += count
    return parts


@rule("unbind")
def unbind(call: Call) -> list[Seen]:
    dim = dim_in(call.get("dim", 0), call["self"].ndim) + 1
    reach = call.some("self")
    return [
        reach.each(lambda planes, i=i: planes.select(dim, i if planes.shape[dim] > 1 else 0))  # type: ignore[misc]
        for i in range(len(call.outputs))
    ]


@rule("cat")
def cat(call: Call) -> Seen:
    dim = dim_in(call.get("dim", 0), call.output.ndim)
    # torch still allows empty one-dim tensors to be concatenated with anything.
    parts = [part for part in call["tensors"] if part.numel() or part.ndim == call.output.ndim]
    return joined([(call.reach_of(part), part.shape[dim]) for part in parts], dim, call.output.ndim)


@rule("stack")
def stack(call: Call) -> Seen:
    dim = dim_in(call.get("dim", 0), call.output.ndim)
    parts = []
    for part in call["tensors"]:
        reach = call.reach_of(part)
        parts.append((reach and reach.each(lambda planes: planes.unsqueeze(dim + 1)), 1))
    return joined(parts, dim, call.output.ndim)


def joined(parts: Sequence[tuple[Reach | None, int]], dim: int, ndim: int) -> Reach:
    """The reach of tensors concatenated along a dim; each part comes with its length there."""

    def join(halves: Sequence[Tensor]) -> Tensor:
        if all(half is halves[0] and half.shape[dim + 1] == 1 for half in halves):
            return halves[0]
        shape = list(np.broadcast_shapes(*(half.narrow(dim + 1, 0, 1).shape for half in halves)))
        wide = []
        for half, (_, length) in zip(halves, parts, strict=True):
            target = list(shape)
            target[dim + 1] = length
            wide.append(half.expand(target))
        return compact(torch.cat(wide, dim + 1))

    reaches = [reach or constant(ndim) for reach, _ in parts]
    return Reach(join([reach.rows for reach in reaches]), join([reach.cols for reach in reaches]))


@rule("repeat")
def repeat(call: Call) -> Seen:
    counts = call["repeats"]
    reach = lifted(call.some("self"), call.output.ndim)
    counts = [1] * (call.output.ndim - len(counts)) + list(counts)

    def tile(planes: Tensor) -> Tensor:
        return planes.repeat(1, *(n if length > 1 else 1 for n, length in zip(counts, planes.shape[1:], strict=True)))

    shape = (1,) * (call.output.ndim - call["self"].ndim) + tuple(call["self"].shape)
    # A repeated dim of one row is constant along it: nothing to do. Only the step no longer holds.
    grown = any(n > 1 and length > 1 for n, length in zip(counts, shape, strict=True))
    return reach.each(lambda planes: without_step(tile(planes)) if grown else tile(planes))


@rule("flip")
def flip(call: Call) -> Seen:
    dims = [dim + 1 for dim in dims_in(call["dims"], call["self"].ndim)]
    return call.some("self").each(lambda planes: without_step(planes.flip(dims)))


@rule("roll")
def roll(call: Call) -> Seen:
    ndim = call["self"].ndim
    if not call.get("dims"):
        return moved(call)
    dims, shifts = listed(call["dims"], 1), listed(call["shifts"], 1)

    def turn(planes: Tensor) -> Tensor:
        pairs = [(s, dim_in(d, ndim) + 1) for s, d in zip(shifts, dims, strict=True)]
        pairs = [(s, d) for s, d in pairs if planes.shape[d] > 1]
        return planes.roll([s for s, _ in pairs], [d for _, d in pairs]) if pairs else planes

    return call.some("self").each(turn)


@rule("unfold")
def unfold(call: Call) -> Seen:
    dim, size, step = dim_in(call["dimension"], call["self"].ndim) + 1, call["size"], call["step"]

    def windows(planes: Tensor) -> Tensor:
        if planes.shape[dim] == 1:
            return planes.unsqueeze(-1)
        return scaled(planes.unfold(dim, size, step), None)

    return call.some("self").each(windows)


@rule("pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle repeat_interleave.self_int")
@rule("diagonal diag_embed tril triu rot90 slice_scatter select_scatter")
def moved(call: Call) -> Reach:
    """The reach of any operator that only moves elements and fills with zeros: the operator applied to every plane."""
    names = [n for n, v in call.arguments.items() if n != "out" and tensors_in(v)]

    def half(pick: Callable[[Reach], Tensor]) -> Tensor:
        def plane(name: str, index: int) -> Tensor:
            tensor = call[name]
            return coded(expanded(pick(call.some(name)), tensor.shape)[index])

        results = []
        for index in range(PLANES):
            arguments = {**call.arguments, **{name: plane(name, index) for name in names}}
            arguments.pop("out", None)
            results.append(decoded(call.func(**arguments)))
        return without_step(compact(torch.stack(results)))

    return Reach(half(lambda reach: reach.rows), half(lambda reach: reach.cols))


@rule("index _unsafe_index")
def index(call: Call) -> Seen:
    call.only("self")
    tensor, indices = call["self"], call["indices"]
    dims: set[int] = set()
    dim = 0
    for item in indices:
        spans = item.ndim if item is not None and item.dtype in (torch.bool, torch.uint8) else 1
        if item is not None:
            dims.update(range(dim, dim + spans))
        dim += spans
    places = tuple(slice(None) if item is None else item.cpu() for item in indices)

    def pick(planes: Tensor) -> Tensor:
        # Only indexed dims need their full length. One plane at a time, because the dims before the indexed ones decide
        # where torch puts the new ones.
        wide = [tensor.shape[dim] if dim in dims else planes.shape[dim + 1] for dim in range(tensor.ndim)]
        return without_step(compact(torch.stack([plane.expand(wide)[places] for plane in planes])))

    return call.some("self").each(pick)


@rule("index_put _index_put_impl _unsafe_index_put")
def index_put(call: Call) -> Seen:
    call.only("self", "values")
    if call.get("accumulate", False):
        raise NoRuleError("it accumulates")
    places = [None if item is None else item.cpu() for item in call["indices"]]
    shape, given = call["self"].shape, call["values"]

    def put(into: Tensor, values: Tensor) -> Tensor:
        planes = [
            plane.expand(shape).index_put(places, value.expand(given.shape))
            for plane, value in zip(into, values, strict=True)
        ]
        return without_step(compact(torch.stack(planes)))

    target, source = call.some("self"), call.some("values")
    return Reach(put(target.rows, source.rows), put(target.cols, source.cols))


@rule("index_select")
def index_select(call: Call) -> Seen:
    call.only("self")
    dim, places = dim_in(call["dim"], call["self"].ndim) + 1, call["index"].cpu()
    return call.some("self").each(
        lambda planes: planes if planes.shape[dim] == 1 else without_step(planes.index_select(dim, places))
    )


@rule("gather")
def gather(call: Call) -> Seen:
    call.only("self")
    dim, places = dim_in(call["dim"], call["self"].ndim), call["index"].cpu()
    shape = call["self"].shape

    def pick(planes: Tensor) -> Tensor:
        return compact(torch.stack([plane.expand(shape).gather(dim, places) for plane in planes]))

    return call.some("self").each(lambda planes: without_step(pick(planes)))


@rule("view_as_real view_as_complex")
def view_as(call: Call) -> Seen:
    reach, tensor = call.some("self"), call["self"]
    if call.output.ndim > tensor.ndim:
        return reach.each(lambda planes: planes.unsqueeze(-1))
    last = tensor.ndim - 1
    return reduced(reach, [last], windowed=True).each(lambda planes: planes.squeeze(-1))
