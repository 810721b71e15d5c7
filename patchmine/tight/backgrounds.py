"""What surrounds a box: the photograph blurred, or noise. The third background is gray, which is 0."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

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
    weights = _weights(sigma, reach).to(inputs.device)
    count, channels, height, width = inputs.shape
    planes = pad(inputs, (reach, reach, reach, reach), mode="reflect").reshape(
        count * channels, 1, *_padded(height, width, reach)
    )
    planes = conv2d(conv2d(planes, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return planes.reshape(inputs.shape)


def noisy(inputs: Tensor) -> Tensor:
    """White Gaussian noise with the mean and standard deviation of each channel of the inputs (N, 3, height, width).

    It is the same noise for every input of a size.
    """
    deviation, mean = torch.std_mean(inputs, dim=(-2, -1), keepdim=True)
    return _noise(tuple(inputs.shape[-3:])).to(inputs.device) * deviation + mean


def _padded(height: int, width: int, reach: int) -> tuple[int, int]:
    return height + 2 * reach, width + 2 * reach


@lru_cache
def _weights(sigma: float, reach: int) -> Tensor:
    with torch.inference_mode(False):
        distance = torch.arange(-reach, reach + 1, dtype=torch.float64)
        weights = torch.exp(-(distance**2) / (2 * sigma**2))
        return (weights / weights.sum()).to(torch.float32)


@lru_cache(maxsize=4)
def _noise(shape: tuple[int, ...]) -> Tensor:
    with torch.inference_mode(False):
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))
