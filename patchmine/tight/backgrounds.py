"""What surrounds a box: the photograph blurred, or noise. The third background is gray, which is 0."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SIGMA = 1 / 14
"""Standard deviation of the blur, as a share of the input's shorter side."""

CUT = 3
"""The blur reaches this many standard deviations far."""


def blurred(inputs: Tensor, sigma: float | None = None) -> Tensor:
    """The inputs, float32 (N, 3, height, width), without detail: a Gaussian blur with reflected borders.

    `sigma` is its standard deviation in pixels, SIGMA of the shorter side unless given. In one dimension after the
    other, which is what `torchvision.transforms.functional.gaussian_blur` computes in two.
    """
    sigma = min(inputs.shape[-2:]) * SIGMA if sigma is None else sigma
    reach = min(int(CUT * sigma), min(inputs.shape[-2:]) - 1)
    if reach == 0:
        return inputs.clone()
    down, across = (_smoothing(length, sigma, reach).to(inputs.device) for length in inputs.shape[-2:])
    return down @ inputs @ across.T


def noisy(inputs: Tensor) -> Tensor:
    """White Gaussian noise with the mean and standard deviation of each channel of the inputs (N, 3, height, width).

    It is the same noise for every input of a size.
    """
    deviation, mean = torch.std_mean(inputs, dim=(-2, -1), keepdim=True)
    return _noise(tuple(inputs.shape[-3:])).to(inputs.device) * deviation + mean


@lru_cache(maxsize=8)
def _smoothing(length: int, sigma: float, reach: int) -> Tensor:
    """The blur of one axis as a matrix, float32 (length, length): a product takes a tenth of a convolution's time."""
    with torch.inference_mode(False):
        offsets = torch.arange(-reach, reach + 1)
        weights = torch.exp(-(offsets.double() ** 2) / (2 * sigma**2))
        places = (torch.arange(length)[:, None] + offsets).abs()
        places = torch.where(places < length, places, 2 * (length - 1) - places)  # reflected borders
        matrix = torch.zeros(length, length, dtype=torch.float64)
        return matrix.scatter_add_(1, places, (weights / weights.sum()).expand(length, -1)).float()


@lru_cache(maxsize=4)
def _noise(shape: tuple[int, ...]) -> Tensor:
    with torch.inference_mode(False):
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))
