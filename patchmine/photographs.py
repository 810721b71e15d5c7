"""One photograph's bytes as an upright RGB picture, by Pillow: what crops are cut from."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from patchmine.errors import PhotographError

# What Pillow's plugins raise on damaged files. Not Exception: a MemoryError or a bug of ours must show.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    KeyError,
    EOFError,
    struct.error,
    OverflowError,
    TypeError,
)


def upright(data: bytes, at_least: int | None = None) -> Image.Image:
    """Decode to 8-bit RGB with the EXIF orientation applied, in full resolution.

    With `at_least` a JPEG may come smaller, its short side no shorter than that: a fraction of the time. Only the first
    frame of an animation counts. Raises PhotographError for anything that is not a whole picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
    except UnidentifiedImageError:
        raise PhotographError("not an image" if data else "empty file") from None
    except Image.DecompressionBombError:
        raise PhotographError("more pixels than Pillow accepts") from None
    except DAMAGE as error:
        raise PhotographError(f"damaged: {_one_line(error)}") from None
    return to_rgb(_turned(image))


def _turned(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGE:  # nonsense in the EXIF block does not make the picture worse
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; deeper greys are scaled to 0..255 rather than cut off, alpha is dropped."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "TIFF", "PPM")):
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((deep // 257).astype(np.uint8)).convert("RGB")
    try:
        return image.convert("RGB")
    except DAMAGE as error:
        raise PhotographError(f"cannot be converted from {image.mode} to RGB: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
