"""The pictures inside an index: of each photograph with a top patch, the part that the network sees, as a JPEG.

A JPEG in the folder `embedded/` has the name of its photograph's digest and the size of the photograph, upright; it is
gray where the network sees nothing. So patches, boxes and placements hold in it as they do in the photograph.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from patchmine.buckets.copies import bring
from patchmine.errors import PhotographError
from patchmine.system.atomic import write_atomically
from patchmine.system.regular_files import LIMIT
from patchmine.system.untrusted_json import Misfit, read_bounded
from patchmine.units import Box

FOLDER = "embedded"

MARGIN = 16
"""A picture is wider than what the network sees by one part in so many on each side: resampling looks beyond edges."""

QUALITY = 95
"""Of the JPEGs, without chroma subsampling: they differ from the photograph by about a gray level."""

_LONGEST = 65_535  # the most pixels of a side of a JPEG


def read(directory: Path, digest: str) -> bytes | None:
    """The picture of the photograph with this digest; None if the index at `directory` has none that can be read."""
    try:
        return read_bounded(_file(directory, digest), LIMIT)
    except (OSError, Misfit):
        return None


def size(directory: Path, digest: str) -> int:
    """The bytes of that picture; 0 if there is none."""
    file = _file(directory, digest)
    return file.stat().st_size if file.is_file() else 0


def write(directory: Path, digest: str, photograph: bytes, seen: Box) -> None:
    """Keep the part of a photograph inside the box `seen` (source pixels). Raises PhotographError and OSError."""
    file = _file(directory, digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, [_jpeg(photograph, seen)])


def join(directory: Path, others: Iterable[Path]) -> None:
    """Take over the pictures of other indexes, of the same network and preprocessing. Raises OSError."""
    for other in others:
        for file in sorted((other / FOLDER).glob("*.jpg")):
            there = directory / FOLDER / file.name
            data = None if there.exists() else read(other, file.stem)
            if data is not None:
                there.parent.mkdir(exist_ok=True)
                write_atomically(there, [data])


def _jpeg(photograph: bytes, seen: Box) -> bytes:
    from PIL import Image  # not at the top: every command reads this module, and few need Pillow

    from patchmine.photographs.upright import own_pillow, upright

    with own_pillow():
        picture = upright(photograph)
        if max(picture.size) > _LONGEST:
            raise PhotographError(f"{picture.width}x{picture.height} pixels are too many for a JPEG")
        across, down = -(-seen.width // MARGIN), -(-seen.height // MARGIN)
        wider = Box(seen.left - across, seen.top - down, seen.right + across, seen.bottom + down)
        kept = wider.intersect(Box(0, 0, *picture.size))
        canvas = Image.new("RGB", picture.size, "#808080")
        canvas.paste(picture.crop(kept.as_tuple()), (kept.left, kept.top))
        data = io.BytesIO()
        canvas.save(data, "JPEG", quality=QUALITY, subsampling=0)
        return data.getvalue()


def _file(directory: Path, digest: str) -> Path:
    file = directory / FOLDER / f"{digest}.jpg"
    bring(file)
    return file
