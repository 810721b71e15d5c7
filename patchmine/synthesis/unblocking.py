"""A way for the gradient through units that are off, for as long as it takes to switch them on.

Behind a ReLU that is closed for the noise that an image starts from, or a ReLU6 that is full, no gradient comes back.
For the images that this befalls, such activations let the gradient pass as if they did nothing; what they compute stays
the same (the idea of lucid's redirected ReLU).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

CLOSING = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Threshold)
"""Modules whose gradient is exactly 0 where they are shut."""

STEPS = 16
"""For which an image keeps its way once it needed one."""

PATIENCE = 4
"""Steps without any gradient, the way open, after which an image is given up as dead."""


class Straight:
    """Opens the way for single images of a batch.

    `module` belongs to the caller alone, and its activations are out of place; on exit its hooks are gone.
    """

    def __init__(self, module: nn.Module, images: int, device: torch.device) -> None:
        self.module = module
        self.left = torch.zeros(images, dtype=torch.int64)
        self.without = torch.zeros(images, dtype=torch.int64)
        self.open = torch.zeros(images, dtype=torch.bool, device=device)
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> Straight:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def saw(self, stuck: Tensor) -> Tensor:
        """Told after each step which images, bool (images,), had no gradient; returns those that are dead."""
        if not self.handles:
            if not bool(stuck.any()):
                return torch.zeros_like(stuck)
            self._attach()
        was_open = self.left > 0
        self.without = torch.where(stuck & was_open, self.without + 1, torch.where(stuck, self.without, 0))
        self.left = torch.where(stuck, STEPS, (self.left - 1).clamp_min(0))
        self.open = (self.left > 0).to(self.open.device)
        return self.without >= PATIENCE

    def _attach(self) -> None:
        for part in self.module.modules():
            if isinstance(part, CLOSING):
                self.handles.append(part.register_forward_hook(self._pass))

    def _pass(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not bool(self.open.any()) or len(output) != len(self.open):
            return output
        (given,) = inputs
        through = output.detach() + (given - given.detach())
        return torch.where(self.open.view(-1, *[1] * (output.ndim - 1)), through, output)
