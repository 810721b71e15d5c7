"""How the output of a layer is read as a grid: feature maps, tokens or a vector."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt, log
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError
from patchmine.networks.calls import MARK, TOKENS, read_from, resolved

if TYPE_CHECKING:
    from patchmine.readouts import Readout


@dataclass(frozen=True)
class Layout:
    """How to read a layer's output as a grid of (height, width) cells.

    `order`: `nchw` and `nhwc` are feature maps. `vector` (N, channels) is a grid of one cell. `tokens` (N, tokens,
    channels) is a sequence in which the grid begins after `prefix` tokens that have no place in the picture: the class
    token and registers. `group` "cls" or "reg" reads these instead, as a grid of one row. The channels of a virtual
    layer are what its `readout` makes of the layer's own.
    """

    order: Literal["nchw", "nhwc", "tokens", "vector"]
    channels: int
    grid: tuple[int, int]
    prefix: int = 0
    group: str = ""
    readout: Readout | None = None

    @property
    def tokens(self) -> str | None:
        """The tokens that it reads: `grid`, `cls` or `reg`; None if the output is no sequence of tokens."""
        return (self.group or "grid") if self.order == "tokens" else None

    @property
    def width(self) -> int:
        """The number of the layer's own channels: the length of an activation vector."""
        return self.channels if self.readout is None else self.readout.width

    @property
    def below(self) -> Layout:
        """The layout of the layer itself, without the readout."""
        return self if self.readout is None else replace(self, channels=self.readout.width, readout=None)

    def grid_of(self, output: Tensor) -> Tensor:
        """The output as (N, channels, grid height, grid width); a view if the memory layout allows it."""
        return self.read(self.below.vectors_of(output))

    def read(self, vectors: Tensor) -> Tensor:
        """The maps (N, channels, grid height, grid width) for those of the layer itself."""
        return vectors if self.readout is None else self.readout.maps(vectors)

    def cells(self, vectors: Tensor, row: Tensor, channel: Tensor, place: Tensor) -> Tensor:
        """Single cells (n,) of the maps that `read` gives of these, as `vectors_of` has them.

        They are given by photograph, channel and y * grid width + x, each int64 (n,).
        """
        flat = vectors.flatten(2)
        if self.readout is None:
            return flat[row, channel, place]
        read = self.readout.cells(flat[row, :, place])
        return read[torch.arange(len(row), device=read.device), channel]

    def vectors_of(self, output: Tensor) -> Tensor:
        """The layer's own channels (N, width, grid height, grid width); a view if the memory layout allows it."""
        match self.order:
            case "nchw":
                return output
            case "nhwc":
                return output.permute(0, 3, 1, 2)
            case "vector":
                return output[:, :, None, None]
            case "tokens":
                return output[:, self.sequence].transpose(1, 2).unflatten(2, self.grid)

    @property
    def sequence(self) -> slice:
        """The places of its tokens in the sequence."""
        return slice(self.prefix, self.prefix + self.grid[0] * self.grid[1])

    def groups(self, has_class: bool) -> dict[str, Layout]:
        """How to read the tokens in front of the grid: `cls`, the first one if the network has a class token, and
        `reg`, the others, each where there is one."""
        if self.order != "tokens":
            return {}
        first = int(has_class and self.prefix > 0)
        counts = {"cls": first, "reg": self.prefix - first}
        return {
            group: replace(self, grid=(1, count), prefix=0 if group == "cls" else first, group=group)
            for group, count in counts.items()
            if count
        }


# Layers that act on the second dimension, whatever the shape.
CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.Upsample,
)

# Maximum number of class and register tokens: no published network has more.
MOST_PREFIX_TOKENS = 16

# How the parameters begin that become tokens in front of the grid, in timm, torchvision, transformers and CLIP.
_CLASS = ("cls_token", "class_token", "class_embedding")
_OTHERS = ("reg_token", "register", "storage_token", "dist_token", "distillation_token", "prompt")


@dataclass(frozen=True)
class Prefix:
    """The tokens that a network puts in front of the grid: whether the first is a class token, and how many there can
    be."""

    has_class: bool = True
    counts: frozenset[int] = frozenset(range(MOST_PREFIX_TOKENS + 1))

    @classmethod
    def of(cls, network: nn.Module) -> Prefix:
        """From the names of the parameters; unknown names tell nothing, so that any number is possible."""
        named = [(name.rpartition(".")[2], p) for name, p in network.named_parameters(remove_duplicate=False)]
        first, others = (
            [1 if p.ndim < 2 else p.shape[-2] for name, p in named if name.startswith(words)]
            for words in (_CLASS, _OTHERS)
        )
        if not first and not others:
            return cls()
        # A layer may leave the class token out, or all the others.
        return cls(bool(first), frozenset({0, sum(first), sum(others), sum(first) + sum(others)}))


def layout_of(
    layer: str,
    module: nn.Module,
    output: Tensor,
    input_size: tuple[int, int] | None = None,
    prefix: Prefix = Prefix(),
) -> Layout:
    """Infer the layout of a layer's outputs from the layer and one output, for an input of (height, width).

    Four dimensions have the channels last if the layer acts on the last one. They also do if three things hold:
    nothing shows that the layer acts on the second, the two before the last have the proportions of the input, and
    the last two are far from them. Tokens form the grid that the input gives at some whole stride, with the fewest
    tokens left over in front, of the numbers that `prefix` allows. Without `input_size`, the input is assumed to be
    square. `receptive_fields` refuses a wrong guess, because its outputs depend on other pixels.

    Raises ModelError if the output is neither feature maps, nor tokens on a grid, nor a vector.
    """
    height, width = input_size or (1, 1)
    if output.ndim == 4:
        _, first, second, third = output.shape
        # A Linear, and a LayerNorm that is not timm's or torchvision's 2d variant, act on the last dimension.
        last = isinstance(module, nn.Linear) or (
            type(module) is nn.LayerNorm and tuple(module.normalized_shape) == (third,)
        )
        shaped = not isinstance(module, CHANNELS_FIRST) and third > 3 and _skew(first, second, height, width) == 0
        if last or (shaped and _skew(second, third, height, width) > 0.1):
            return Layout("nhwc", third, (first, second))
        return Layout("nchw", first, (second, third))
    if output.ndim == 2:
        return Layout("vector", output.shape[1], (1, 1))
    if output.ndim == 3:
        tokens = output.shape[1]
        grids = _grids(height, width) if input_size else [(isqrt(tokens), isqrt(tokens))]
        fitting = [grid for grid in grids if grid[0] * grid[1] > 0 and tokens - grid[0] * grid[1] in prefix.counts]
        if fitting:
            grid = max(fitting, key=lambda grid: grid[0] * grid[1])
            return Layout("tokens", output.shape[2], grid, tokens - grid[0] * grid[1])
        raise ModelError(
            f"the output of layer {layer!r} has shape {tuple(output.shape)}, and {tokens} tokens are no grid over an "
            f"input of {height}x{width} pixels: choose a layer with a token for each place"
        )
    raise ModelError(
        f"the output of layer {layer!r} has shape {tuple(output.shape)}, neither feature maps, tokens nor a vector"
    )


class Layouts:
    """How the layers of one network are read, for inputs of (height, width)."""

    def __init__(self, network: nn.Module, input_size: tuple[int, int]) -> None:
        self._modules = dict(network.named_modules())
        self._input_size = input_size
        self._prefix = Prefix.of(network)

    def of(self, layer: str, output: Tensor) -> Layout:
        """The layout of a layer, from one output of its module; of a virtual layer that of the one it is read from.

        Raises ModelError if it has none, or lacks the tokens that the layer's name asks for.
        """
        layer = read_from(layer, self._modules)
        module, _, tokens = resolved(layer, self._modules)
        layout = layout_of(layer, self._modules[module], output, self._input_size, self._prefix)
        if not tokens:
            return layout
        groups = layout.groups(self._prefix.has_class)
        if tokens not in groups:
            whole = layer.removesuffix(f"{MARK}{tokens}")
            choices = " or ".join([whole, *(f"{whole}{MARK}{group}" for group in groups)])
            raise ModelError(f"layer {layer!r}: the output of {whole} has no {TOKENS[tokens]}: choose {choices}")
        return groups[tokens]


def _skew(grid_height: int, grid_width: int, height: int, width: int) -> float:
    """How far a grid is from the input's proportions, as a logarithm; 0 if one cell more or less explains it."""
    least = (grid_height - 1) / (grid_width + 1) * width / height
    most = (grid_height + 1) / max(grid_width - 1, 0.5) * width / height
    return log(least) if least > 1 else -log(most) if most < 1 else 0.0


def _grids(height: int, width: int) -> list[tuple[int, int]]:
    """The grids (rows, columns) of every whole stride over the input, rounded down or up."""
    strides = range(1, max(height, width) + 1)
    return [(height // s, width // s) for s in strides] + [(-(-height // s), -(-width // s)) for s in strides]
