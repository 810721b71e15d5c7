"""Crops as JPEG files in a folder for each unit, with names that sort by layer, channel, pick and rank."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from patchmine.errors import PhotographError
from patchmine.exports import Export
from patchmine.exports._rows import row
from patchmine.reading.opened import OpenUnit
from patchmine.reading.patch import Patch
from patchmine.system import digests

LONGEST = 80
"""The most characters of a name in that of a file."""

QUALITY = 95
"""Of the JPEGs, without chroma subsampling."""


def pictures(export: Export) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """The path of each crop in the folder, its JPEG, and the row of its patch.

    Reports the photographs that cannot be read.
    """
    with ThreadPoolExecutor(export.asked.workers) as pool:
        for unit, patches in export.every():
            crops = pool.map(_crop, [patch for _, patch in patches])
            for (pick, patch), crop in zip(patches, crops, strict=True):
                if isinstance(crop, PhotographError):
                    export.missing(patch.image, crop)
                else:
                    yield _path(export, unit, pick, patch), crop, row(export, unit, pick, patch)


def write_pictures(export: Export, out: Path) -> Iterator[dict[str, Any]]:
    """Write every crop; yields the row of each, with its path in the folder as `file_name` in front."""
    for path, crop, facts in pictures(export):
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(crop)
        yield {"file_name": path, **facts}


def file_name(word: str) -> str:
    """The name of a layer or unit as that of a file or folder, which is the same for common names."""
    name = quote(word, safe=" @+,=()[]")
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{digests.of_bytes(word.encode('utf-8', 'surrogateescape'))[:12]}"
    return name if name.strip(".") else name.replace(".", "%2E")


def _crop(patch: Patch) -> bytes | PhotographError:
    try:
        return jpeg(patch.crop()) if patch.box.area else PhotographError("the network sees nothing of it here")
    except PhotographError as error:
        return error


def jpeg(picture: Any) -> bytes:
    """A Pillow picture as the bytes of a JPEG."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=QUALITY, subsampling=0)
    return data.getvalue()


def _path(export: Export, unit: OpenUnit, pick: str, patch: Patch) -> str:
    digits = len(str(export.index.layers[unit.unit.layer] - 1))
    rank = f"{patch.rank:0{len(str(export.k))}}"
    name = f"{unit.unit.channel:0{digits}}-{file_name(unit.name)}"
    return f"{file_name(unit.unit.layer)}/{name}/{pick.replace(':', '-')}-{rank}.jpg"
