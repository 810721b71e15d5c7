"""One rule per operator of aten: the reach of its outputs from the reach of its inputs.

A rule is a function of a `Call`. It returns the reach of every tensor that the operator returns, in order: a
`Reach`, None for a constant, or an `Unknown` that may not be used. An operator without a rule makes its outputs
Unknown, so nothing is ever guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from patchmine.reach import (
    INF,
    PLANES,
    Reach,
    adaptive_taps,
    compact,
    expanded,
    gated,
    global_places,
    kernel_taps,
    lifted,
    nothing,
    padded,
    reduced,
    reshaped,
    scaled,
    transposed_taps,
    united,
    windowed,
    without_step,
)


@dataclass(frozen=True, slots=True)
class Unknown:
    """In the place of a reach that could not be determined, with the reason: it is passed on to whatever uses it."""

    reason: str


Seen = Reach | Unknown | None


class Call:
    """One call of an operator: its arguments by their names in the schema, its outputs, what its inputs reach.

    No tensor argument is Unknown and at least one has a reach: other calls need no rule.
    """

    def __init__(
        self,
        func: torch._ops.OpOverload,
        arguments: dict[str, Any],
        outputs: Sequence[Tensor],
        reach_of: Callable[[Tensor], Reach | None],
    ) -> None:
        self.func = func
        self.arguments = arguments
        self.outputs = outputs
        self.reach_of = reach_of

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        value = self.arguments.get(name)
        return default if value is None else value

    @property
    def output(self) -> Tensor:
        return self.outputs[0]

    def reach(self, name: str) -> Reach | None:
        tensor = self.arguments.get(name)
        return self.reach_of(tensor) if isinstance(tensor, Tensor) else None

    def some(self, name: str) -> Reach:
        """The reach of an argument, that of a constant where it is one."""
        return self.reach(name) or constant(self[name].ndim)

    def only(self, *names: str) -> None:
        """Refuse calls in which any argument but these depends on the input."""
        for name, value in self.arguments.items():
            if name not in names:
                for tensor in tensors_in(value):
                    if self.reach_of(tensor) is not None:
                        raise NoRuleError(f"its {name} depends on the input")


class NoRuleError(Exception):
    """A rule does not cover this call; the message says what about it."""


Rule = Callable[[Call], Seen | list[Seen]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return add


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in one argument of an operator."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [item for item in value if isinstance(item, Tensor)]
    return []


def constant(ndim: int) -> Reach:
    return Reach(nothing(ndim), nothing(ndim))


def dim_in(dim: int, ndim: int) -> int:
    return dim + ndim if dim < 0 else dim


def dims_in(dims: int | Sequence[int] | None, ndim: int) -> list[int]:
    """Dims as an operator names them, not negative; None and the empty list mean all."""
    if isinstance(dims, int):
        dims = [dims]
    return sorted({dim_in(dim, ndim) for dim in dims}) if dims else list(range(ndim))


def listed(value: int | Sequence[int], count: int) -> list[int]:
    """An operator's int or list of ints, one per dim."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def rule_for(func: torch._ops.OpOverload) -> Rule | None:
    """The rule for an operator; in-place and out= forms have that of the plain one."""
    name = func._schema.name.removeprefix("aten::")
    plain = name.removesuffix("_") if not name.startswith("__") else name
    found = RULES.get(f"{plain}.{func._overloadname}") or RULES.get(plain)
    if found is None and (torch.Tag.pointwise in func.tags or plain in POINTWISE):
        return pointwise
    return found


# Element by element ---------------------------------------------------------------------------------------

# Those that torch does not tag as pointwise, or not in every version.
POINTWISE = frozenset(
    "_prelu_kernel prelu relu relu6 hardtanh hardswish hardsigmoid silu gelu mish elu celu selu leaky_relu softplus "
    "threshold sigmoid log_sigmoid tanh floor_divide copysign rsub _to_copy clone contiguous alias detach lift_fresh "
    "lift positive dropout native_dropout _conj conj_physical resolve_conj resolve_neg real imag "
    "fake_quantize_per_tensor_affine batch_norm".split()
)


@rule("pointwise")
def pointwise(call: Call) -> Seen | list[Seen]:
    inputs = [value for name, value in call.arguments.items() if name != "out"]
    reaches = [call.reach_of(tensor) for value in inputs for tensor in tensors_in(value)]
    ndim = call.output.ndim
    seen = [lifted(reach, ndim) for reach in reaches if reach is not None]
    return [united(*seen) if seen else None] * len(call.outputs)


@rule("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar", "masked_fill")
def choice(call: Call) -> Seen:
    """A constant condition picks; one that depends on the input is an input like the others."""
    filling = "mask" in call.arguments
    condition = call["mask" if filling else "condition"]
    if call.reach_of(condition) is not None:
        result = pointwise(call)
        return result[0] if isinstance(result, list) else result
    ndim = call.output.ndim

    def option(name: str) -> Reach:
        value = call.get(name)
        reach = call.reach_of(value) if isinstance(value, Tensor) else None
        return constant(ndim) if reach is None else lifted(reach, ndim)

    yes, no = (option("value"), option("self")) if filling else (option("self"), option("other"))
    mask = condition.cpu()
    mask = mask.reshape((1,) * (1 + ndim - mask.ndim) + tuple(mask.shape))
    return Reach(compact(torch.where(mask, yes.rows, no.rows)), compact(torch.where(mask, yes.cols, no.cols)))


@rule("copy")
def copy(call: Call) -> Seen:
    return lifted(call.some("src"), call.output.ndim)


@rule("fill", "zero", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like")
@rule("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "normal", "uniform", "bernoulli")
def filled(call: Call) -> Seen:
    call.only("self", "input")
    return None


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit",
    "cudnn_batch_norm",
)
@rule("_batch_norm_no_update", "_batch_norm_with_update", "miopen_batch_norm")
def batch_norm(call: Call) -> list[Seen]:
    call.only("input")
    own = call.some("input")
    training = call.arguments.get("training", "no_training" not in call.func._schema.name)
    if training and "no_update" not in call.func._schema.name:
        shape = call["input"].shape
        own = united(own, reduced(own, [0, *range(2, len(shape))]))
    return first_of(call, own)


def first_of(call: Call, seen: Seen) -> list[Seen]:
    """The first output, the others not for use."""
    return [seen, *[Unknown("a second output")] * (len(call.outputs) - 1)]


# Views and moves ------------------------------------------------------------------------------------------


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "squeeze", "unsqueeze")
@rule("_reshape_copy", "view_copy")
def view(call: Call) -> Seen:
    if call.arguments.get("dtype") is not None:
        raise NoRuleError("it changes the type of the elements")
    return reshaped(call.some("self"), call["self"].shape, call.output.shape)


@rule("permute", "transpose", "t", "numpy_T", "movedim", "swapaxes")
def permute(call: Call) -> Seen:
    ndim = call["self"].ndim
    order = list(range(ndim))
    if "dims" in call.arguments:
        order = [dim_in(dim, ndim) for dim in call["dims"]]
    elif ndim > 1:
        a, b = dim_in(call.get("dim0", 0), ndim), dim_in(call.get("dim1", 1), ndim)
        order[a], order[b] = order[b], order[a]
    return call.some("self").each(lambda planes: planes.permute(0, *(dim + 1 for dim in order)))


@rule("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> Seen:
    return lifted(call.some("self"), call.output.ndim)


@rule("select")
def select(call: Call) -> Seen:
    dim, index = dim_in(call["dim"], call["self"].ndim) + 1, call["index"]
    return call.some("self").each(lambda planes: planes.select(dim, index if planes.shape[dim] > 1 else 0))


@rule("slice", "narrow")
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


@rule("split", "split_with_sizes", "chunk", "tensor_split")
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


@rule("cat", "concat", "concatenate")
def cat(call: Call) -> Seen:
    dim = dim_in(call.get("dim", 0), call.output.ndim)
    # torch still lets empty tensors of one dim be concatenated with anything.
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
    """Tensors one after the other along a dim, each with its length there."""

    def join(halves: Sequence[Tensor]) -> Tensor:
        if all(half is halves[0] and half.shape[dim + 1] == 1 for half in halves):
            return halves[0]
        shape = list(torch.broadcast_shapes(*(half.narrow(dim + 1, 0, 1).shape for half in halves)))
        wide = []
        for half, (_, length) in zip(halves, parts, strict=True):
            target = list(shape)
            target[dim + 1] = length
            wide.append(half.expand(target))
        return compact(torch.cat(wide, dim + 1))

    reaches = [reach or constant(ndim) for reach, _ in parts]
    return Reach(join([reach.rows for reach in reaches]), join([reach.cols for reach in reaches]))


@rule("repeat", "tile")
def repeat(call: Call) -> Seen:
    counts = call.get("repeats") or call["dims"]
    reach = lifted(call.some("self"), call.output.ndim)
    counts = [1] * (call.output.ndim - len(counts)) + list(counts)

    def tile(planes: Tensor) -> Tensor:
        return planes.repeat(
            1, *(n if length > 1 else 1 for n, length in zip(counts, planes.shape[1:], strict=True))
        )

    shape = (1,) * (call.output.ndim - call["self"].ndim) + tuple(call["self"].shape)
    # A dim of one row, repeated, is constant along it: nothing to do. The step, however, no longer holds.
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


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "diagonal", "rot90")
@rule(
    "tril",
    "triu",
    "diag_embed",
    "as_strided",
    "repeat_interleave.self_int",
    "slice_scatter",
    "select_scatter",
)
@rule("slice_backward", "select_backward", "narrow_copy", "space_to_depth")
def moved(call: Call) -> Seen:
    """Any operator that only moves elements, and writes zeros where there are none: done to every plane."""
    names = [n for n, v in call.arguments.items() if n != "out" and tensors_in(v)]

    def half(pick: Callable[[Reach], Tensor]) -> Tensor:
        def plane(name: str, index: int) -> Tensor:
            tensor = call[name]
            return _coded(expanded(pick(call.some(name)), tensor.shape)[index])

        results = []
        for index in range(PLANES):
            arguments = {**call.arguments, **{name: plane(name, index) for name in names}}
            arguments.pop("out", None)
            results.append(_decoded(call.func(**arguments)))
        return without_step(compact(torch.stack(results)))

    return Reach(half(lambda reach: reach.rows), half(lambda reach: reach.cols))


# Zeros that an operator writes must read as "nothing", so every plane travels with an offset.
OFFSET = float(2**22)


def _coded(plane: Tensor) -> Tensor:
    coded = torch.where(plane == -INF, 1.0, plane + OFFSET)
    return torch.where(plane == INF, 0.0, coded).contiguous()


def _decoded(coded: Tensor) -> Tensor:
    plane = torch.where(coded == 1.0, -INF, coded - OFFSET)
    return torch.where(coded == 0.0, INF, plane)


@rule("index", "_unsafe_index")
def index(call: Call) -> Seen:
    tensor, indices = call["self"], list(call["indices"])
    reach = call.some("self")
    dims, dim = [], 0
    for item in indices:
        spans = item.ndim if item is not None and item.dtype in (torch.bool, torch.uint8) else 1
        if item is not None:
            dims += range(dim, dim + spans)
        dim += spans
    chosen = [call.reach_of(item) for item in indices if item is not None]
    if any(reach is not None for reach in chosen):
        raise NoRuleError("where it reads depends on the input")
    places = tuple(slice(None) if item is None else item.cpu() for item in indices)

    def pick(planes: Tensor) -> Tensor:
        if all(planes.shape[dim + 1] == 1 for dim in dims) and len(dims) == 1 and len(places) == dims[0] + 1:
            item = places[-1]
            assert isinstance(item, Tensor)
            if item.dtype not in (torch.bool, torch.uint8):
                return planes.squeeze(dims[0] + 1).reshape(
                    *planes.shape[: dims[0] + 1], *(1,) * item.ndim, *planes.shape[dims[0] + 2 :]
                )
        wide = [tensor.shape[dim] if dim in dims else planes.shape[dim + 1] for dim in range(tensor.ndim)]
        return without_step(compact(torch.stack([plane.expand(wide)[places] for plane in planes])))

    return reach.each(pick)


@rule("index_select")
def index_select(call: Call) -> Seen:
    call.only("self")
    dim, places = dim_in(call["dim"], call["self"].ndim) + 1, call["index"].cpu()
    return call.some("self").each(
        lambda planes: planes if planes.shape[dim] == 1 else without_step(planes.index_select(dim, places))
    )


@rule("gather", "take_along_dim")
def gather(call: Call) -> Seen:
    call.only("self")
    dim, places = dim_in(call["dim"], call["self"].ndim), call["index"].cpu()
    shape = call["self"].shape

    def pick(planes: Tensor) -> Tensor:
        return compact(torch.stack([plane.expand(shape).gather(dim, places) for plane in planes]))

    return call.some("self").each(lambda planes: without_step(pick(planes)))


@rule("view_as_real", "view_as_complex")
def view_as(call: Call) -> Seen:
    reach, tensor = call.some("self"), call["self"]
    if call.output.ndim > tensor.ndim:
        return reach.each(lambda planes: planes.unsqueeze(-1))
    last = tensor.ndim - 1
    return reduced(reach, [last], windowed=True).each(lambda planes: planes.squeeze(-1))


# Padding --------------------------------------------------------------------------------------------------


def spatial(call: Call, tensor: Tensor, dims: int) -> list[int]:
    """The last `dims` dims of a tensor."""
    return list(range(tensor.ndim - dims, tensor.ndim))


def owns(dims: Sequence[int], dim: int, rows: bool) -> bool:
    """Whether a dim of the spatial dims is that of the rows (of the columns). With one alone there is no telling."""
    return len(dims) >= 2 and dim == dims[-2 if rows else -1]


def on_axes(reach: Reach, dims: Sequence[int], change: Callable[[Tensor, int, bool], Tensor]) -> Reach:
    """`change(planes, dim, own)` along each of the spatial dims, on both halves."""

    def half(planes: Tensor, rows: bool) -> Tensor:
        for dim in dims:
            planes = change(planes, dim, owns(dims, dim, rows))
        return compact(planes) if sum(length > 1 for length in planes.shape[1:]) > 1 else planes

    return Reach(half(reach.rows, True), half(reach.cols, False))


@rule("constant_pad_nd")
def constant_pad(call: Call) -> Seen:
    tensor, widths = call["self"], call["pad"]
    dims = list(range(tensor.ndim - len(widths) // 2, tensor.ndim))
    around = {tensor.ndim - 1 - i: (widths[2 * i], widths[2 * i + 1]) for i in range(len(dims))}

    def change(planes: Tensor, dim: int, rows: bool) -> Tensor:
        own = dim == tensor.ndim - (2 if rows else 1)
        return padded(planes, dim + 1, tensor.shape[dim], *around[dim], own)

    reach = call.some("self")
    rows, cols = reach.rows, reach.cols
    for dim in dims:
        rows, cols = change(rows, dim, True), change(cols, dim, False)
    return Reach(rows, cols)


@rule("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def mirror_pad(call: Call) -> Seen:
    """The clipped planes see what is mirrored (or repeated); the whole ones continue as in any padding."""
    tensor, widths = call["self"], call["padding"]
    dims = spatial(call, tensor, len(widths) // 2)
    name = call.func._schema.name
    zero = constant_pad(_with_padding(call, widths))
    assert isinstance(zero, Reach)

    def fold(planes: Tensor, dim: int, _own: bool) -> Tensor:
        size = tensor.shape[dim]
        before, after = widths[2 * (tensor.ndim - 1 - dim) :][:2]
        places = torch.arange(-before, size + after)
        if "reflection" in name:
            places = places.abs()
            places = torch.where(places >= size, 2 * (size - 1) - places, places)
        else:
            places = places.clamp(0, size - 1)
        return planes if planes.shape[dim + 1] == 1 else planes.index_select(dim + 1, places)

    folded = on_axes(call.some("self"), dims, fold)

    def mixed(clipped: Tensor, whole: Tensor) -> Tensor:
        clipped, whole = torch.broadcast_tensors(clipped, whole)
        return compact(torch.cat([clipped[:5], whole[5:]]))

    return Reach(mixed(folded.rows, zero.rows), mixed(folded.cols, zero.cols))


def _with_padding(call: Call, widths: Sequence[int]) -> Call:
    return Call(call.func, {**call.arguments, "pad": list(widths)}, call.outputs, call.reach_of)


# Windows --------------------------------------------------------------------------------------------------


def slide(
    reach: Reach, tensor: Tensor, dims: Sequence[int], taps: Sequence[Tensor], factors: Sequence[float | None]
) -> Reach:
    """Windows along the spatial dims of a tensor, each with its taps and its stride (None: irregular)."""

    def change(planes: Tensor, dim: int, own: bool) -> Tensor:
        at = dims.index(dim)
        return windowed(planes, dim + 1, tensor.shape[dim], taps[at], own, factors[at])

    return on_axes(reach, dims, change)


@rule("convolution", "_convolution", "convolution_overrideable", "cudnn_convolution", "mkldnn_convolution")
@rule("conv2d", "conv1d", "conv3d")
def convolution(call: Call) -> Seen:
    tensor, weight = call["input"], call["weight"]
    count = tensor.ndim - 2
    dims = spatial(call, tensor, count)
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
        # Weights computed from the input: (out, in / groups, *kernel), transposed (in, out / groups, *kernel).
        if transposed:
            raise NoRuleError("its weights depend on the input")
        seen = reduced(given, range(1, weight.ndim))
        parts.append(seen.each(lambda planes: planes.transpose(1, 2)))
    bias = call.reach("bias")
    if bias is not None:
        parts.append(bias.each(lambda planes: planes.reshape(PLANES, 1, -1, *(1,) * count)))
    return united(*parts)


def _grouped(planes: Tensor, inputs: int, outputs: int, groups: int) -> Tensor:
    """What the output channels see of the input channels."""
    if planes.shape[2] == 1:
        return planes
    if groups == 1:
        return planes.amin(2, keepdim=True)
    planes = planes.unflatten(2, (groups, inputs // groups)).amin(3)
    return compact(planes.repeat_interleave(outputs // groups, 2))


@rule(
    "max_pool2d_with_indices",
    "max_pool2d",
    "avg_pool2d",
    "max_pool1d_with_indices",
    "max_pool1d",
    "avg_pool1d",
)
@rule("avg_pool3d", "max_pool3d_with_indices", "mkldnn_max_pool2d")
def pool(call: Call) -> list[Seen]:
    tensor = call["self"]
    count = int(call.func._schema.name.split("pool")[1][0])
    dims = spatial(call, tensor, count)
    kernel = listed(call["kernel_size"], count)
    stride = listed(call.get("stride") or kernel, count)
    padding, dilation = listed(call.get("padding", 0), count), listed(call.get("dilation", 1), count)
    outputs = call.output.shape[-count:]
    sizes = tensor.shape[-count:]
    reach = call.some("self")
    if (
        "avg" in call.func._schema.name
        and list(kernel) == list(sizes)
        and prod(outputs) == 1
        and not any(padding)
    ):
        # A mean over whatever there is, as some write global pooling.
        return [reduced(reach, dims)]
    taps = [kernel_taps(*each) for each in zip(outputs, kernel, stride, padding, dilation, strict=True)]
    return first_of(call, slide(reach, tensor, dims, taps, [float(s) for s in stride]))


@rule("_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool1d")
@rule("adaptive_max_pool1d", "mkldnn_adaptive_avg_pool2d")
def adaptive_pool(call: Call) -> list[Seen]:
    tensor = call["self"]
    count = int(call.func._schema.name.split("pool")[1][0])
    dims = spatial(call, tensor, count)
    outputs = call.output.shape[-count:]
    if prod(outputs) == 1:
        return first_of(call, reduced(call.some("self"), dims))
    sizes = tensor.shape[-count:]
    taps = [adaptive_taps(size, output) for size, output in zip(sizes, outputs, strict=True)]
    factors = [
        size / output if size % output == 0 else None for size, output in zip(sizes, outputs, strict=True)
    ]
    return first_of(call, slide(call.some("self"), tensor, dims, taps, factors))


@rule("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d")
@rule("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d")
@rule("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
def upsample(call: Call) -> Seen:
    """Which pixels an output is mixed from is read off the operator: it is given one pixel at a time."""
    name = "input" if "input" in call.arguments else "self"
    tensor = call[name]
    count = tensor.ndim - 2
    dims = spatial(call, tensor, count)
    taps = []
    for dim in dims:
        size, output = tensor.shape[dim], call.output.shape[dim]
        shape = [1] * count
        shape[dim - 2] = size
        pixels = torch.eye(size).reshape(1, size, *shape)
        arguments = {**call.arguments, name: pixels}
        arguments.pop("out", None)
        if "output_size" in arguments:
            shape[dim - 2] = output
            arguments["output_size"] = shape
        for i, scale in enumerate(("scales_h", "scales_w")):
            if scale in arguments and i != dim - 2:
                arguments[scale] = None
        if arguments.get("scale_factors") is not None:
            arguments["scale_factors"] = [
                f if i == dim - 2 else 1.0 for i, f in enumerate(arguments["scale_factors"])
            ]
        weights = call.func(**arguments).reshape(size, output)
        taps.append(_taps_of((weights != 0).T))
    factors = [1 if tensor.shape[d] == call.output.shape[d] else None for d in dims]
    return slide(call.some(name), tensor, dims, taps, factors)


def _taps_of(used: Tensor) -> Tensor:
    """The first and the last input that each output uses: the hull needs no more. `used` is bool (out, in)."""
    size = used.shape[1]
    order = torch.arange(size)
    first = torch.where(used, order, size).amin(1)
    last = torch.where(used, order, -1).amax(1)
    return torch.stack([first, last], 1)


@rule("im2col")
def im2col(call: Call) -> Seen:
    """Padding first, as in every window, then the columns."""
    height, width = listed(call["padding"], 2)
    tensor = call["self"]
    grown = constant_pad(_with_padding(call, [width, width, height, height]))
    assert isinstance(grown, Reach)
    shape = (*tensor.shape[:-2], tensor.shape[-2] + 2 * height, tensor.shape[-1] + 2 * width)
    shape = (1,) * (4 - len(shape)) + shape
    kernel, dilation, stride = (listed(call[name], 2) for name in ("kernel_size", "dilation", "stride"))

    def columns(planes: Tensor) -> Tensor:
        wide = planes.expand(PLANES, *shape).flatten(0, 1)
        result = torch.ops.aten.im2col(_coded(wide), kernel, dilation, [0, 0], stride)
        return without_step(compact(_decoded(result).unflatten(0, (PLANES, shape[0]))))

    result = lifted(grown, 4).each(columns)
    return result if tensor.ndim == 4 else result.each(lambda planes: planes[:, 0])


@rule("col2im")
def col2im(call: Call) -> Seen:
    """Each output pixel is the sum of the columns that overlap in it."""
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
        wide = planes.expand(PLANES, *tensor.shape).reshape(
            PLANES, batch, channels, kernel[0], kernel[1], down, across
        )
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


# Reductions -----------------------------------------------------------------------------------------------


@rule(
    "mean", "sum", "nansum", "prod", "amax", "amin", "logsumexp", "var", "std", "norm", "linalg_vector_norm"
)
@rule(
    "max",
    "min",
    "argmax",
    "argmin",
    "any",
    "all",
    "median",
    "mode",
    "kthvalue",
    "var_mean",
    "std_mean",
    "aminmax",
)
@rule("count_nonzero", "nanmean")
def reduction(call: Call) -> list[Seen]:
    if isinstance(call.arguments.get("other"), Tensor):
        both = pointwise(call)
        return both if isinstance(both, list) else [both]
    name = "self" if "self" in call.arguments else "input"
    tensor = call[name]
    dims = dims_in(call.arguments.get("dim"), tensor.ndim)
    result = reduced(call.some(name), dims)
    if not call.arguments.get("keepdim", False):
        kept = [0] + [dim + 1 for dim in range(tensor.ndim) if dim not in dims]
        result = result.each(lambda planes: planes.reshape([planes.shape[dim] for dim in kept]))
    return [result] * len(call.outputs)


@rule("_softmax", "_log_softmax", "softmax", "_safe_softmax")
def softmax(call: Call) -> Seen:
    own, tensor = call.some("self"), call["self"]
    return united(own, reduced(own, dims_in(call["dim"], tensor.ndim)))


@rule("sort", "topk", "argsort", "msort")
def sort(call: Call) -> list[Seen]:
    """Every place may get any of the values along the dim."""
    tensor = call["self"]
    dim = dim_in(call.get("dim", 0 if "msort" in call.func._schema.name else -1), tensor.ndim)
    return [reduced(call.some("self"), [dim])] * len(call.outputs)


@rule("cumsum", "cumprod", "logcumsumexp")
def cumulative(call: Call) -> Seen:
    dim = dim_in(call["dim"], call["self"].ndim) + 1
    return call.some("self").each(
        lambda planes: planes if planes.shape[dim] == 1 else without_step(planes.cummin(dim).values)
    )


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(call: Call) -> list[Seen]:
    call.only("input")
    own, tensor = call.some("input"), call["input"]
    last = len(call["normalized_shape"])
    dims = range(tensor.ndim - last, tensor.ndim)
    return first_of(call, united(own, reduced(own, dims)))


@rule("native_group_norm", "group_norm")
def group_norm(call: Call) -> list[Seen]:
    call.only("input")
    own, tensor = call.some("input"), call["input"]
    groups = call.get("group") or call["num_groups"]
    batch, channels, *rest = tensor.shape
    apart = (batch, groups, channels // groups, *rest)
    split_up = reshaped(own, tensor.shape, apart)
    shared = reduced(split_up, range(2, len(apart)))

    def spread(planes: Tensor) -> Tensor:
        planes = planes.expand(PLANES, *planes.shape[1:3], channels // groups, *planes.shape[4:])
        return compact(planes.flatten(2, 3))

    return first_of(call, united(own, shared.each(spread)))


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
def fourier(call: Call) -> Seen:
    """Every frequency takes everything along the dims."""
    tensor = call["self"]
    return reduced(call.some("self"), dims_in(call["dim"], tensor.ndim))


# Products -----------------------------------------------------------------------------------------------

# The arguments that are the left factor, the right one, and what is added.
FACTORS = {
    "mm": ("self", "mat2", None),
    "bmm": ("self", "mat2", None),
    "addmm": ("mat1", "mat2", "self"),
    "_addmm_activation": ("mat1", "mat2", "self"),
    "baddbmm": ("batch1", "batch2", "self"),
    "linear": ("input", "weight", "bias"),
}


@rule(*FACTORS)
def product(call: Call) -> Seen:
    """out[..., m, n] = added + the sum of left[..., m, k] * right[..., k, n] over k."""
    name = call.func._schema.name.removeprefix("aten::").removesuffix("_")
    left, right, added = FACTORS[name]
    parts = []
    places: Tensor | None = None
    for factor, contracted in ((left, -1), (right, -1 if right == "weight" else -2)):
        reach = call.reach(factor)
        if reach is None:
            continue
        dims = [call[factor].ndim + contracted]
        found, reach = global_places(reach, dims), reduced(reach, dims)
        if factor == "weight":
            reach, found = reach.each(lambda planes: planes.mT), None if found is None else found.mT
        parts.append(reach)
        if found is not None:
            places = found if places is None else places | found
    # Where one factor is taken from everywhere the other only steers, as in attention: both are gates.
    result = gated(united(*parts), places) if parts else constant(call.output.ndim)
    more = call.reach(added) if added else None
    return result if more is None else united(result, lifted(more, call.output.ndim))


@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention")
@rule("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention")
@rule("_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math")
@rule("scaled_dot_product_attention")
def attention(call: Call) -> list[Seen]:
    """softmax(q k^T + mask) v: each query takes all keys and values. Shapes (..., tokens, features)."""
    if call.get("is_causal", False):
        raise NoRuleError("it is causal")
    bias = call.arguments.get("attn_mask", call.arguments.get("attn_bias"))
    if isinstance(bias, Tensor) and call.reach_of(bias) is not None:
        raise NoRuleError("its mask depends on the input")
    query, key, value = call.some("query"), call.some("key"), call.some("value")
    features, tokens = [call["query"].ndim - 1], [call["value"].ndim - 2]
    parts = reduced(query, features), reduced(reduced(key, features), tokens), reduced(value, tokens)
    return first_of(call, gated(united(*parts), global_places(value, tokens)))
