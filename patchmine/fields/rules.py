"""Rules for operators that combine elements: elementwise, by reduction, or by product.

Every operator needs a rule: here, in `moves` (views and moves), or in `windows` (padding, convolutions, pools). The
outputs of an operator without a rule become Unknown, so nothing is ever guessed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchmine.fields import moves, windows
from patchmine.fields.calls import (
    RULES,
    Call,
    NoRuleError,
    Rule,
    Seen,
    constant,
    dim_in,
    dims_in,
    plain_name,
    rule,
    tensors_in,
)
from patchmine.fields.reach import (
    PLANES,
    Reach,
    compact,
    gated,
    global_places,
    lifted,
    reduced,
    reshaped,
    united,
    without_step,
)

# Importing these modules registers their rules.
__all__ = ["moves", "rule_for", "windows"]


def rule_for(func: torch._ops.OpOverload) -> Rule | None:
    """The rule for an operator, or None. In-place and out= forms share the rule of the plain operator."""
    name = plain_name(func)
    found = RULES.get(f"{name}.{func._overloadname}") or RULES.get(name)
    if found is None and (torch.Tag.pointwise in func.tags or name in POINTWISE):
        return pointwise
    return found


# Element by element -------------------------------------------------------------------------------------

# Operators that torch does not tag as pointwise, or not in every version.
POINTWISE = frozenset(
    [
        *("_prelu_kernel", "prelu", "relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "mish"),
        *("elu", "celu", "selu", "leaky_relu", "softplus", "threshold", "sigmoid", "log_sigmoid", "tanh"),
        *("floor_divide", "copysign", "rsub", "_to_copy", "clone", "contiguous", "alias", "detach", "lift_fresh"),
        *("lift", "positive", "dropout", "native_dropout", "_conj", "conj_physical", "resolve_conj"),
        *("resolve_neg", "real", "imag", "log_sigmoid_forward", "rrelu_with_noise", "complex", "polar"),
    ]
)


def pointwise(call: Call) -> list[Seen]:
    inputs = [value for name, value in call.arguments.items() if name != "out"]
    reaches = [call.reach_of(tensor) for value in inputs for tensor in tensors_in(value)]
    ndim = call.output.ndim
    seen = [lifted(reach, ndim) for reach in reaches if reach is not None]
    return [united(*seen) if seen else None] * len(call.outputs)


@rule("where.self where.ScalarOther where.ScalarSelf where.Scalar masked_fill")
def choice(call: Call) -> Seen:
    """A constant condition selects; a condition that depends on the input counts as one more input."""
    filling = "mask" in call.arguments
    condition = call["mask" if filling else "condition"]
    if call.reach_of(condition) is not None:
        return pointwise(call)[0]
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


@rule("fill zero zeros_like ones_like full_like empty_like rand_like randn_like randint_like normal uniform")
@rule("new_zeros new_ones new_full new_empty new_empty_strided")
def filled(call: Call) -> Seen:
    call.only("self", "input")
    return None


@rule("glu")
def gated_linear(call: Call) -> Seen:
    """The first half of a dim, multiplied by a gate from the second half."""
    dim = dim_in(call.get("dim", -1), call["self"].ndim) + 1

    def halves(planes: Tensor) -> Tensor:
        if planes.shape[dim] == 1:
            return planes
        first, second = planes.chunk(2, dim)
        return torch.minimum(first, second)

    return call.some("self").each(halves)


@rule("native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training")
@rule("_batch_norm_no_update _batch_norm_with_update cudnn_batch_norm miopen_batch_norm")
def batch_norm(call: Call) -> list[Seen]:
    """Elementwise in eval mode; an instance norm arrives here as a batch norm in training mode."""
    call.only("input")
    own = call.some("input")
    if call.get("training", call.name in ("_native_batch_norm_legit", "_batch_norm_with_update")):
        own = united(own, reduced(own, [0, *range(2, call["input"].ndim)]))
    return call.first(own)


# Reductions ---------------------------------------------------------------------------------------------


@rule("mean sum nansum nanmean prod amax amin logsumexp var std var_mean std_mean norm linalg_vector_norm")
@rule("max min aminmax argmax argmin any all median nanmedian mode kthvalue count_nonzero")
def reduction(call: Call) -> list[Seen]:
    if isinstance(call.arguments.get("other"), Tensor):
        return pointwise(call)
    name = "self" if "self" in call.arguments else "input"
    tensor = call[name]
    dims = dims_in(call.arguments.get("dim"), tensor.ndim)
    result = reduced(call.some(name), dims)
    if not call.arguments.get("keepdim", False):
        kept = [0] + [dim + 1 for dim in range(tensor.ndim) if dim not in dims]
        result = result.each(lambda planes: planes.reshape([planes.shape[dim] for dim in kept]))
    return [result] * len(call.outputs)


@rule("_softmax _log_softmax _safe_softmax")
def softmax(call: Call) -> Seen:
    own, tensor = call.some("self"), call["self"]
    return united(own, reduced(own, dims_in(call["dim"], tensor.ndim)))


@rule("sort topk argsort msort")
def sort(call: Call) -> list[Seen]:
    """Every place may receive any of the values along the dim."""
    tensor = call["self"]
    dim = dim_in(call.get("dim", 0 if call.name == "msort" else -1), tensor.ndim)
    return [reduced(call.some("self"), [dim])] * len(call.outputs)


@rule("cumsum cumprod logcumsumexp")
def cumulative(call: Call) -> Seen:
    dim = dim_in(call["dim"], call["self"].ndim) + 1
    return call.some("self").each(
        lambda planes: planes if planes.shape[dim] == 1 else without_step(planes.cummin(dim).values)
    )


@rule("native_layer_norm _fused_rms_norm rms_norm")
def layer_norm(call: Call) -> list[Seen]:
    call.only("input")
    own, tensor = call.some("input"), call["input"]
    last = len(call["normalized_shape"])
    dims = range(tensor.ndim - last, tensor.ndim)
    return call.first(united(own, reduced(own, dims)))


@rule("native_group_norm")
def group_norm(call: Call) -> list[Seen]:
    call.only("input")
    own, tensor = call.some("input"), call["input"]
    groups = call["group"]
    batch, channels, *rest = tensor.shape
    apart = (batch, groups, channels // groups, *rest)
    split_up = reshaped(own, tensor.shape, apart)
    shared = reduced(split_up, range(2, len(apart)))

    def spread(planes: Tensor) -> Tensor:
        planes = planes.expand(PLANES, *planes.shape[1:3], channels // groups, *planes.shape[4:])
        return compact(planes.flatten(2, 3))

    return call.first(united(own, shared.each(spread)))


@rule("_fft_r2c _fft_c2r _fft_c2c")
def fourier(call: Call) -> Seen:
    """Every frequency depends on everything along the dims."""
    tensor = call["self"]
    return reduced(call.some("self"), dims_in(call["dim"], tensor.ndim))


# Products -----------------------------------------------------------------------------------------------

# The names of the left factor, the right factor, and the addend.
FACTORS = {
    "mm": ("self", "mat2", None),
    "bmm": ("self", "mat2", None),
    "addmm": ("mat1", "mat2", "self"),
    "_addmm_activation": ("mat1", "mat2", "self"),
    "baddbmm": ("batch1", "batch2", "self"),
    "linear": ("input", "weight", "bias"),
}


@rule(" ".join(FACTORS))
def product(call: Call) -> Seen:
    """out[..., m, n] = added + the sum of left[..., m, k] * right[..., k, n] over k."""
    left, right, added = FACTORS[call.name]
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
    # Where one factor comes from everywhere, the other only weights it, as in attention: both are gates.
    result = gated(united(*parts), places) if parts else constant(call.output.ndim)
    more = call.reach(added) if added else None
    return result if more is None else united(result, lifted(more, call.output.ndim))


@rule("_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention")
@rule("_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention")
@rule("_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_attention_math")
def attention(call: Call) -> list[Seen]:
    """softmax(q k^T + mask) v: each query depends on all keys and values. Shapes (..., tokens, features)."""
    if call.get("is_causal", False):
        raise NoRuleError("it is causal")
    bias = call.arguments.get("attn_mask", call.arguments.get("attn_bias"))
    if isinstance(bias, Tensor) and call.reach_of(bias) is not None:
        raise NoRuleError("its mask depends on the input")
    query, key, value = call.some("query"), call.some("key"), call.some("value")
    features, tokens = [call["query"].ndim - 1], [call["value"].ndim - 2]
    parts = reduced(query, features), reduced(reduced(key, features), tokens), reduced(value, tokens)
    return call.first(gated(united(*parts), global_places(value, tokens)))
