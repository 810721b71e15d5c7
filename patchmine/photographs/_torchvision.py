"""torchvision's JPEG decoder, without the rest of torchvision, whose import takes seconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

_RGB = 3  # torchvision.io.ImageReadMode.RGB


def decode_jpeg(data: bytes) -> Tensor:
    """Decode to RGB as stored, whatever EXIF says: uint8 (3, height, width). Raises RuntimeError."""
    return load_decoder()(torch.frombuffer(bytearray(data), dtype=torch.uint8))


@cache
def torchvision_version() -> str:
    """`torchvision.__version__`, which names the build too, as in 0.29.1+cu130."""
    stated = re.search(r"^__version__ = ['\"](.+)['\"]$", (_folder() / "version.py").read_text(), re.MULTILINE)
    if stated is None:
        import torchvision

        return str(torchvision.__version__)
    return stated[1]


@cache
def load_decoder() -> Callable[[Tensor], Tensor]:
    """Load the operator of torchvision's library; where there is none, all of torchvision with its public function."""
    for library in sorted((*_folder().glob("image*.so"), *_folder().glob("image*.pyd"))):
        try:
            torch.ops.load_library(library)
            operator = torch.ops.image.decode_jpeg.default
        except (OSError, AttributeError):
            continue
        return lambda data: cast(Tensor, operator(data, _RGB, False))
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_jpeg as decode

    return lambda data: decode(data, mode=ImageReadMode.RGB)


def _folder() -> Path:
    found = find_spec("torchvision")  # does not import it
    assert found is not None and found.origin is not None
    return Path(found.origin).parent
