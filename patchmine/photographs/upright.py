"""One photograph's bytes as an upright RGB picture, by Pillow: what crops are cut from."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from patchmine.errors import PhotographError

MOST_PIXELS = 178_956_970
"""Larger photographs are refused by their header. Pillow draws the line here too, where nobody has moved it."""

KINDS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
"""What is read, whatever a file is called (an MPO is opened as JPEG). Pillow reads more: EPS, say, by ghostscript."""

MOST_SCANNED = 16 * MOST_PIXELS
"""Pixels times scans of a JPEG. Each scan goes over the whole picture: without this, 300 KB can ask for an hour."""

MOST_SLOW_PIXELS = 1_000_000
"""Of a PPM that is text or not of 8 bits: Pillow decodes it in Python, 5 s for as many, and holds up all threads."""

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

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STRIP_BYTES = 1 << 22


def upright(data: bytes, at_least: int | None = None) -> Image.Image:
    """Decode to 8-bit RGB with the EXIF orientation applied, in full resolution.

    With `at_least` a JPEG may come smaller, its short side no shorter than that: a fraction of the time. Only the first
    frame of an animation counts. Raises PhotographError for anything that is not a whole picture.
    """
    image = opened(data)
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    load(image)
    turn = _TURNS.get(orientation(image))
    image = to_rgb(image)
    return image if turn is None else image.transpose(turn)


def opened(data: bytes) -> Image.Image:
    """The header alone: kind, mode and size are known, nothing is decoded. Refuses what `upright` would by these."""
    if not data:
        raise PhotographError("empty file")
    try:
        with _quiet():
            image = Image.open(io.BytesIO(data), formats=KINDS)
    except UnidentifiedImageError:
        raise PhotographError(f"not an image of a kind that is read ({' '.join(KINDS)})") from None
    except Image.DecompressionBombError as error:
        raise PhotographError(_too_large(error)) from None
    except DAMAGE as error:
        raise PhotographError(f"damaged: {_one_line(error)}") from None
    _refuse_endless(image, data)
    return image


def _refuse_endless(image: Image.Image, data: bytes) -> None:
    """By the header: what would take all the memory, or minutes, while the file may be small."""
    pixels, size = image.width * image.height, f"{image.width}x{image.height} pixels"
    if pixels > MOST_PIXELS:
        raise PhotographError(f"{size}: more than the {MOST_PIXELS:,} that are decoded")
    if image.format in ("JPEG", "MPO"):
        # Three bounds on the number of scans, each dearer than the one before; a scan takes ten bytes at least.
        scans = len(data) // 10
        for count in (_start_of_scan_marks, _scans):
            scans = count(data) if pixels * scans > MOST_SCANNED else scans
        if pixels * scans > MOST_SCANNED:
            raise PhotographError(f"{scans} scans of {size}: more than the {MOST_SCANNED // pixels} that are decoded")
    codec = image.tile[0][0] if isinstance(image, ImageFile) and image.tile else ""
    if codec in ("ppm", "ppm_plain") and pixels > MOST_SLOW_PIXELS:
        raise PhotographError(
            f"{size}: more than the {MOST_SLOW_PIXELS:,} that are decoded of a PPM that is text or not of 8 bits"
        )


def _start_of_scan_marks(data: bytes) -> int:
    """How often the two bytes occur, anywhere; in pairs, which is faster than bytes.count."""
    pairs = (np.frombuffer(data, "<u2", (len(data) - start) // 2, start) for start in (0, 1))
    return sum(int(np.count_nonzero(both == 0xDAFF)) for both in pairs)


def _scans(data: bytes) -> int:
    """The most scans that any JPEG in these bytes has: a file may hold thumbnails, further frames, a film behind it."""
    array = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero(array[:-1] == 0xFF)
    codes = array[marks + 1]
    starts, ends = marks[codes == 0xDA], marks[codes == 0xD9]
    return int(np.bincount(np.searchsorted(ends, starts)).max()) if len(starts) else 0


def is_plain_jpeg(data: bytes) -> bool:
    """Whether the header can say nothing that `opened` or `orientation` would object to or act on.

    Only segments of the usual form and length count as plain, so there is nothing to misread; for anything else the
    answer is no, and Pillow reads the header, which takes a tenth of the time that the whole photograph does.
    """
    if data[:2] != b"\xff\xd8":
        return False
    at, pixels = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:  # start of scan; each takes ten bytes at least
            few = pixels * (len(data) // 10) <= MOST_SCANNED or pixels * _start_of_scan_marks(data) <= MOST_SCANNED
            return 0 < pixels <= MOST_PIXELS and few
        if marker in (0xC0, 0xC1, 0xC2) and not pixels and data[at + 4] == 8:
            layers = data[at + 9]
            if layers not in (1, 3) or length != 8 + 3 * layers:
                return False
            pixels = int.from_bytes(data[at + 5 : at + 7], "big") * int.from_bytes(data[at + 7 : at + 9], "big")
        elif marker == 0xE2:
            if length < 16 or data[at + 4 : at + 16] != b"ICC_PROFILE\0":
                return False
        elif marker not in (0xC4, 0xDB, 0xDD, 0xFE) and (marker, length) not in ((0xE0, 16), (0xEE, 14)):
            return False  # tables, comment, JFIF and Adobe blocks are plain; EXIF and whatever else is not
        at += 2 + length
    return False


def load(image: Image.Image) -> None:
    """Decode what `opened` returned, in the file's own mode."""
    try:
        with _quiet():
            image.load()
    except Image.DecompressionBombError as error:
        raise PhotographError(_too_large(error)) from None
    except DAMAGE as error:
        raise PhotographError(f"damaged: {_one_line(error)}") from None


def orientation(image: Image.Image) -> int:
    """EXIF's number, 1 to 8: how the picture has to be turned. For a JPEG the header is enough; others are loaded."""
    try:
        with _quiet():
            number = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(number) if number in _TURNS else 1
    except DAMAGE:  # nonsense in the EXIF block does not make the picture worse
        return 1


def turned(stored: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """An array (height, width, 3) of a picture as stored, turned upright: what `upright` does to an Image."""
    if number >= 5:
        stored = stored.swapaxes(0, 1)
    if number in (3, 4, 7, 8):
        stored = stored[::-1]
    if number in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; deeper greys are scaled to 0..255 rather than cut off, alpha is dropped."""
    if image.mode == "RGB":
        return image
    if _is_deep(image):
        grey = Image.new("L", image.size)
        for top, strip in _strips(image):
            grey.paste(_shallow(strip), (0, top))
        image = grey
    return _converted(image)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """`to_rgb` as an array (height, width, 3), without the memory for an RGB Image beside it."""
    array, deep = np.empty((image.height, image.width, 3), np.uint8), _is_deep(image)
    for top, strip in _strips(image):
        array[top : top + strip.height] = np.asarray(_converted(_shallow(strip) if deep else strip))
    return array


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "TIFF", "PPM"))


def _shallow(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))


def _converted(image: Image.Image) -> Image.Image:
    try:
        with _quiet():
            return image.convert("RGB")
    except DAMAGE as error:
        raise PhotographError(f"cannot be converted from {image.mode} to RGB: {_one_line(error)}") from None


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture in strips of full width from the top, each with its first row."""
    rows = max(1, _STRIP_BYTES // (4 * image.width))
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _too_large(error: Image.DecompressionBombError) -> str:
    """Pillow's own words hold the size and the limit, which is another than ours where somebody has set it lower."""
    numbers = [f"{int(number):,}" for number in re.findall(r"\d+", str(error))]
    return "{} pixels: more than the {} that are decoded".format(*numbers) if len(numbers) == 2 else _one_line(error)


class _Quiet:
    """Silences Pillow's warnings about odd files while any thread is inside.

    A catch_warnings for each thread would not do: where two overlap, the second puts back the filters of the first,
    and the process stays silent for good.
    """

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.caught = warnings.catch_warnings()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.inside:
                self.caught = warnings.catch_warnings()
                self.caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    self.caught.__exit__(None, None, None)


_quiet = _Quiet()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
