"""Decode one photograph's bytes to an upright RGB picture with Pillow. Crops are cut from it."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from patchmine.errors import PhotographError
from patchmine.photographs.colors import Rendering, refuse_misread, rendering

MOST_PIXELS = 178_956_970
"""Maximum number of pixels; larger photographs are refused by their header. This is also Pillow's own default."""

KINDS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
"""Supported formats, whatever a file's name (an MPO opens as JPEG). Pillow reads more, such as EPS by Ghostscript."""

WITH_HEIF = ("HEIF", "AVIF")
"""Formats that the extra `heif` adds."""

MOST_SCANNED = 16 * MOST_PIXELS
"""Maximum pixels times scans of a JPEG. Each scan covers the whole picture, so a small file could take very long."""

MOST_SLOW_PIXELS = 1_000_000
"""Maximum pixels of a PPM that is text or not 8-bit: Pillow decodes it slowly, in Python, and blocks all threads."""

# Raised by Pillow's plugins on damaged files. Not Exception: a MemoryError or a bug of ours must surface.
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
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_STRIP_BYTES = 1 << 22


class _OwnPillow:
    """Gives Pillow settings of its own while any thread is inside: no warnings about odd files, our limit of pixels,
    and no picture that is cut short, whatever the session has set.

    One catch_warnings per thread would not work: if two overlap, the second restores the filters of the first, and
    the process stays silent for good.
    """

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.caught = warnings.catch_warnings()
        self.before: tuple[int | None, bool] = (None, False)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.inside:
                self.caught = warnings.catch_warnings()
                self.caught.__enter__()
                warnings.filterwarnings("ignore", module=r"(PIL|torchvision)\.")
                self.before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = MOST_PIXELS // 2, False
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self.before
                    self.caught.__exit__(None, None, None)


own_pillow = _OwnPillow()


def upright(data: bytes, at_least: int | None = None) -> Image.Image:
    """Decode to 8-bit RGB with the EXIF orientation applied, in full resolution.

    With `at_least`, a JPEG may be decoded smaller, which is much faster; its short side keeps at least that many
    pixels. Only the first frame of an animation counts. Raises PhotographError for anything but a whole picture.
    """
    image = opened(data)
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    load(image)
    turn = _TURNS.get(orientation(image))
    image = to_rgb(image)
    return image if turn is None else image.transpose(turn)


def opened(data: bytes) -> Image.Image:
    """Read the header alone: format, mode and size, without decoding.

    Raises PhotographError for anything that `upright` would refuse by its header.
    """
    if not data:
        raise PhotographError("empty file")
    try:
        with own_pillow():
            image = Image.open(io.BytesIO(data), formats=(*KINDS, *with_heif()))
    except UnidentifiedImageError:
        raise PhotographError(_unidentified(data)) from None
    except Image.DecompressionBombError as error:
        raise PhotographError(_too_large(error)) from None
    except DAMAGE as error:
        raise PhotographError(f"damaged: {_one_line(error)}") from None
    _refuse_endless(image, data)
    refuse_misread(image)
    return image


@cache
def with_heif() -> tuple[str, ...]:
    """The formats of the extra `heif`, or none where it is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return ()
    register_heif_opener()
    return WITH_HEIF


def _unidentified(data: bytes) -> str:
    """Why Pillow finds no picture in these bytes."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and not with_heif():
        return "HEIC or AVIF, which needs an extra: pip install 'patchmine[heif]'"
    if data[:4] in _TIFF_HEADS:
        return (
            "a TIFF that is damaged or of unsupported pixels: save it with 8 or 16 bits for each of 1, 3 or 4 channels"
        )
    return f"not an image in a supported format ({' '.join(KINDS)})"


def _refuse_endless(image: Image.Image, data: bytes) -> None:
    """Refuse, by the header, pictures that would take all memory or minutes to decode, however small the file."""
    pixels, size = image.width * image.height, f"{image.width}x{image.height} pixels"
    if pixels > MOST_PIXELS:
        raise PhotographError(f"{size}: more than the limit of {MOST_PIXELS:,}")
    if image.format in ("JPEG", "MPO"):
        # Three bounds on the number of scans, each costlier than the one before; a scan takes at least ten bytes.
        scans = len(data) // 10
        for count in (_start_of_scan_marks, _scans):
            scans = count(data) if pixels * scans > MOST_SCANNED else scans
        if pixels * scans > MOST_SCANNED:
            raise PhotographError(f"{scans} scans of {size}: more than the limit of {MOST_SCANNED // pixels}")
    codec = image.tile[0][0] if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    if codec in ("ppm", "ppm_plain") and pixels > MOST_SLOW_PIXELS:
        raise PhotographError(
            f"{size}: more than the limit of {MOST_SLOW_PIXELS:,} for a PPM that is text or not 8-bit"
        )


def _start_of_scan_marks(data: bytes) -> int:
    """How often the start-of-scan marker occurs anywhere; compares pairs of bytes, which is faster than bytes.count."""
    pairs = (np.frombuffer(data, "<u2", (len(data) - start) // 2, start) for start in (0, 1))
    return sum(int(np.count_nonzero(both == 0xDAFF)) for both in pairs)


def _scans(data: bytes) -> int:
    """The most scans of any one JPEG in these bytes: a file may also hold thumbnails, more frames, or a film."""
    array = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero(array[:-1] == 0xFF)
    codes = array[marks + 1]
    starts, ends = marks[codes == 0xDA], marks[codes == 0xD9]
    return int(np.bincount(np.searchsorted(ends, starts)).max()) if len(starts) else 0


def is_plain_jpeg(data: bytes) -> bool:
    """Whether the header certainly has nothing that `opened` would refuse or `orientation` would act on.

    Only segments of the usual form and length count as plain, so that nothing can be misread. For anything else the
    answer is False, and Pillow reads the header.
    """
    if data[:2] != b"\xff\xd8":
        return False
    at, pixels = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:  # start of scan; each takes at least ten bytes
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
            return False  # tables, comments, JFIF and Adobe blocks are plain; EXIF and all others are not
        at += 2 + length
    return False


def load(image: Image.Image) -> None:
    """Decode an image from `opened`, in the file's own mode. Raises PhotographError."""
    try:
        with own_pillow():
            image.load()
    except Image.DecompressionBombError as error:
        raise PhotographError(_too_large(error)) from None
    except DAMAGE as error:
        raise PhotographError(f"damaged: {_one_line(error)}") from None


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, by which the picture must be turned. A JPEG needs only its header for this."""
    try:
        with own_pillow():
            number = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(number) if number in _TURNS else 1
    except DAMAGE:  # an invalid EXIF block does not damage the picture
        return 1


def turned(stored: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """A picture as stored, uint8 (height, width, 3), turned upright as `upright` turns an Image."""
    if number >= 5:
        stored = stored.swapaxes(0, 1)
    if number in (3, 4, 7, 8):
        stored = stored[::-1]
    if number in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)


@own_pillow()
def to_rgb(image: Image.Image) -> Image.Image:
    """The decoded image in 8-bit RGB, as a viewer shows it: over white where it is transparent.

    Raises PhotographError for pixels whose brightness or color nobody could know.
    """
    render = _rendering(image)
    if render is None:
        return image
    shown = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        shown.paste(_converted(strip, render), (0, top))
    return shown


@own_pillow()
def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """`to_rgb` as an array, uint8 (height, width, 3), without the memory for another RGB Image."""
    render = _rendering(image)
    array = np.empty((image.height, image.width, 3), np.uint8)
    for top, strip in _strips(image):
        array[top : top + strip.height] = np.asarray(strip if render is None else _converted(strip, render))
    return array


def _rendering(image: Image.Image) -> Rendering | None:
    return rendering(image, lambda: (strip for _, strip in _strips(image)))


def _converted(strip: Image.Image, render: Rendering) -> Image.Image:
    try:
        with own_pillow():
            return render(strip)
    except DAMAGE as error:
        raise PhotographError(f"cannot be converted from {strip.mode} to RGB: {_one_line(error)}") from None


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture in full-width strips from the top, as (first row, strip)."""
    rows = max(1, _STRIP_BYTES // (4 * image.width))
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _too_large(error: Image.DecompressionBombError) -> str:
    """Our refusal, with the size and the limit from Pillow's message."""
    numbers = [f"{int(number):,}" for number in re.findall(r"\d+", str(error))]
    return "{} pixels: more than the limit of {}".format(*numbers) if len(numbers) == 2 else _one_line(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
