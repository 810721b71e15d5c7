"""The rule z+ of functions that are linear in their input and in their weight: convolutions and linear layers.

Input i gets the share (x_i w_ij)+ of the relevance of output j, and the bias none (Montavon et al. 2017, "Explaining
nonlinear classification decisions with deep Taylor decomposition"; the `ZPlus` of zennit). A stabilizer SPREAD, which
belongs to the inputs, decides where no input contributes.

A product is what costs. With inputs that are not negative, the rule takes two besides the network's own: the positive
contributions, and the way back. With inputs of both signs the way back takes two, as each sign has weights of its own;
but the sum of the positive contributions is (|x| |w| + x w) / 2, of which the network computed x w.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from patchmine.relevance.products import LEAST, Convolution, Geometry, Matrix

SPREAD = 1e-6
"""Of the image's largest input, added to each input, and of each weight, so that a window without a contribution has
shares."""

_DARK = 1e-12  # the same as SPREAD where all inputs are 0

_WIDE = 64
"""From as many inputs on, |x| |w| + x w takes the place of the positive contributions: one product less."""

_CANCELED = 1e-4
"""Where less than this share of |x| |w| is left of that sum, float32 no longer tells it from rounding; the positive
contributions at such a position are computed as such."""


class Parts:
    """What the rule needs of a weight (outputs, inputs, ...), each made when it is first needed.

    It holds the weight, so that no other takes its identity. The positive and the negative part have SPREAD of the
    whole.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.bare = weight, weight.detach()
        self._products: dict[Hashable, Matrix | Convolution] = {}
        self._narrow: tuple[int, int, Parts] | None = None

    @property
    def positive(self) -> Tensor:
        return self.bare.clamp(min=0) + self.bare.abs() * SPREAD

    @property
    def negative(self) -> Tensor:
        return self.bare.clamp(max=0) - self.bare.abs() * SPREAD

    @property
    def joined(self) -> Tensor:
        """Both, side by side along the inputs: one product then serves inputs of both signs."""
        return torch.cat([self.positive, self.negative], 1)

    @property
    def magnitude(self) -> Tensor:
        """The positive part less the negative one."""
        return self.positive - self.negative

    @property
    def returning(self) -> Tensor:
        """The weight and its magnitude, side by side along the inputs."""
        return torch.cat([self.bare, self.magnitude], 1)

    def matrix(self, name: str, back: bool = False, packed: bool = True) -> Matrix:
        """A part as a product of rows, or the way back through it."""
        found = self._products.get((name, back, packed))
        if found is None:
            part = getattr(self, name).flatten(1)
            found = self._products[name, back, packed] = Matrix(part.t() if back else part, packed)
        assert isinstance(found, Matrix)
        return found

    def convolution(self, name: str, geometry: Geometry) -> Convolution:
        """A part as a convolution."""
        found = self._products.get((name, geometry))
        if found is None:
            found = self._products[name, geometry] = Convolution(getattr(self, name), geometry)
        assert isinstance(found, Convolution)
        return found

    def of_outputs(self, start: int, stop: int) -> Parts:
        """Those of some outputs alone. The last are remembered."""
        narrow = self._narrow
        if narrow is None or narrow[:2] != (start, stop):
            narrow = self._narrow = (start, stop, Parts(self.bare[start:stop]))
        return narrow[2]


class Plus(Function):
    """z+ for any `linear` function of input and weight; `whole` computes the network's own output.

    With a `geometry`, the function is a convolution of two dimensions.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        linear: Callable[[Tensor, Tensor], Tensor],
        parts: Parts,
        whole: Callable[[Tensor], Tensor],
        geometry: Geometry | None,
    ) -> Any:
        ctx.linear, ctx.parts, ctx.geometry = linear, parts, geometry
        ctx.save_for_backward(x)
        return whole(x)

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        (x,) = ctx.saved_tensors
        spread, signed = _spread(x)
        if not signed:
            inputs = [(x + spread, "positive")]
        else:
            inputs = [(x.clamp(min=0).add_(spread), "positive"), (x.clamp(max=0).sub_(spread), "negative")]
            if ctx.geometry is not None and ctx.geometry.groups == 1:
                inputs = [(torch.cat([half for half, _ in inputs], 1), "joined")]
        products = [_through(ctx.linear, ctx.parts, name, half, ctx.geometry) for half, name in inputs]
        share = products[0][0]
        for other, _ in products[1:]:
            share.add_(other)
        torch.div(relevance[0], share, out=share)
        found = [back(share).mul_(half) for (_, back), (half, _) in zip(products, inputs, strict=True)]
        if signed and len(found) == 1:
            found = list(found[0].chunk(2, 1))
        return found[0] if len(found) == 1 else found[0] + found[1], None, None, None, None


def _through(
    linear: Callable[[Tensor, Tensor], Tensor], parts: Parts, name: str, inputs: Tensor, geometry: Geometry | None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The output of a part of the weight, and the way back through it."""
    if geometry is not None:
        convolution = parts.convolution(name, geometry)
        return convolution.positive(inputs), lambda given: convolution.back(given, inputs)
    weight: Tensor = getattr(parts, name)
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        found = linear(leaf, weight)
    return found.detach() + LEAST, lambda given: torch.autograd.grad(found, leaf, given)[0]


class Vector(Function):
    """LRP-0 of a linear layer on vectors (images, inputs)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        found = F.linear(x, weight, bias)
        ctx.save_for_backward(x, weight, found)
        return found.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        x, weight, found = ctx.saved_tensors
        return (divided(relevance[0], found) @ weight).mul_(x), None, None


def stabilized(by: Tensor) -> Tensor:
    """A divisor (images, ...) moved away from 0 by SPREAD of the image's largest.

    z+ gives an input of nearly 0 the relevance of SPREAD. Divided by that input, it would be what rounding makes of it.
    """
    most = by.abs().flatten(1).amax(1).view(-1, *[1] * (by.ndim - 1))
    return by + torch.copysign(most * SPREAD, by)


def divided(relevance: Tensor, by: Tensor) -> Tensor:
    """relevance / by, and 0 where `by` is 0."""
    return torch.where(by == 0, 0, relevance / by)


class Pointwise(Function):
    """z+ for a linear layer that is applied at every position, such as a convolution of one pixel.

    `dim` is the dimension of the channels. The weight may have dimensions of size 1 after (outputs, inputs).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Parts, bias: Tensor | None, dim: int) -> Any:
        ctx.parts, ctx.dim = parts, dim
        ctx.spread, ctx.signed = _spread(x)
        wide = ctx.signed and x.shape[dim] >= _WIDE
        found = parts.matrix("bare")(_rows(x, dim), None if wide else bias)
        found = found.view(*x.movedim(dim, -1).shape[:-1], -1).movedim(-1, dim)
        ctx.save_for_backward(x, *([found] if wide else []))
        return found if bias is None or not wide else found + bias.view(-1, *[1] * ((x.ndim - 1 - dim) % x.ndim))

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        x, *output = ctx.saved_tensors
        parts, dim = ctx.parts, ctx.dim
        given, inputs, *rest = (_rows(part, dim) for part in (relevance[0], x, *output))
        spread = ctx.spread.view(-1, 1)
        if len(x) > 1:
            spread = spread.repeat_interleave(len(inputs) // len(x), 0)
        few = None
        if dim == -1:
            few, part = _asked(given)
            if few is not None:
                spread = spread[few] if len(x) > 1 else spread
                given, inputs, *rest = (one[few] for one in (given, inputs, *rest))
            if part is not None:
                parts = parts.of_outputs(part.start, part.stop)
                given, *rest = (one[:, part] for one in (given, *rest))
        if rest:
            found = _of_wide(inputs, spread, parts, given, rest[0])
        elif ctx.signed:
            found = _of_both_signs(inputs, spread, parts, given)
        else:
            found = _of_one_sign(inputs + spread, parts, "positive", given)
        if few is not None:
            found = found.new_zeros(x.numel() // x.shape[dim], x.shape[dim]).index_copy_(0, few, found)
        return found.view(x.movedim(dim, -1).shape).movedim(-1, dim), None, None, None


def _asked(given: Tensor) -> tuple[Tensor | None, slice | None]:
    """The rows and the columns outside which no relevance (rows, outputs) is given, if they are less than half.

    A head that reads the class token alone asks only its row; of queries, keys and values only the values are asked.
    One column, and one row, tell whether it is worth to look at all.
    """
    few = part = None
    if 2 * int(given[:, 0].count_nonzero()) < len(given):
        few = given.any(1).nonzero()[:, 0]
        few = few if 2 * len(few) < len(given) else None
        given = given if few is None else given[few]
    if len(given) and 2 * int(given[0].count_nonzero()) < given.shape[1]:
        columns = given.any(0).nonzero()[:, 0]
        if len(columns):
            part = slice(int(columns[0]), int(columns[-1]) + 1)
            part = part if 2 * (part.stop - part.start) < given.shape[1] else None
    return few, part


def _of_one_sign(inputs: Tensor, parts: Parts, name: str, relevance: Tensor, packed: bool = True) -> Tensor:
    """The relevance of inputs (rows, inputs) all of whose contributions to that part are positive."""
    share = parts.matrix(name, packed=packed).positive(inputs)
    return parts.matrix(name, back=True, packed=packed)(torch.div(relevance, share, out=share)).mul_(inputs)


def _of_both_signs(x: Tensor, spread: Tensor, parts: Parts, relevance: Tensor, packed: bool = True) -> Tensor:
    """The relevance of inputs (rows, inputs) of both signs."""
    halves = [x.clamp(min=0).add_(spread), x.clamp(max=0).sub_(spread)]
    positive, negative = _of_one_sign(torch.cat(halves, 1), parts, "joined", relevance, packed).chunk(2, 1)
    return positive + negative


def _of_wide(x: Tensor, spread: Tensor, parts: Parts, relevance: Tensor, output: Tensor) -> Tensor:
    """The same, with the network's output (rows, outputs) without its bias."""
    magnitude = x.abs().add_(2 * spread)
    whole = parts.matrix("magnitude").positive(magnitude)
    share = output + whole
    kept = torch.sub(share, whole, alpha=_CANCELED, out=whole)
    canceled = None if float(kept.amin()) >= 0 else (kept < 0).any(1).nonzero()[:, 0]
    both = parts.matrix("returning", back=True)(torch.div(relevance, share, out=share))
    signed, unsigned = both.chunk(2, 1)
    found = (x * signed).addcmul_(magnitude, unsigned)
    if canceled is not None:
        few = spread if spread.numel() == 1 else spread[canceled]
        found[canceled] = _of_both_signs(x[canceled], few, parts, relevance[canceled], packed=False)
    return found


def _rows(x: Tensor, dim: int) -> Tensor:
    """A row for each position: (positions, channels)."""
    return x.movedim(dim, -1).reshape(-1, x.shape[dim])


def _spread(x: Tensor) -> tuple[Tensor, bool]:
    """What is added to the magnitude of each input, (images, 1, ...), and whether some input is negative."""
    flat = (x if x.is_contiguous() else x.movedim(1, -1)).flatten(1)
    if not flat.numel():
        return x.new_zeros(()), False
    # Image by image: along a dimension, torch's is eight times as slow on a CPU.
    bounds = [(least.item(), most.item()) for least, most in map(torch.aminmax, flat)]
    spread = x.new_tensor([max(most, -least) * SPREAD + _DARK for least, most in bounds])
    return spread.view(-1, *[1] * (x.ndim - 1)), any(least < 0 for least, _ in bounds)
