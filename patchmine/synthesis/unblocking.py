"""Lets the gradient pass through inactive units until they become active.

No gradient passes a ReLU that is closed for the noise that an image starts from, or a ReLU6 that is saturated. For the
affected images, such activations pass the gradient on unchanged. Their outputs stay the same (the idea of lucid's
redirected ReLU).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

CLOSING = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Threshold)
"""Modules whose gradient is exactly 0 where they are closed or saturated."""

STEPS = 16
"""Steps for which an image keeps the redirected gradient after it last needed it."""

PATIENCE = 4
"""Steps without any gradient, although redirected, after which an image counts as dead."""


class Straight:
    """Redirects the gradient for single images of a batch.

    `module` must be the caller's own copy, with activations that do not work in place. Its hooks are removed on exit.
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
        """Record which images, bool (images,), had no gradient in a step. Returns the images that count as dead."""
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
