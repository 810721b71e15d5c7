"""The effect of strides and pools on the gradient: its power spectrum at the input."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.errors import RequestError
from patchmine.networks.taps import Tap, at_call, run_until, tapped
from patchmine.study.instruments.spectra import Power, Window, mean_power
from patchmine.units import Position


def gradients(module: nn.Module, tap: Tap, channel: int, position: Position, inputs: Tensor) -> NDArray[np.float32]:
    """The gradients of the unit's activation at a position with respect to each input: float32 (inputs, height, width,
    3).

    `inputs` are float32 (inputs, 3, height, width), normalized, on the module's device. The gradient is 0 where the
    unit is inactive. The module's parameters get no gradients.
    """
    pictures = inputs.detach().clone().requires_grad_()
    values: list[Tensor] = []

    def see(output: Tensor) -> None:
        values.append(tap.layout.grid_of(output)[:, channel, position.y, position.x].float())

    with torch.enable_grad(), tapped(module, {tap.layer: at_call(tap, see)}):
        run_until(module, pictures, tap.layer, tap.call)
    if not values[0].requires_grad:
        return np.zeros((len(inputs), *inputs.shape[2:], 3), np.float32)
    (found,) = torch.autograd.grad(values[0].sum(), pictures, allow_unused=True)
    found = torch.zeros_like(pictures) if found is None else found
    return found.permute(0, 2, 3, 1).float().cpu().contiguous().numpy()


def gradient_power(
    module: nn.Module,
    tap: Tap,
    channel: int,
    position: Position,
    inputs: Tensor,
    window: Window = "hann",
    multiple: int = 32,
) -> Power:
    """The mean power spectrum of `gradients`, each scaled to the same energy: float64 (height, width), as in `power`.

    Input for `slope` and `stride_share`. Cropped to whole multiples of `multiple` pixels. Choose a position in the
    middle: the window fades content near the edges. Raises RequestError if no input has a gradient.
    """
    found = gradients(module, tap, channel, position, inputs)
    size = np.sqrt((found.astype(np.float64) ** 2).mean((1, 2, 3)))
    alive = (size > 0) & np.isfinite(size)
    if not alive.any():
        raise RequestError(
            f"{tap.layer}:{channel} at {position} gives no gradient on any of {len(inputs)} inputs: choose another unit"
        )
    return mean_power((one / each for one, each in zip(found[alive], size[alive], strict=True)), window, multiple)


def phases(found: NDArray[np.float32], stride: int) -> NDArray[np.float64]:
    """The gradients' energy by pixel position in a cell of stride x stride: float64 (stride, stride), mean 1.

    Entry (y, x) is the energy of all pixels at y, x modulo the stride; each input counts equally. A convolution whose
    kernel is not a multiple of its stride reads some pixels more often than others, and their gradients are larger. A
    power spectrum hides this where signs differ from place to place; this measure does not. `found` is the result of
    `gradients`.

    Raises ValueError if a side is not a multiple of the stride, or if no input has a gradient.
    """
    height, width = found.shape[1:3]
    if height % stride or width % stride:
        raise ValueError(f"gradients of {width}x{height} pixels do not divide into cells of {stride}")
    energy = (found.astype(np.float64) ** 2).sum(3)
    total = energy.sum((1, 2), keepdims=True)
    if not (total > 0).any():
        raise ValueError("no input has a gradient")
    energy = (energy[total[:, 0, 0] > 0] / total[total > 0][:, None, None]).mean(0)
    cells = energy.reshape(height // stride, stride, width // stride, stride).sum((0, 2))
    return cells * stride**2


__all__ = ["gradient_power", "gradients", "phases"]
