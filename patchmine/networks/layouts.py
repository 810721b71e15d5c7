"""How the output of a layer is read as a grid: feature maps, tokens or a vector."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt, log
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError

if TYPE_CHECKING:
    from patchmine.readouts import Readout


@dataclass(frozen=True)
class Layout:
    """How to read a layer's output as a grid of (height, width) cells.

    `order`: `nchw` and `nhwc` are feature maps. `tokens` (N, prefix + height * width, channels) is a sequence that
    starts with `prefix` tokens (class, registers) without a position. `vector` (N, channels) is a grid of one cell.

    The channels of a virtual layer are what its `readout` makes of the layer's own.
    """

    order: Literal["nchw", "nhwc", "tokens", "vector"]
    channels: int
    grid: tuple[int, int]
    prefix: int = 0
    readout: Readout | None = None

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

    def cells(self, output: Tensor, row: Tensor, channel: Tensor, place: Tensor) -> Tensor:
        """Single cells (n,) of an output, given by photograph, channel and y * grid width + x, each int64 (n,)."""
        flat = self.below.vectors_of(output).flatten(2)
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
                return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)


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


def layout_of(layer: str, module: nn.Module, output: Tensor, input_size: tuple[int, int] | None = None) -> Layout:
    """Infer the layout of a layer's outputs from the layer and one output, for an input of (height, width).

    Four dimensions have the channels last if the layer acts on the last one. They also do if three things hold:
    nothing shows that the layer acts on the second, the two before the last have the proportions of the input, and
    the last two are far from them. Tokens form the grid that the input gives at some whole stride, with the fewest
    tokens left over in front. Without `input_size`, the input is assumed to be square. `receptive_fields` refuses a
    wrong guess, because its outputs depend on other pixels.

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
        grid = _token_grid(tokens, height, width) if input_size else (isqrt(tokens), isqrt(tokens))
        if grid is not None and tokens - grid[0] * grid[1] <= MOST_PREFIX_TOKENS:
            return Layout("tokens", output.shape[2], grid, tokens - grid[0] * grid[1])
    raise ModelError(
        f"the output of layer {layer!r} has shape {tuple(output.shape)}, neither feature maps, tokens nor a vector"
    )


def _skew(grid_height: int, grid_width: int, height: int, width: int) -> float:
    """How far a grid is from the input's proportions, as a logarithm; 0 if one cell more or less explains it."""
    least = (grid_height - 1) / (grid_width + 1) * width / height
    most = (grid_height + 1) / max(grid_width - 1, 0.5) * width / height
    return log(least) if least > 1 else -log(most) if most < 1 else 0.0


def _token_grid(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """The largest grid (rows, columns) of a whole stride over the input, rounded down or up, that the tokens fill."""
    strides = range(1, max(height, width) + 1)
    grids = [(height // s, width // s) for s in strides]
    grids += [(-(-height // s), -(-width // s)) for s in strides]
    fitting = [(rows, cols) for rows, cols in grids if 0 < rows * cols <= tokens]
    return max(fitting, key=lambda grid: grid[0] * grid[1], default=None)
