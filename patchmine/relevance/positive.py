"""The rule z+ of functions that are linear in their input and in their weight: convolutions and linear layers.

Input i gets the share (x_i w_ij)+ of the relevance of output j, and the bias none (Montavon et al. 2017, "Explaining
nonlinear classification decisions with deep Taylor decomposition"; the `ZPlus` of zennit). A stabilizer SPREAD, which
belongs to the inputs, decides where no input contributes.

A product is what costs. With inputs that are not negative, the rule takes two besides the network's own: the positive
contributions, and the way back. With inputs of both signs either takes two, as each sign has weights of its own. The
sum of the positive contributions is (|x| |w| + x w) / 2 too, of which the network computed x w; but where an output has
next to none, that difference is nothing but rounding errors, and the relevance divided by it has no bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

SPREAD = 1e-6
"""Of the image's largest input, added to each input, and of each weight, so that a window without a contribution has
shares."""

_LEAST = 1e-30  # keeps 0 / 0 from being NaN
_DARK = 1e-12  # the same as SPREAD where all inputs are 0


class Parts:
    """What the rule needs of a weight (outputs, inputs, ...), each made when it is first needed.

    It holds the weight, so that no other takes its identity. The positive and the negative part have SPREAD of the
    whole.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight, self._bare = weight, weight.detach()

    @cached_property
    def positive(self) -> Tensor:
        return self._bare.clamp(min=0) + self._bare.abs() * SPREAD

    @cached_property
    def negative(self) -> Tensor:
        return self._bare.clamp(max=0) - self._bare.abs() * SPREAD

    @cached_property
    def joined(self) -> Tensor:
        """Both, side by side along the inputs: one product then serves inputs of both signs."""
        return torch.cat([self.positive, self.negative], 1)


class Plus(Function):
    """z+ for any `linear` function of input and weight; `whole` computes the network's own output.

    `dim` is the dimension of the input's channels if every output sees all of them, else None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        linear: Callable[[Tensor, Tensor], Tensor],
        parts: Parts,
        whole: Callable[[Tensor], Tensor],
        dim: int | None,
    ) -> Any:
        ctx.linear, ctx.parts, ctx.dim = linear, parts, dim
        ctx.save_for_backward(x)
        return whole(x)

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        (x,) = ctx.saved_tensors
        parts: Parts = ctx.parts
        spread, signed = _spread(x)
        if not signed:
            return _shared(ctx.linear, [(x + spread, parts.positive)], relevance[0])[0], None, None, None, None
        halves = [x.clamp(min=0).add_(spread), x.clamp(max=0).sub_(spread)]
        if ctx.dim is None:
            one, other = _shared(ctx.linear, [(halves[0], parts.positive), (halves[1], parts.negative)], relevance[0])
        else:
            both = _shared(ctx.linear, [(torch.cat(halves, ctx.dim), parts.joined)], relevance[0])[0]
            one, other = both.chunk(2, ctx.dim)
        return one + other, None, None, None, None


def _shared(
    linear: Callable[[Tensor, Tensor], Tensor], pairs: list[tuple[Tensor, Tensor]], relevance: Tensor
) -> list[Tensor]:
    """The relevance of inputs, each with the weight that makes all its contributions positive."""
    with torch.enable_grad():
        leaves = [part.requires_grad_() for part, _ in pairs]
        products = [linear(leaf, weight) for leaf, (_, weight) in zip(leaves, pairs, strict=True)]
        total = products[0] if len(products) == 1 else products[0] + products[1]
    share = total.detach().add_(_LEAST)
    slopes = torch.autograd.grad(total, leaves, torch.div(relevance, share, out=share))
    with torch.no_grad():
        return [slope.mul_(leaf) for slope, leaf in zip(slopes, leaves, strict=True)]


class Pointwise(Function):
    """z+ for a linear layer that is applied at every position, such as a convolution of one pixel.

    `dim` is the dimension of the channels. The weight may have dimensions of size 1 after (outputs, inputs).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Parts, bias: Tensor | None, dim: int) -> Any:
        ctx.parts, ctx.dim = parts, dim
        ctx.spread, ctx.signed = _spread(x)
        found = _product(_rows(x, dim), parts.weight.detach(), bias)
        found = found.view(*x.movedim(dim, -1).shape[:-1], -1).movedim(-1, dim)
        ctx.save_for_backward(x)
        return found

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        (x,) = ctx.saved_tensors
        parts, dim = ctx.parts, ctx.dim
        given, inputs = _rows(relevance[0], dim), _rows(x, dim)
        spread = ctx.spread.expand(*x.movedim(dim, -1).shape[:-1], 1).reshape(-1, 1)
        few = None
        if dim == -1:  # a head that reads the class token alone sends nothing to the others
            few = given.any(1).nonzero()[:, 0]
            few = few if 2 * len(few) < len(given) else None
        if few is not None:
            given, inputs, spread = given[few], inputs[few], spread[few]
        if ctx.signed:
            halves = [inputs.clamp(min=0).add_(spread), inputs.clamp(max=0).sub_(spread)]
            positive, negative = _of_one_sign(torch.cat(halves, 1), parts.joined, given).chunk(2, 1)
            found = positive + negative
        else:
            found = _of_one_sign(inputs + spread, parts.positive, given)
        if few is not None:
            found = found.new_zeros(x.numel() // x.shape[dim], x.shape[dim]).index_copy_(0, few, found)
        return found.view(x.movedim(dim, -1).shape).movedim(-1, dim), None, None, None


def _of_one_sign(inputs: Tensor, weight: Tensor, relevance: Tensor) -> Tensor:
    """The relevance of inputs (rows, inputs) all of whose contributions are positive."""
    share = _product(inputs, weight, weight.new_full(weight.shape[:1], _LEAST))
    return _product(torch.div(relevance, share, out=share), _transposed(weight)).mul_(inputs)


def _transposed(weight: Tensor) -> Tensor:
    return weight.flatten(1).t()


def _rows(x: Tensor, dim: int) -> Tensor:
    """A row for each position: (positions, channels)."""
    return x.movedim(dim, -1).reshape(-1, x.shape[dim])


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The linear layer of rows (n, inputs): (n, outputs), contiguous.

    As a convolution of one pixel by oneDNN, which is a tenth faster on a CPU than torch's choices for either.
    """
    weight = weight.flatten(1)
    if (
        rows.device.type != "cpu"
        or rows.dtype != torch.float32
        or not rows.numel()
        or not torch.backends.mkldnn.enabled
    ):
        return F.linear(rows, weight, bias)
    picture = rows.contiguous().view(1, 1, *rows.shape).permute(0, 3, 1, 2)
    found = torch.mkldnn_convolution(picture, weight[:, :, None, None], bias, (0, 0), (1, 1), (1, 1), 1)
    return found.permute(0, 2, 3, 1).reshape(len(rows), -1)


def _spread(x: Tensor) -> tuple[Tensor, bool]:
    """What is added to the magnitude of each input, (images, 1, ...), and whether some input is negative."""
    flat = (x if x.is_contiguous() else x.movedim(1, -1)).flatten(1)
    if not flat.numel():
        return x.new_zeros(()), False
    # Image by image: along a dimension, torch's is eight times as slow on a CPU.
    least, most = (torch.stack(bounds) for bounds in zip(*(torch.aminmax(image) for image in flat), strict=True))
    spread = torch.maximum(most, -least).mul_(SPREAD).add_(_DARK)
    return spread.view(-1, *[1] * (x.ndim - 1)), bool((least < 0).any())
