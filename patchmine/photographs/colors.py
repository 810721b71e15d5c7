"""From the pixels of a file, of any depth and color model, to the 8-bit RGB that a viewer shows.

Pixels that nobody could show without guessing, such as floats of no known range, are refused. Color profiles count for
CMYK and for every format but JPEG: a gray or RGB JPEG keeps its stored values, as in the training of most networks.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from patchmine.errors import PhotographError

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

NEARLY_SRGB = 8
"""A profile that moves no color by more than this many of 255 levels counts as sRGB."""

SCREEN = 1 / 2.2
"""The gamma of a PNG that is stored as screens show it."""

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES, _SAMPLES = 258, 259, 262, 284, 339
"""Tags of a TIFF."""

_WHITE_IS_ZERO, _UNCOMPRESSED, _SEPARATE, _SIGNED = 0, 1, 2, 2
"""Values of such tags."""

Levels = Callable[[NDArray[np.generic]], NDArray[np.uint8]]
"""Makes levels 0..255 of deep gray pixels."""

Rendering = Callable[[Image.Image], Image.Image]
"""Makes RGB of a strip of one image."""


def refuse_misread(image: Image.Image) -> None:
    """Refuse, by the header, the TIFFs that Pillow would decode to wrong pixels. Raises PhotographError."""
    if not isinstance(image, TiffImageFile):
        return
    bits, samples, raw = _tag(image, _BITS, 1), _tag(image, _SAMPLES, 1), _tag(image, _COMPRESSION, 1) == _UNCOMPRESSED
    if bits == 8 and samples == _SIGNED:
        raise PhotographError("a TIFF of signed 8-bit pixels: save it with unsigned ones")
    if bits == 16 and raw and _tag(image, _PLANES, 1) == _SEPARATE and len(image.getbands()) > 1:
        raise PhotographError("a 16-bit TIFF of separate color planes: save it with interleaved ones, or compressed")
    if image.mode in ("I", "F") and _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        raise PhotographError(f"a TIFF of {bits}-bit pixels whose zero is white: save it with black as zero")
    if image.mode in ("I", "F") and not raw and image.tag_v2.prefix == b"MM":
        raise PhotographError(f"a compressed big-endian TIFF of {bits}-bit pixels: save it little-endian")


def rendering(image: Image.Image, strips: Callable[[], Iterator[Image.Image]]) -> Rendering | None:
    """How to make RGB of the strips of a decoded image; None if it is RGB as it is.

    `strips` gives the image strip by strip, to find the range of deep pixels. Raises PhotographError.
    """
    levels = _levels(image, strips)
    profile = image.info.get("icc_profile") if image.mode == "CMYK" or image.format not in ("JPEG", "MPO") else None
    model = _model(image)
    transform = _transform(bytes(profile), model) if profile else None
    curve = _curve(image) if not profile else None
    if image.mode == "RGB" and not (transform or curve or image.has_transparency_data):
        return None
    return _Renderer(levels, model, transform, curve)


@dataclass(frozen=True)
class _Renderer:
    """The steps from stored pixels to those on a screen, in their order; None where there is nothing to do."""

    levels: Levels | None
    model: str
    transform: ImageCmsTransform | None
    curve: list[int] | None

    def __call__(self, strip: Image.Image) -> Image.Image:
        if self.levels is not None:
            strip = Image.fromarray(self.levels(np.asarray(strip)))
        alpha = None
        if strip.has_transparency_data:
            covered = strip.convert("RGBA")
            alpha = covered.getchannel("A")
            strip = strip.convert("L") if strip.mode == "LA" else covered
        if self.transform is not None:
            strip = self.transform.apply(strip.convert(self.model))
        strip = strip.convert("RGB")
        if self.curve is not None:
            strip = strip.point(self.curve * 3)
        if alpha is None:
            return strip
        page = Image.new("RGB", strip.size, "white")
        page.paste(strip, mask=alpha)
        return page


def _model(image: Image.Image) -> str:
    """The color model of the image after its depth and transparency are resolved: L, RGB or CMYK."""
    if image.mode in ("L", "LA", "1") or image.mode[0] in "IF":
        return "L"
    return "CMYK" if image.mode == "CMYK" else "RGB"


def _levels(image: Image.Image, strips: Callable[[], Iterator[Image.Image]]) -> Levels | None:
    """How deep gray pixels become levels 0..255; None for 8 bits or fewer."""
    if image.mode.startswith("I;16"):
        if isinstance(image, TiffImageFile):
            return _of_tiff(image)
        return _of_sixteen_bits
    if image.mode not in ("I", "F"):
        return None
    low, high, whole = _range(strips())
    if image.format == "PPM" and image.mode == "I":  # Pillow scales it to 16 bits
        return _of_sixteen_bits
    if image.mode == "F" and low >= 0 and high <= 1:
        return lambda pixels: (pixels.astype(np.float32) * 255 + 0.5).astype(np.uint8)
    if whole and low >= 0 and high <= 255:
        return lambda pixels: pixels.astype(np.uint8)
    if whole and low >= 0 and high <= 65535:
        return _of_sixteen_bits
    kind = "float" if image.mode == "F" else "whole-number"
    known = "only 0 to 1, and whole numbers from 0 to 65535, have a known brightness"
    raise PhotographError(f"{kind} pixels from {low:g} to {high:g}: {known}")


def _of_sixteen_bits(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    return (pixels.astype(np.int64) // 257).astype(np.uint8)


def _of_tiff(image: TiffImageFile) -> Levels:
    """Levels of a TIFF of up to 16 bits, which Pillow neither scales nor turns from negative to positive."""
    most = (1 << min(_tag(image, _BITS, 16), 16)) - 1
    inverted = _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO

    def levels(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
        positive = most - pixels.astype(np.int64) if inverted else pixels.astype(np.int64)
        return (positive * 255 // most).astype(np.uint8)

    return levels


def _range(strips: Iterator[Image.Image]) -> tuple[float, float, bool]:
    """The least and the greatest pixel, NaN if any is not finite, and whether all are whole numbers."""
    low, high, whole = np.inf, -np.inf, True
    for strip in strips:
        pixels = np.asarray(strip)
        if not np.isfinite(pixels).all():
            return np.nan, np.nan, False
        low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
        whole = whole and bool((pixels == np.floor(pixels)).all())
    return low, high, whole


def _curve(image: Image.Image) -> list[int] | None:
    """A table from stored to shown levels for a PNG of another gamma than a screen's, else None."""
    gamma = image.info.get("gamma")
    if image.format != "PNG" or not gamma or "srgb" in image.info or abs(gamma / SCREEN - 1) < 0.05:
        return None
    return [round(255 * (level / 255) ** (SCREEN / gamma)) for level in range(256)]


@lru_cache(8)
def _transform(profile: bytes, model: str) -> ImageCmsTransform | None:
    """The way from a color profile to sRGB; None if it is nearly sRGB, damaged, or of another color model."""
    try:
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[model]:
            return None
        screen = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        found = ImageCms.ImageCmsTransform(source, screen, model, "RGB")
    except (ImportError, OSError, ValueError, TypeError):
        return None
    if model == "CMYK":
        return found
    colors = np.stack(np.meshgrid(*[np.linspace(0, 255, 9).astype(np.uint8)] * 3), -1).reshape(27, 27, 3)
    probe = Image.fromarray(colors).convert(model)
    moved = np.asarray(found.apply(probe), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    return found if np.abs(moved).max() > NEARLY_SRGB else None


def _tag(image: TiffImageFile, number: int, default: int) -> int:
    """The first value of a TIFF's tag."""
    value = image.tag_v2.get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)
