"""What a viewer shows of a file, by Pillow and a few lines of arithmetic: the oracle for what patchmine decodes."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def viewed(data: bytes, formats: tuple[str, ...] | None = None) -> NDArray[np.uint8]:
    """The upright picture over white, uint8 (height, width, 3), of pixels in a range that patchmine accepts."""
    with Image.open(io.BytesIO(data), formats=formats) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":
            deep = np.asarray(image).astype(np.float64)
            if image.mode == "F" and deep.max() <= 1:
                gray = np.floor(deep * 255 + 0.5)
            elif image.mode in ("F", "I") and image.format == "TIFF" and deep.max() <= 255:
                gray = deep
            else:
                gray = deep // 257
            return np.repeat(gray.astype(np.uint8)[:, :, None], 3, 2)
        if not image.has_transparency_data:
            return np.asarray(image.convert("RGB"))
        covered = np.asarray(image.convert("RGBA")).astype(np.float64)
        share = covered[..., 3:] / 255
        return np.floor(covered[..., :3] * share + 255 * (1 - share) + 0.5).astype(np.uint8)
