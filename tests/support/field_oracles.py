"""Two ways to measure receptive fields that share nothing with `patchmine.receptive`.

`nan_fields` writes NaN into one row (column) of the input at a time and looks where the outputs turn NaN: every
position of every channel, and no knowledge of any operator. `gradient_field` differentiates the network
with positive weights, in which nothing can cancel, at single positions.

Both take `held=True` to hold constant what a network computes from all of its grid at once: the local field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from patchmine.networks.layouts import Layout

Ends = NDArray[np.int32]


def nan_fields(
    module: nn.Module,
    input_size: tuple[int, int],
    layouts: dict[str, Layout],
    *,
    channels: int = 3,
    batch: int = 8,
    held: bool = False,
) -> dict[str, tuple[Ends, Ends]]:
    """For each layer, int32 (channels, grid rows, 2) and (channels, grid columns, 2): what NaN reaches.

    Half-open intervals of input rows and columns; [0, 0) for a position that no NaN reaches. Costs one forward
    pass per input row and column, `batch` of them at a time.
    """
    modules = dict(module.named_modules())
    found: dict[str, list[Ends]] = {}
    for axis, length in enumerate(input_size):
        first = {name: np.full((at.channels, at.grid[axis]), length, np.int32) for name, at in layouts.items()}
        last = {name: np.full((at.channels, at.grid[axis]), -1, np.int32) for name, at in layouts.items()}
        for start in range(0, length, batch):
            lines = range(start, min(start + batch, length))
            probe = torch.rand(len(lines), channels, *input_size)
            for item, line in enumerate(lines):
                probe[item].select(1 + axis, line).fill_(torch.nan)

            hits: dict[str, NDArray[np.bool_]] = {}

            def see(name: str, output: Tensor, axis: int = axis, hits: dict[str, Any] = hits) -> None:
                # Of a module that is called several times, the last call counts.
                hits[name] = layouts[name].grid_of(output).isnan().any(3 - axis).numpy()

            with torch.inference_mode(), _seen(modules, layouts, see), Held() if held else nullcontext():
                module(probe)
            order = np.array(lines, np.int32)[:, None, None]
            for name, hit in hits.items():
                np.minimum(first[name], np.where(hit, order, length).min(0), out=first[name])
                np.maximum(last[name], np.where(hit, order, -1).max(0), out=last[name])
        for name in layouts:
            seen = last[name] >= 0
            ends = np.stack([np.where(seen, first[name], 0), np.where(seen, last[name] + 1, 0)], -1)
            found.setdefault(name, []).append(ends.astype(np.int32))
    return {name: (rows, cols) for name, (rows, cols) in found.items()}


@contextmanager
def _seen(modules: dict[str, nn.Module], layers: Any, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    def hook(name: str) -> Callable[..., None]:
        def call(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            see(name, output)

        return call

    handles = [modules[name].register_forward_hook(hook(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Held(TorchFunctionMode):
    """Replaces what is pooled from the whole of a grid by a constant."""

    POOLED = frozenset({"mean", "sum", "amax", "norm", "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d"})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in self.POOLED and isinstance(result, Tensor):
            source = args[0] if args else (kwargs or {})["input"]
            if source.ndim == 4 and result.ndim >= 2 and _is_pooled(source, result, args, kwargs or {}):
                return torch.ones_like(result)
        return result


def _is_pooled(source: Tensor, result: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether two neighboring dims of more than one element, of one shape, have been reduced to one element."""
    dims = kwargs.get("dim", next((a for a in args[1:] if isinstance(a, list | tuple) and len(a) == 2), None))
    if result.ndim == 4 and result.shape[:2] == source.shape[:2] and result.shape[2:].numel() == 1:
        return source.shape[2:].numel() > 1
    return isinstance(dims, list | tuple) and {d % 4 for d in dims} in ({2, 3}, {1, 2}) and len(dims) == 2


class Smooth(TorchFunctionMode):
    """Replaces what lets no gradient through in places: maxima by means, clipped activations by the identity, and
    those that saturate until rounding hides them by one that does not."""

    CLIPPED = frozenset(
        {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_"}
    )
    SATURATING = frozenset({"sigmoid", "sigmoid_", "tanh", "tanh_"})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in self.CLIPPED:
            return args[0] if args else kwargs["input"]
        if name in self.SATURATING:
            source = args[0] if args else kwargs["input"]
            return source / (1 + source.abs())
        if name == "max_pool2d":
            return _mean_pool(*args, **kwargs)
        if name == "adaptive_max_pool2d":
            return nn.functional.adaptive_avg_pool2d(args[0], args[1] if len(args) > 1 else kwargs["output_size"])
        return func(*args, **kwargs)


def _mean_pool(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if return_indices or dilation not in (1, (1, 1), [1, 1]):
        raise NotImplementedError("a dilated maximum, or one with indices")
    return nn.functional.avg_pool2d(input, kernel_size, stride, padding, ceil_mode)


def positive(module: nn.Module) -> nn.Module:
    """The module itself, with weights random and positive, each filter's sum about a half, in float64."""
    module = module.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.ndim >= 2:
                noise = torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5
                value.copy_(noise / (2 * max(value[0].numel(), 1)))
            else:
                value.fill_(0.01 if name.endswith("bias") else 1.0)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
            elif name.endswith("running_var"):
                buffer.fill_(1.0)
    return module


def gradient_fields(
    module: nn.Module,
    input_size: tuple[int, int],
    layouts: dict[str, Layout],
    samples: Sequence[tuple[str, tuple[int, int], tuple[int, int]]],
    *,
    channels: int = 3,
    held: bool = False,
) -> list[tuple[int, int, int, int]]:
    """For each sample (layer, channels [start, stop), position (y, x)): left, top, right, bottom of the pixels
    with a gradient. The module should come from `positive`. All zeros where there is none.
    """
    modules = dict(module.named_modules())
    outputs: dict[str, Tensor] = {}
    picture = torch.rand(1, channels, *input_size, dtype=torch.float64).requires_grad_()

    def see(name: str, output: Tensor) -> None:
        # A clone, since what follows may overwrite the output in place.
        outputs[name] = layouts[name].grid_of(output).clone()

    with Smooth(), Held() if held else nullcontext(), _seen(modules, layouts, see):
        module(picture)
    boxes = []
    for layer, (start, stop), (y, x) in samples:
        seed = outputs[layer][0, start:stop, y, x]
        weights = torch.rand(seed.shape, dtype=seed.dtype) + 0.5
        # Of this size, what is multiplied through a hundred layers does not vanish in denormal numbers.
        (gradient,) = torch.autograd.grad((seed * weights).sum() * 1e100, picture, retain_graph=True, allow_unused=True)
        boxes.append((0, 0, 0, 0) if gradient is None else _hull(gradient[0] != 0))
    return boxes


def _hull(touched: Tensor) -> tuple[int, int, int, int]:
    rows, cols = touched.any(0).any(1).nonzero()[:, 0].tolist(), touched.any(0).any(0).nonzero()[:, 0].tolist()
    return (cols[0], rows[0], cols[-1] + 1, rows[-1] + 1) if rows else (0, 0, 0, 0)
