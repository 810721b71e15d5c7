"""Pixels beyond plain 8-bit RGB: shown as a viewer shows them, for crops and for mining alike, or refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from patchmine.errors import PhotographError
from patchmine.photographs.decode import decoder_name, full_size
from patchmine.photographs.upright import upright
from tests.conftest import jpeg

WIDTH, HEIGHT = 64, 4
RAMP = np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))
LEVELS = np.round(RAMP * 255).astype(np.uint8)
RGB = np.stack([LEVELS, LEVELS[:, ::-1], np.full_like(LEVELS, 128)], -1)
HIDDEN = np.where(np.arange(WIDTH) < WIDTH // 2, 255, 0).astype(np.uint8) * np.ones((HEIGHT, 1), np.uint8)
"""An alpha channel: the left half is opaque, the right half transparent."""

OVER_WHITE = np.where(HIDDEN[..., None] == 255, RGB, 255)


def shown(data):
    """The pixels that crops and mining see, int (height, width, 3)."""
    pixels = np.asarray(upright(data)).astype(int)
    assert np.array_equal(pixels, full_size(data).permute(1, 2, 0).numpy())
    return pixels


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(pixels, *, order="<", kind=1, bits=8, photometric=1, planes=1, squeezed=False):
    """A TIFF of these pixels as they are, with the tags that its type has (`kind`: 1 unsigned, 2 signed, 3 float)."""
    packed = pixels if isinstance(pixels, bytes) else pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(packed) if squeezed else packed
    channels = 3 if photometric == 2 else 1
    short, long = 3, 4
    after = 8 + 2 + 12 * 12 + 4
    values = [(258, short, [bits] * channels), (339, short, [kind] * channels)]
    strips = channels if planes == 2 else 1
    offset = after + 16 * len(values) + 24
    size = len(data) // strips
    values += [(273, long, [offset + n * size for n in range(strips)]), (279, long, [size] * strips)]
    single = {
        256: WIDTH,
        257: HEIGHT,
        259: 8 if squeezed else 1,
        262: photometric,
        277: channels,
        278: HEIGHT,
        284: planes,
    }
    tags = sorted([*values, *((tag, short, [value]) for tag, value in single.items())])
    entries, extra = b"", b""
    for tag, width, numbers in tags:
        body = struct.pack(order + ("H" if width == short else "I") * len(numbers), *numbers)
        if len(body) > 4:
            place = struct.pack(order + "I", 8 + 2 + 12 * len(tags) + 4 + len(extra))
            extra += body
        else:
            place = body.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, width, len(numbers)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    whole = head + entries + bytes(4) + extra
    return whole.ljust(offset, b"\0") + data


def png(pixels, color, *chunks):
    """An 8-bit PNG with further chunks (name, content) before its pixels."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, color, 0, 0, 0)
    blocks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    checked = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in blocks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(checked)


def profile(space):
    """An RGB or gray color profile of gamma 1.0, built from the sRGB profile of Pillow by changing its curves."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", data, 128)[0]
    for n in range(count):
        name, offset, _ = struct.unpack_from(">4sII", data, 132 + 12 * n)
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + 12] = b"curv" + bytes(8)
        if space == b"GRAY" and name == b"gTRC":
            data[132 + 12 * n : 136 + 12 * n] = b"kTRC"
    data[16:20] = space
    return bytes(data)


GRAYS = {
    "float from 0 to 1": tiff(RAMP.astype(np.float32), bits=32, kind=3),
    "float of whole numbers": tiff(LEVELS.astype(np.float32), bits=32, kind=3, order=">"),
    "float, compressed": tiff(RAMP.astype(np.float32), bits=32, kind=3, squeezed=True),
    "32-bit of 8": tiff(LEVELS.astype(np.int32), bits=32, kind=2),
    "32-bit of 16": tiff(LEVELS.astype(np.int32) * 257, bits=32, kind=2, order=">"),
    "16-bit": tiff(LEVELS.astype(np.uint16) * 257, bits=16),
    "16-bit, big-endian": tiff(LEVELS.astype(np.uint16) * 257, bits=16, order=">"),
    "16-bit, white is zero": tiff(65535 - LEVELS.astype(np.uint16) * 257, bits=16, photometric=0),
    "8-bit, white is zero": tiff(255 - LEVELS, photometric=0),
    "PFM": b"Pf\n%d %d\n-1.0\n" % (WIDTH, HEIGHT) + RAMP.astype("<f4").tobytes(),
}


@pytest.mark.parametrize("name", GRAYS)
def test_grays_of_every_depth_and_range_have_the_brightness_of_the_same_8_bit_gray(name):
    assert np.abs(shown(GRAYS[name]) - LEVELS[..., None]).max() <= 1


def test_a_12_bit_tiff_fills_the_range():
    levels = np.round(RAMP * 4095).astype(np.uint16)
    bits = np.unpackbits(levels.astype(">u2").view(np.uint8).reshape(HEIGHT, WIDTH, 2), axis=2)[:, :, 4:]
    data = tiff(np.packbits(bits.reshape(HEIGHT, -1), axis=1).tobytes(), bits=12)
    assert np.abs(shown(data) - LEVELS[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (tiff((RAMP * 3).astype(np.float32), bits=32, kind=3), "float pixels from 0 to 3: only 0 to 1"),
        (tiff((RAMP - 0.5).astype(np.float32), bits=32, kind=3), "float pixels from -0.5 to 0.5"),
        (tiff(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), bits=32, kind=3), "float pixels from nan to nan"),
        (tiff(LEVELS.astype(np.int32) - 9, bits=32, kind=2), "whole-number pixels from -9 to 246"),
        (tiff(LEVELS.astype(np.uint32) << 20, bits=32), "whole-number pixels from 0 to 2.6"),
        (tiff(LEVELS.astype(np.int8), kind=2), "a TIFF of signed 8-bit pixels"),
        (tiff(RAMP.astype(np.float32), bits=32, kind=3, order=">", squeezed=True), "a compressed big-endian TIFF"),
        (tiff(RGB.astype(np.uint16).transpose(2, 0, 1), bits=16, photometric=2, planes=2), "separate color planes"),
        (tiff(RAMP.astype(np.float32), bits=32, kind=3, photometric=0), "a TIFF of 32-bit pixels whose zero is white"),
        (tiff(RAMP, bits=64, kind=3), "a TIFF that is damaged or of unsupported pixels"),
    ],
)
def test_pixels_of_no_known_brightness_are_refused_by_name(data, answer):
    for read in (upright, full_size):
        with pytest.raises(PhotographError, match=answer) as caught:
            read(data)
        assert "\n" not in str(caught.value)


def with_alpha(*channels):
    return np.concatenate([*(c if c.ndim == 3 else c[..., None] for c in channels), HIDDEN[..., None]], -1)


TRANSPARENT = {
    "PNG": saved(with_alpha(RGB), "PNG"),
    "WebP": saved(with_alpha(RGB), "WEBP", lossless=True),
    "TIFF": saved(with_alpha(RGB), "TIFF"),
    "gray": saved(with_alpha(LEVELS), "PNG"),
    "palette": saved(Image.fromarray(LEVELS).convert("P"), "PNG", transparency=bytes([255] * 128 + [0] * 128)),
    "GIF": saved(Image.fromarray(np.where(HIDDEN == 255, LEVELS, 255)).convert("P"), "GIF", transparency=255),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_pixels_are_shown_over_white_and_opaque_ones_as_stored(name):
    colors = OVER_WHITE if name in ("PNG", "WebP", "TIFF") else np.where(HIDDEN == 255, LEVELS, 255)[..., None]
    assert np.array_equal(shown(TRANSPARENT[name]), np.broadcast_to(colors, RGB.shape))


def test_a_color_that_a_png_declares_transparent_is_white():
    data = png(RGB, 2, (b"tRNS", struct.pack(">HHH", *RGB[0, 0].tolist())))
    assert shown(data)[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(shown(data)[:, 1:], RGB[:, 1:])


def test_half_transparent_pixels_are_mixed_with_white():
    data = saved(np.dstack([np.full((2, 2, 3), 100, np.uint8), np.full((2, 2), 51, np.uint8)]), "PNG")
    assert shown(data)[0, 0].tolist() == [224, 224, 224]  # 100 / 5 + 255 * 4 / 5


def test_the_gamma_of_a_png_counts_where_it_is_not_that_of_screens():
    linear = shown(png(RGB, 2, (b"gAMA", struct.pack(">I", 100_000))))
    assert linear[0, 0].tolist() == [0, 255, 186]  # 255 * (128 / 255) ** (1 / 2.2)
    for chunks in ([(b"gAMA", struct.pack(">I", 45_455))], [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))]):
        assert np.array_equal(shown(png(RGB, 2, *chunks)), RGB)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_color_profile_counts_except_in_jpeg_and_a_damaged_one_does_not(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    linear = shown(saved(RGB, kind, icc_profile=profile(b"RGB "), **options))
    assert abs(linear[0, 0, 2] - 188) <= 1  # sRGB's curve at 128 / 255
    assert np.array_equal(shown(saved(RGB, kind, icc_profile=b"no profile", **options)), RGB)
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(shown(saved(RGB, kind, icc_profile=same, **options)), RGB)


def test_a_gray_profile_counts_under_transparency_too():
    data = saved(with_alpha(np.full_like(LEVELS, 128)), "PNG", icc_profile=profile(b"GRAY"))
    assert np.abs(shown(data)[:, 0] - 188).max() <= 1
    assert shown(data)[:, -1].min() == 255


def test_a_jpeg_keeps_its_stored_values_whatever_its_profile():
    picture = Image.fromarray(RGB).resize((64, 64))
    assert np.array_equal(shown(jpeg(picture, icc_profile=profile(b"RGB "))), shown(jpeg(picture)))


@pytest.mark.parametrize("marked", [True, False])
def test_a_cmyk_jpeg_is_decoded_alike_for_crops_and_mining_with_and_without_adobes_mark(marked):
    picture = Image.fromarray(RGB).resize((64, 64))
    data = jpeg(picture.convert("CMYK"), quality=98)
    at = data.index(b"\xff\xee\0\x0eAdobe")
    assert np.abs(shown(data if marked else data[:at] + data[at + 16 :]) - np.asarray(picture)).max() < 40


def test_heic_and_avif_are_read_with_the_extra_and_name_it_without(monkeypatch):
    whole = b"\0\0\0\x1cftypheic" + bytes(60)
    monkeypatch.setattr("patchmine.photographs.upright.with_heif", lambda: ())
    with pytest.raises(PhotographError, match=r"HEIC or AVIF, .* pip install 'patchmine\[heif\]'"):
        upright(whole)
    assert "pillow-heif" not in decoder_name(["a.jpg", "b.png"])
