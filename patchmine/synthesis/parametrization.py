"""Image parametrizations: the numbers that an optimizer moves, and the images made from them.

Every kind has `start` and `inverse`, which return parameters (images, ...), and `pictures`, which turns them into
float32 (images, 3, height, width) in 0..1. Each image is independent of the others in its batch.

`Fourier` follows Olah, Mordvintsev & Schubert 2017, "Feature Visualization". Coefficients are divided by their
frequency, so that an optimizer step changes all scales alike; colors are decorrelated, and a sigmoid bounds the range.
`Maco` follows Fel et al. 2023, "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
Optimization": the amplitudes come from photographs and only the phases move. `Plain` optimizes pixels directly.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

Draw = Callable[[tuple[int, ...], str], Tensor]
"""Random float32 numbers of a shape, on the CPU: `normal` with standard deviation 1 or `uniform` in 0..1."""

# From independent colors to RGB: a root of the covariance of ImageNet's pixels, scaled so that its longest column has
# length 1 (the numbers of lucid, which Olah et al. published).
_ROOT = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLORS = _ROOT / _ROOT.norm(dim=0).max()

_NOISE = 0.01  # of the coefficients at the start: an image that looks gray
_CONTRAST = 0.25
_EDGE = 0.01  # the distance from black and white that the inverse of the sigmoid needs


class Parametrization(Protocol):
    def start(self, draw: Draw) -> Tensor:
        """Parameters of one noise image."""
        ...

    def inverse(self, picture: Tensor) -> Tensor:
        """Parameters that best reproduce one image (3, height, width) in 0..1."""
        ...

    def pictures(self, parameters: Tensor) -> Tensor: ...

    def confine(self, parameters: Tensor) -> None:
        """Project parameters that a step has moved back into their valid range, in place."""
        ...


class Fourier:
    """Fourier coefficients, float32 (images, 3, rows, columns // 2 + 1, 2), of an image that is then cropped to its
    size."""

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        self.size, self.roomy = size, roomy(size)
        lowest = 1 / max(self.roomy)
        self.scale = (_CONTRAST / frequencies(self.roomy).clamp_min(lowest)).to(device)
        self.colors = COLORS.to(device)

    def start(self, draw: Draw) -> Tensor:
        return _NOISE * draw((3, *self.scale.shape, 2), "normal")

    def inverse(self, picture: Tensor) -> Tensor:
        return torch.view_as_real(spectrum_of(_grown(picture, self.roomy)) / self.scale.to(picture.device))

    def pictures(self, parameters: Tensor) -> Tensor:
        return _pictures(torch.view_as_complex(parameters) * self.scale, self.roomy, self.size, self.colors)

    def confine(self, parameters: Tensor) -> None:
        pass


class Maco:
    """Fourier phases, float32 (images, 3, rows, columns // 2 + 1), of an image that is then cropped to its size.

    `amplitudes` float32 (3, rows, columns // 2 + 1) are those of photographs, in the form of `spectrum_of`, measured at
    any size.
    """

    def __init__(self, size: tuple[int, int], device: torch.device, amplitudes: Tensor) -> None:
        self.size, self.roomy = size, roomy(size)
        self.amplitudes = resampled(amplitudes, self.roomy).to(device)
        self.colors = COLORS.to(device)

    def start(self, draw: Draw) -> Tensor:
        return 2 * pi * draw(tuple(self.amplitudes.shape), "uniform")

    def inverse(self, picture: Tensor) -> Tensor:
        return spectrum_of(_grown(picture, self.roomy)).angle()

    def pictures(self, parameters: Tensor) -> Tensor:
        spectrum = torch.polar(self.amplitudes.expand_as(parameters), parameters)
        return _pictures(spectrum, self.roomy, self.size, self.colors)

    def confine(self, parameters: Tensor) -> None:
        pass


class Plain:
    """The pixels themselves, kept in 0..1."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def start(self, draw: Draw) -> Tensor:
        return 0.5 + _NOISE * draw((3, *self.size), "normal")

    def inverse(self, picture: Tensor) -> Tensor:
        return picture.clone()

    def pictures(self, parameters: Tensor) -> Tensor:
        return parameters

    def confine(self, parameters: Tensor) -> None:
        parameters.clamp_(0, 1)


def frequencies(size: tuple[int, int]) -> Tensor:
    """The frequencies of the coefficients of `rfft2`, in cycles per pixel: float32 (height, width // 2 + 1)."""
    down, across = torch.fft.fftfreq(size[0]), torch.fft.rfftfreq(size[1])
    return torch.hypot(down[:, None], across[None])


def spectrum_of(picture: Tensor) -> Tensor:
    """The Fourier coefficients of images (..., 3, height, width) in 0..1, before sigmoid and colors: complex64.

    The transform is orthonormal, so the amplitudes of textures do not depend on the image size.
    """
    flat = torch.logit(picture.clamp(_EDGE, 1 - _EDGE))
    independent = torch.einsum("dc,...chw->...dhw", torch.linalg.inv(COLORS).to(picture.device), flat)
    spectrum: Tensor = torch.fft.rfft2(independent, norm="ortho")
    return spectrum


def resampled(amplitudes: Tensor, size: tuple[int, int]) -> Tensor:
    """Amplitudes (3, rows, columns // 2 + 1) measured at one size of even width, resampled to another size.

    Interpolates the logarithm of the amplitudes over frequency in cycles per pixel.
    """
    rows, half = amplitudes.shape[1:]
    if (rows, half) == (size[0], size[1] // 2 + 1):
        return amplitudes
    centered = torch.fft.fftshift(amplitudes.clamp_min(1e-12).log(), dim=1)
    centered = torch.cat([centered, centered[:, :1]], 1)  # -1/2 and 1/2 cycles per pixel coincide
    y = 2 * (torch.fft.fftfreq(size[0]) + (rows // 2) / rows) - 1
    x = 4 * torch.fft.rfftfreq(size[1]) - 1
    grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)
    found = grid_sample(centered[None], grid[None], padding_mode="border", align_corners=True)[0].exp()
    found[:, 0, 0] *= (size[0] * size[1] / (rows * 2 * (half - 1))) ** 0.5  # the mean is not a texture
    return found


def roomy(size: tuple[int, int]) -> tuple[int, int]:
    """The next larger size with a fast Fourier transform: a prime length takes several times as long."""
    return _fast(size[0]), _fast(size[1])


def _fast(length: int) -> int:
    """The next even number without prime factors above 7."""
    length += length % 2
    while True:
        rest = length
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2


def _grown(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """The image extended to `size` by repeating its last row and column."""
    height, width = picture.shape[-2:]
    return pad(picture[None], (0, size[1] - width, 0, size[0] - height), mode="replicate")[0]


def _pictures(spectrum: Tensor, roomy: tuple[int, int], size: tuple[int, int], colors: Tensor) -> Tensor:
    found: Tensor = _Pictures.apply(spectrum, roomy, size, colors)
    return found


class _Pictures(torch.autograd.Function):
    """From complex coefficients (images, 3, rows, columns // 2 + 1) to images in 0..1.

    Defines its own gradient: torch's would take three times as many passes over the images.
    """

    @staticmethod
    def forward(ctx: Any, spectrum: Tensor, roomy: tuple[int, int], size: tuple[int, int], colors: Tensor) -> Tensor:
        independent = torch.fft.irfft2(spectrum, s=roomy, norm="ortho")
        mixed = torch.matmul(colors, independent.flatten(2)).unflatten(2, roomy)
        pictures = torch.sigmoid(mixed[:, :, : size[0], : size[1]])
        ctx.save_for_backward(pictures, colors)
        ctx.roomy = roomy
        return pictures

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        pictures, colors = ctx.saved_tensors
        height, width = pictures.shape[2:]
        slope = torch.addcmul(pictures, pictures, pictures, value=-1).mul_(gradients[0])
        if (height, width) != ctx.roomy:
            slope = pad(slope, (0, ctx.roomy[1] - width, 0, ctx.roomy[0] - height))
        independent = torch.matmul(colors.T, slope.flatten(2)).unflatten(2, ctx.roomy)
        spectrum = torch.fft.rfft2(independent, norm="ortho")
        spectrum[..., 1:-1] *= 2  # the columns that represent two of the full spectrum; the number of columns is even
        return spectrum, None, None, None
