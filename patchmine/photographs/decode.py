"""From the bytes of a photograph to the pixels that the network sees, with one fixed decoder per format.

JPEG goes through libjpeg-turbo in torchvision, everything else (and a JPEG that is CMYK or that torchvision refuses)
through Pillow. Resizing is torch's antialiased uint8 interpolation for both, because a resizer that differs by even
one gray level changes many activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from patchmine.errors import PhotographError, RequestError
from patchmine.photographs._torchvision import decode_jpeg, torchvision_version
from patchmine.photographs.placement import Placement, Preprocessing
from patchmine.photographs.upright import (
    MOST_PIXELS,
    is_plain_jpeg,
    load,
    opened,
    orientation,
    own_pillow,
    to_array,
    turned,
    with_heif,
)

HEIC = (".heic", ".heif", ".hif")
"""Name endings of photographs that pillow-heif decodes."""


def decoder_name(paths: Iterable[str] = ()) -> str:
    """The decoders of these photographs and their versions, for the job: another version may give other pixels."""
    import PIL

    jpeg = f"torchvision {torchvision_version()} for JPEG"
    if with_heif() and any(path.lower().endswith(HEIC) for path in paths):
        jpeg += f", pillow-heif {version('pillow-heif')} for HEIC"
    return f"{jpeg}, Pillow {PIL.__version__} for the rest"


@dataclass(frozen=True)
class Pixels:
    """One photograph as network input: uint8 (3, height, width), and its placement in the input."""

    tensor: Tensor
    placement: Placement


def prepare(data: bytes, preprocessing: Preprocessing) -> Pixels:
    """Decode, turn upright, resize and crop. Raises PhotographError, whose message is the reason."""
    picture = full_size(data)
    height, width = picture.shape[1:]
    try:
        placement = preprocessing.place(width, height)
    except RequestError as error:
        raise PhotographError(str(error)) from None
    if placement.resized[0] * placement.resized[1] > MOST_PIXELS:
        # A line of pixels, say, whose short side becomes hundreds of times as long.
        shown = "x".join(map(str, placement.resized))
        raise PhotographError(f"{width}x{height} pixels become {shown} resized: more than the limit of {MOST_PIXELS:,}")
    return Pixels(_fit(picture, placement, preprocessing), placement)


def full_size(data: bytes) -> Tensor:
    """Decode and turn upright: uint8 (3, height, width). Raises PhotographError."""
    image = None if is_plain_jpeg(data) else opened(data)
    if image is None or (image.format in ("JPEG", "MPO") and image.mode != "CMYK"):
        try:
            with own_pillow():  # torchvision's decoder warns too
                picture = decode_jpeg(data)
        except RuntimeError:
            image = image or opened(
                data
            )  # Pillow has the last word: it accepts files that are merely odd and refuses those cut short
        else:
            # Pillow reads the orientation for every format: torchvision overlooks one that only XMP states.
            number = 1 if image is None else orientation(image)
            if number == 1:
                return picture
            return _channels_first(turned(picture.permute(1, 2, 0).numpy(), number))
    load(image)
    number = orientation(image)
    array = to_array(image)
    del image  # frees the decoded pixels before turning makes a second copy
    return _channels_first(array if number == 1 else turned(array, number))


def _channels_first(array: NDArray[np.uint8]) -> Tensor:
    """A (3, height, width) view: channels stay last in memory, the layout in which resizing is fast."""
    return torch.from_numpy(array).permute(2, 0, 1)


def _fit(picture: Tensor, placement: Placement, preprocessing: Preprocessing) -> Tensor:
    width, height = placement.resized
    if picture.shape[1:] != (height, width):
        picture = interpolate(picture[None], size=(height, width), mode=preprocessing.interpolation, antialias=True)[0]
    shown = placement.picture
    left, top = shown.left + placement.left, shown.top + placement.top
    cut = picture[:, top : top + shown.height, left : left + shown.width]
    if (shown.width, shown.height) != placement.input:
        around = (
            shown.left,
            placement.input[0] - shown.right,
            shown.top,
            placement.input[1] - shown.bottom,
        )
        gray = [round(255 * level) for level in preprocessing.mean]
        cut = torch.stack([pad(plane, around, value=level) for plane, level in zip(cut, gray, strict=True)])
    if not cut.numel():
        raise PhotographError("no pixel of it falls inside the network's input")
    return cut.contiguous()


def stacked(pictures: Sequence[Tensor]) -> Tensor:
    """Pixels of one size, uint8 (3, height, width) each, as (pictures, 3, height, width).

    It shares their memory where they lie beside each other, as those of `decoders.Decoders` do.
    """
    first, size = pictures[0], pictures[0].numel()
    beside = all(one.data_ptr() == first.data_ptr() + number * size for number, one in enumerate(pictures))
    one_memory = all(one.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for one in pictures)
    if beside and one_memory:
        return first.as_strided((len(pictures), *first.shape), (size, *first.stride()))
    return torch.stack(list(pictures))


def normalized(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 (images, 3, height, width) as the float32 that the network takes, on the same device."""
    scale, offset = _scale_and_offset(preprocessing.mean, preprocessing.std, pixels.device)
    return pixels.to(torch.float32).mul_(scale).add_(offset)


@lru_cache
def _scale_and_offset(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(x / 255 - mean) / std as a factor and a summand, float32 (1, 3, 1, 1) each.

    Cached per device, because sending them to a GPU waits for all of its pending work.
    """
    with torch.inference_mode(False):  # a later caller may need gradients
        means, stds = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (mean, std))
        return (1 / (255 * stds)).to(device), (-means / stds).to(device)
