"""The norms of a transformer's tokens: how long their vectors are in a layer, and how much that varies.

Some transformers keep facts of the whole picture in a few tokens, whose norm is then far above that of the others (T.
Darcet and others 2024, "Vision transformers need registers"). What is usual in a layer is measured on some photographs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.networks.taps import Tap, at_call, run_until, tapped

Norms = dict[str, NDArray[np.float32]]

_TO_SIGMA = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution


def norms_of(module: nn.Module, taps: Sequence[Tap], picture: Tensor) -> Norms:
    """The Euclidean norm of each token on the grid, float32 (tokens,), by layer.

    At least one of the taps must read tokens on the grid; the others are left out. They must be in the order in which
    they are called. `picture` is float32 (3, height, width), normalized.
    """
    found: Norms = {}
    on_grid = [tap for tap in taps if tap.layout.tokens == "grid"]

    def see(tap: Tap, output: Tensor) -> None:
        found[tap.layer] = tap.layout.grid_of(output).float().flatten(2).norm(dim=1)[0].numpy()

    seen = {tap.layer: at_call(tap, lambda output, tap=tap: see(tap, output)) for tap in on_grid}  # type: ignore[misc]
    with torch.inference_mode(), tapped(module, seen):
        run_until(module, picture[None], on_grid[-1].layer, on_grid[-1].call)
    return found


def usual(norms: Iterable[Norms]) -> Norms:
    """The median and the robust deviation of the norms of all tokens of some photographs, float32 (2,), by layer.

    The deviation is 1.4826 times the median of the distances from the median.
    """
    gathered: dict[str, list[NDArray[np.float32]]] = {}
    for one in norms:
        for layer, values in one.items():
            gathered.setdefault(layer, []).append(values[np.isfinite(values)])
    found: Norms = {}
    for layer, parts in gathered.items():
        values = np.concatenate(parts)
        if len(values):
            median = np.median(values)
            found[layer] = np.array([median, _TO_SIGMA * np.median(np.abs(values - median))], np.float32)
    return found
