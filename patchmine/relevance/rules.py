"""The rules that carry relevance back through a network, as a mode of torch functions.

While the mode is active, each function of torch computes what it always does, and its backward pass returns relevance
in place of a gradient. So the network needs no list of its modules: a sum inside `forward` has its rule too. The rules:

- convolutions, and linear layers applied at every position: z+ (Montavon et al. 2017, "Explaining nonlinear
  classification decisions with deep Taylor decomposition"; the `ZPlus` of zennit). Input i gets the share
  (x_i w_ij)+ of output j. The bias gets none. Where no input contributes, as in the empty windows of a depthwise
  convolution, the share follows the weights: a stabilizer SPREAD, which belongs to the inputs, decides there.
- linear layers on vectors, and every function without a rule of its own: LRP-0, x times the transposed Jacobian of
  (R / y), divided equally among the operands (the uniform rule of Achtibat et al. 2024, "AttnLRP"). A bias absorbs.
- activations, normalizations, and everything else that keeps the shape: the identity.
- sums of two branches: in proportion to |a| and |b| (Otsuki et al. 2024, "Layer-wise relevance propagation with
  conservation property for ResNet"), which is bounded where the sum cancels.
- gates and attention weights (sigmoid, softmax): constants (Ali et al. 2022, "XAI for transformers").
- max pooling and everything that only moves values: relevance goes where the value came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from patchmine.errors import ModelError
from patchmine.relevance.positive import Parts, Plus, Pointwise, Vector, divided, stabilized
from patchmine.relevance.products import LEAST, Geometry

Call = Callable[..., Tensor]


class Rules(TorchFunctionMode):
    """A mode in which the backward pass carries relevance. One object serves several threads.

    Without `vectors`, rows are positions too, as inside an attention that flattens its tokens.
    """

    def __init__(self, parts: dict[int, Parts] | None = None, vectors: bool = True) -> None:
        super().__init__()
        self._parts: dict[int, Parts] = {} if parts is None else parts
        self.vectors = vectors

    @property
    def of_positions(self) -> Rules:
        return Rules(self._parts, vectors=False)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named: dict[str, Any] = kwargs or {}
        if func in _MOVES or not _carrying((args, named)):
            return func(*args, **named)
        rule = _RULES.get(func)
        if rule is not None:
            return rule(self, func, args, named)
        return self._by_default(func, args, named)

    def _by_default(self, func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        name = getattr(func, "__name__", "")
        if (name.endswith("_") and not name.endswith("__")) or name == "__setitem__":
            raise ModelError(f"relevance cannot pass the in-place function {name!r} of this network")
        with torch.no_grad():
            found = func(*args, **named)
        if not isinstance(found, Tensor):  # a size, or parts of a tensor
            return func(*args, **named)
        return _shared(func, args, named) if found.is_floating_point() else found

    def parts(self, weight: Tensor) -> Parts:
        """The parts of a weight; those of a parameter are remembered."""
        kept = self._parts.get(id(weight))
        if kept is None:
            kept = Parts(weight)
            if isinstance(weight, nn.Parameter):
                self._parts[id(weight)] = kept
        return kept


class _Same(Function):
    """The identity: the output's relevance is the input's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call) -> Any:  # noqa: ARG004
        found = call(x)
        return found.view_as(found) if found is x else found

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:  # noqa: ARG004
        return relevance[0], None


class _Sum(Function):
    """A sum or difference of two branches of any shapes that broadcast."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, call: Call) -> Any:
        ctx.save_for_backward(a, b)
        return call(a, b)

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        a, b = ctx.saved_tensors
        share = a.abs()
        share = share.div(b.abs().add(share).add_(LEAST)).mul_(relevance[0])
        return share.sum_to_size(a.shape), (relevance[0] - share).sum_to_size(b.shape), None


class _Zero(Function):
    """LRP-0 of any function, shared equally among its operands."""

    @staticmethod
    def forward(ctx: Any, call: Call, *operands: Tensor) -> Any:
        ctx.call = call
        ctx.save_for_backward(*operands)
        return call(*operands)

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        with torch.enable_grad():
            leaves = [operand.detach().requires_grad_() for operand in ctx.saved_tensors]
            found = ctx.call(*leaves)
        share = divided(relevance[0], found.detach()) / len(leaves)
        slopes = torch.autograd.grad(found, leaves, share)
        return None, *(slope * leaf.detach() for slope, leaf in zip(slopes, leaves, strict=True))


class _Attended(Function):
    """LRP-0 of attention without a mask, for the values (images, heads, tokens, channels), its output `stabilized`.

    The weights are computed again, an image at a time: those of a whole batch would fill the memory.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Any:
        found = call(value)
        ctx.scale = query.shape[-1] ** -0.5 if scale is None else scale
        ctx.save_for_backward(query, key, value, found)
        return found

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        query, key, value, found = ctx.saved_tensors
        share = divided(relevance[0], stabilized(found))
        given = torch.empty_like(value)
        for image in range(len(value)):
            scores = (query[image] * ctx.scale) @ key[image].transpose(-2, -1)
            torch.matmul(scores.softmax(-1).transpose(-2, -1), share[image], out=given[image])
        return None, None, None, given.mul_(value), None


def _carrying(words: Any) -> bool:
    """Whether relevance will come back to one of the words, or to a tensor in a list of them."""
    if isinstance(words, Tensor):
        return words.requires_grad
    if isinstance(words, dict):
        return any(map(_carrying, words.values()))
    return isinstance(words, (tuple, list)) and any(map(_carrying, words))


def _shared(func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    words, shape = tree_flatten((args, dict(named)))
    places = [place for place, word in enumerate(words) if isinstance(word, Tensor) and word.requires_grad]

    def call(*operands: Tensor) -> Tensor:
        filled = list(words)
        for place, operand in zip(places, operands, strict=True):
            filled[place] = operand
        values, options = tree_unflatten(filled, shape)
        found: Tensor = func(*values, **options)
        return found

    return _Zero.apply(call, *(words[place] for place in places))


def _plus(rules: Rules, func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    x, weight, bias, rest, options = _operands(args, named)
    vector = func is F.linear and x.ndim == 2 and rules.vectors
    if vector and x.requires_grad and not weight.requires_grad and (bias is None or not bias.requires_grad):
        return Vector.apply(x, weight, bias)
    if vector or not x.requires_grad:
        return _shared(func, args, named)
    geometry = None if func is F.linear else _geometry(func, x, rest, options)
    if func is F.linear or (geometry == Geometry() and weight[0, 0].numel() == 1):
        return Pointwise.apply(x, rules.parts(weight), bias, -1 if func is F.linear else 1)

    def linear(inputs: Tensor, weights: Tensor) -> Tensor:
        found: Tensor = func(inputs, weights, None, *rest, **options)
        return found

    def whole(inputs: Tensor) -> Tensor:
        found: Tensor = func(inputs, weight, bias, *rest, **options)
        return found

    return Plus.apply(x, linear, rules.parts(weight), whole, geometry)


def _geometry(func: Any, x: Tensor, rest: Sequence[Any], options: Mapping[str, Any]) -> Geometry | None:
    """That of a convolution of two dimensions; None of another, and of one whose padding is a word."""
    given = dict(zip(("stride", "padding", "dilation", "groups"), rest, strict=False), **options)
    if func is not torch.conv2d or x.ndim != 4 or isinstance(given.get("padding"), str):
        return None
    pairs = {name: _pair(word) for name, word in given.items() if name != "groups"}
    return Geometry(**pairs, groups=given.get("groups", 1))


def _pair(word: Any) -> tuple[int, int]:
    """A setting of both directions."""
    both = (word,) if isinstance(word, int) else tuple(word)
    return both[0], both[-1]


def _operands(args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor | None, Any, Any]:
    """Input, weight, bias, and the other words of a call of a convolution or linear layer."""
    options = dict(named)
    given = list(args[:3])
    given += [options.pop(name, None) for name in ("input", "weight", "bias")[len(given) :]]
    return given[0], given[1], given[2], args[3:], options


def _same(_rules: Rules, func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    options = {name: value for name, value in named.items() if name != "inplace"}
    x, *rest = args if args else (options.pop("input"),)
    out_of_place = _OUT_OF_PLACE.get(func, func)
    return _Same.apply(x, lambda inputs: out_of_place(inputs, *rest, **options))


def _sum(_rules: Rules, func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    if len(args) != 2 or named:
        return _shared(func, args, named)
    a, b = args
    call = _OUT_OF_PLACE.get(func, func)
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.requires_grad and b.requires_grad:
        return _Sum.apply(a, b, call)
    return _one_of_two(call, a, b)


def _product(_rules: Rules, func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    if len(args) == 2 and not named:
        a, b = args
        call = _OUT_OF_PLACE.get(func, func)
        if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.requires_grad and b.requires_grad):
            return _one_of_two(call, a, b)
        return _shared(call, args, named)
    return _shared(func, args, named)


def _one_of_two(call: Call, a: Any, b: Any) -> Any:
    """The identity where the other operand is a constant that does not change the shape."""
    mine, other = (a, b) if isinstance(a, Tensor) and a.requires_grad else (b, a)
    if isinstance(other, Tensor) and torch.broadcast_shapes(mine.shape, other.shape) != mine.shape:
        return _shared(call, (a, b), {})
    if mine is a:
        return _Same.apply(a, lambda x: call(x, b))
    return _Same.apply(b, lambda x: call(a, x))


def _gate(_rules: Rules, func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    with torch.no_grad():
        return func(*args, **named)


def _attention(_rules: Rules, func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Of query, key and value only the value carries relevance."""
    options = dict(named)
    three = list(args[:3])
    three += [options.pop(name) for name in ("query", "key", "value")[len(three) :]]
    query, key, value = three
    rest = args[3:]

    def call(values: Tensor) -> Any:
        return func(query.detach(), key.detach(), values, *rest, **options)

    words = {**dict(zip(("attn_mask", "dropout_p", "is_causal"), rest, strict=False)), **options}
    plain = words.get("attn_mask") is None and not words.get("is_causal") and not words.get("enable_gqa")
    if not plain or value.ndim != 4 or query.shape[:2] != value.shape[:2]:
        return _Zero.apply(call, value)
    return _Attended.apply(call, query.detach(), key.detach(), value, words.get("scale"))


def _step_by_step(rules: Rules, func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Attention that is written in Python: each function that it calls has its rule.

    It runs without torch's check for modes, which would bring it back here.
    """
    names = {**func.__globals__, "has_torch_function": lambda _words: False}
    bare = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    bare.__kwdefaults__ = func.__kwdefaults__
    with rules.of_positions:
        return bare(*args, **named)


_ACTIVATIONS = (
    *(F.relu, F.relu6, F.hardtanh, F.leaky_relu, F.prelu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus),
    *(F.hardswish, F.tanhshrink, F.softsign, F.threshold, F.logsigmoid, F.tanh, torch.tanh, Tensor.tanh),
    *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, torch.selu, torch.celu, torch.clamp, Tensor.clamp),
    *(F.relu_, F.hardtanh_, F.leaky_relu_, F.elu_, Tensor.clamp_, torch.clamp_, Tensor.clip, Tensor.clamp_min),
)
_NORMALIZATIONS = (
    *(F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.local_response_norm, F.normalize),
    *([F.rms_norm] if hasattr(F, "rms_norm") else []),
)
_SUMS = (
    *(torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__),
    *(torch.sub, Tensor.sub, Tensor.sub_, Tensor.__sub__, Tensor.__isub__),
)
_PRODUCTS = (
    *(torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__),
    *(torch.div, Tensor.div, Tensor.div_, Tensor.__truediv__, Tensor.__itruediv__),
)
_GATES = (
    *(torch.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, torch.sigmoid_, F.sigmoid, F.hardsigmoid),
    *(F.softmax, torch.softmax, Tensor.softmax),
)
_CONVOLUTIONS = (
    *(torch.conv1d, torch.conv2d, torch.conv3d, F.linear),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
)
_OUT_OF_PLACE: dict[Any, Call] = {
    Tensor.add_: torch.add,
    Tensor.__iadd__: torch.add,
    Tensor.sub_: torch.sub,
    Tensor.__isub__: torch.sub,
    Tensor.mul_: torch.mul,
    Tensor.__imul__: torch.mul,
    Tensor.div_: torch.div,
    Tensor.__itruediv__: torch.div,
    torch.relu_: torch.relu,
    Tensor.relu_: torch.relu,
    F.relu_: torch.relu,
    F.hardtanh_: F.hardtanh,
    F.leaky_relu_: F.leaky_relu,
    F.elu_: F.elu,
    Tensor.clamp_: torch.clamp,
    torch.clamp_: torch.clamp,
}
"""What computes the same as a function in place, whose operand another branch may still need."""

_RULES: dict[Any, Callable[[Rules, Any, tuple[Any, ...], Mapping[str, Any]], Any]] = {
    **dict.fromkeys(_CONVOLUTIONS, _plus),
    **dict.fromkeys((*_ACTIVATIONS, *_NORMALIZATIONS), _same),
    **dict.fromkeys(_SUMS, _sum),
    **dict.fromkeys(_PRODUCTS, _product),
    **dict.fromkeys(_GATES, _gate),
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _step_by_step,
}

_MOVES = frozenset(
    [
        *(torch.reshape, torch.flatten, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze, torch.cat),
        *(torch.stack, torch.concat, torch.roll, torch.flip, torch.movedim, torch.narrow, torch.clone, torch.t),
        *(torch.chunk, torch.split, torch.unbind, torch.tensor_split, torch.select, torch.index_select, torch.gather),
        *(torch.channel_shuffle, torch.pixel_shuffle, torch.pixel_unshuffle, torch.tile, torch.swapaxes),
        *(Tensor.reshape, Tensor.view, Tensor.flatten, Tensor.unflatten, Tensor.permute, Tensor.transpose),
        *(Tensor.squeeze, Tensor.unsqueeze, Tensor.expand, Tensor.expand_as, Tensor.contiguous, Tensor.clone),
        *(Tensor.chunk, Tensor.split, Tensor.unbind, Tensor.tensor_split, Tensor.select, Tensor.narrow, Tensor.roll),
        *(Tensor.__getitem__, Tensor.view_as, Tensor.reshape_as, Tensor.repeat, Tensor.to, Tensor.float),
        *(Tensor.type_as, Tensor.flip, Tensor.movedim, Tensor.swapaxes, Tensor.index_select, Tensor.gather),
        *(Tensor.T.__get__, Tensor.mT.__get__, Tensor.detach, Tensor.requires_grad_, Tensor.t),  # type: ignore[attr-defined]
        *(F.pad, F.dropout, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, F.pixel_shuffle),
        *(F.max_pool1d, F.max_pool2d, F.max_pool3d, F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.unfold),
        *(torch.max_pool2d, torch.max_pool1d, torch.max_pool3d, torch.amax, Tensor.amax, torch.dropout),
    ]
)
"""What only moves values: torch's own gradient carries relevance with them."""
