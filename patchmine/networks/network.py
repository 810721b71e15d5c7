"""A network and its taps: hooks that live only as long as a `with` block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt, log
from typing import Literal

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError, nearest
from patchmine.photographs.placement import Preprocessing


@dataclass(frozen=True)
class Network:
    """A torch module in eval mode, with the facts that belong to its weights.

    `name` is the value of `--model`. `weights` is a digest of every parameter and buffer. `class_names`, if known,
    are in the order of the outputs. `stages` are the default layers if the kind of model knows them; otherwise
    `patchmine.networks.layers` finds them.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    weights: str
    class_names: tuple[str, ...] | None = None
    stages: tuple[str, ...] | None = None

    def layer(self, name: str) -> nn.Module:
        """The submodule of that dotted name. Raises ModelError for an unknown one."""
        modules = dict(self.module.named_modules())
        if name not in modules or not name:
            raise ModelError(f"{self.name} has no layer {name!r}{nearest(name, filter(None, modules))}")
        return modules[name]

    def blank(self) -> Tensor:
        """A mid-gray input of one image: float32 (1, 3, height, width)."""
        return torch.zeros(1, 3, *self.preprocessing.crop)


def weights_digest(module: nn.Module) -> str:
    """A digest of the names, shapes, dtypes and bytes of the state dict."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """The last tap has been reached; nothing after it is needed."""


@contextmanager
def tapped(module: nn.Module, taps: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """Call `taps[name]` with the output of the submodule of that name, at each of its calls.

    The tap gets the tensor before anything after the layer can overwrite it in place, and must copy what it needs
    at once. On any exit, the module has the hooks that it had before.

    Raises ModelError for an unknown submodule, and for an output that is not one tensor.
    """
    modules = dict(module.named_modules())
    handles = []
    try:
        for name, tap in taps.items():
            if name not in modules:
                raise ModelError(f"unknown layer {name!r}{nearest(name, filter(None, modules))}")
            handles.append(modules[name].register_forward_hook(_hook(name, tap)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, tap: Callable[[Tensor], None]) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            raise ModelError(f"layer {name!r} returns a {type(output).__name__}, not a tensor: choose another layer")
        tap(output)

    return hook


def run_until(module: nn.Module, batch: Tensor, last: str, calls: int = 1) -> None:
    """Run the module on a batch and stop right after the `calls`-th call of the submodule `last`.

    Taps attached before this call have seen that output by then. Raises ModelError if that call never happens.
    """
    left = calls

    def stop(_output: Tensor) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise _Enough

    with tapped(module, {last: stop}):
        try:
            module(batch)
        except _Enough:
            return
    raise ModelError(f"layer {last!r} is never called in a forward pass in eval mode, so there is nothing to index")


@dataclass(frozen=True)
class Layout:
    """How to read a layer's output as a grid of (height, width) cells.

    `order`: `nchw` and `nhwc` are feature maps. `tokens` (N, prefix + height * width, channels) is a sequence that
    starts with `prefix` tokens (class, registers) without a position. `vector` (N, channels) is a grid of one cell.
    """

    order: Literal["nchw", "nhwc", "tokens", "vector"]
    channels: int
    grid: tuple[int, int]
    prefix: int = 0

    def grid_of(self, output: Tensor) -> Tensor:
        """The output as (N, channels, grid height, grid width); a view if the memory layout allows it."""
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
    wrong guess, because its outputs look elsewhere.

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


@dataclass(frozen=True)
class Tap:
    """A layer as seen in one forward pass: its name, how to read its output, and how often it is called."""

    layer: str
    layout: Layout
    calls: int


def last_call(tap: Tap, see: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    """A function for `tapped`, good for one forward pass, that passes only the layer's last output to `see`.

    A module that is called several times may return a grid of another shape each time; the last one counts.
    """
    left = tap.calls

    def see_last(output: Tensor) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            see(output)

    return see_last


def maps(module: nn.Module, inputs: Tensor, taps: Sequence[Tap]) -> dict[str, Tensor]:
    """The output of each layer for a batch, by layer: (images, channels, grid height, grid width), without gradients.

    `inputs` are normalized, float (images, 3, height, width). The last call of a layer counts. The pass stops after the
    last of the taps, which must be in the order in which they are called, as `survey` gives them.
    """
    found: dict[str, Tensor] = {}

    def kept(tap: Tap) -> Callable[[Tensor], None]:
        # A copy, since the next layer may overwrite the output in place.
        return last_call(tap, lambda output: found.__setitem__(tap.layer, tap.layout.grid_of(output).clone()))

    with torch.inference_mode(), tapped(module, {tap.layer: kept(tap) for tap in taps}):
        run_until(module, inputs, taps[-1].layer, taps[-1].calls)
    return found


def survey(module: nn.Module, blank: Tensor, layers: Sequence[str]) -> tuple[Tap, ...]:
    """Run the module once and describe the layers, in the order in which they are last called.

    Raises ModelError for a layer that a forward pass in eval mode never calls.
    """
    modules = dict(module.named_modules())
    layouts: dict[str, Layout] = {}
    calls = dict.fromkeys(layers, 0)

    def tap(layer: str) -> Callable[[Tensor], None]:
        def see(output: Tensor) -> None:
            layouts.pop(layer, None)
            layouts[layer] = layout_of(layer, modules[layer], output, (blank.shape[-2], blank.shape[-1]))
            calls[layer] += 1

        return see

    with torch.inference_mode(), tapped(module, {layer: tap(layer) for layer in layers}):
        module(blank)
    for layer in layers:
        if layer not in layouts:
            raise ModelError(f"layer {layer!r} is never called in a forward pass in eval mode")
    return tuple(Tap(layer, layout, calls[layer]) for layer, layout in layouts.items())
