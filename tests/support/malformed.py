"""Malformed photographs by the thousand: broken, cut short, huge by their header, or no photograph at all.

Everything is drawn from a seed; no file is needed. The tests feed them to patchmine.
"""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

WIDTH, HEIGHT = 83, 61
HUGE = 65_500  # as a width and a height: 4,290,250,000 pixels
LARGE = 13_000  # within what is decoded, if the file had the data

SUFFIXES = ("jpg", "png", "webp", "tif", "gif", "bmp", "ppm")


@dataclass(frozen=True)
class Malformed:
    """A file's name, without a number, and its bytes."""

    name: str
    suffix: str
    data: bytes


def malformed(count: int, seed: int = 0) -> Iterator[Malformed]:
    """`count` files: the bombs and foreign kinds first, the others mutations of the bases in turn."""
    rng = random.Random(seed)
    seeds = bases(seed)
    fixed = chain(bombs(seeds), foreign(seeds), seeds)
    return islice(chain(fixed, mutations(seeds, rng)), count)


# Whole files of every kind


def bases(seed: int = 0) -> list[Malformed]:
    """Small whole files of each kind that Pillow writes."""
    return [Malformed(name, suffix, data) for name, suffix, data in _bases(np.random.default_rng(seed))]


def _bases(rng: np.random.Generator) -> Iterator[tuple[str, str, bytes]]:
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    rgb = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    gray, palette = rgb.convert("L"), rgb.quantize(32)
    other = rgb.transpose(Image.Transpose.ROTATE_180)
    alpha = rgb.copy()
    alpha.putalpha(gray)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    wide = Image.fromarray(np.asarray(gray).astype(np.int32) * 257)
    real = Image.fromarray(np.asarray(gray).astype(np.float32) / 255)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.profileToProfile(
        rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x9003] = 6, "a camera", "2001:01:01 00:00:00"
    exif.get_ifd(0x8769)[0x927C] = bytes(200)
    assert lab is not None

    def saved(
        name: str, picture: Image.Image, kind: str, suffix: str, **options: Any
    ) -> Iterator[tuple[str, str, bytes]]:
        buffer = io.BytesIO()
        try:
            picture.save(buffer, kind, **options)
        except (OSError, ValueError, KeyError, RuntimeError):
            return  # this kind does not hold this mode
        yield name, suffix, buffer.getvalue()

    jpegs: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("rgb", rgb, {}),
        ("gray", gray, {}),
        ("cmyk", rgb.convert("CMYK"), {}),
        ("progressive", rgb, {"progressive": True}),
        ("progressive-cmyk", rgb.convert("CMYK"), {"progressive": True}),
        ("444", rgb, {"subsampling": 0, "optimize": True}),
        ("restarts", rgb, {"restart_marker_blocks": 3}),
        ("exif", rgb, {"exif": exif}),
        ("icc", rgb, {"icc_profile": profile, "comment": b"a comment", "dpi": (72, 72)}),
    ]
    for name, picture, options in jpegs:
        yield from saved(f"jpeg-{name}", picture, "JPEG", "jpg", **options)
    yield from saved("mpo", rgb, "MPO", "jpg", save_all=True, append_images=[other])

    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a title", zip=True)
    text.add_itxt("Comment", "a comment", zip=True)
    modes = {"1": rgb.convert("1"), "L": gray, "LA": alpha.convert("LA"), "P": palette, "RGB": rgb, "RGBA": alpha}
    modes |= {
        "I;16": deep,
        "I": wide,
        "F": real,
        "CMYK": rgb.convert("CMYK"),
        "YCbCr": rgb.convert("YCbCr"),
        "LAB": lab,
    }
    for mode, picture in modes.items():
        yield from saved(f"png-{mode.replace(';', '')}", picture, "PNG", "png")
    yield from saved("png-transparent", palette, "PNG", "png", transparency=bytes(range(0, 256, 8)))
    yield from saved("png-blocks", rgb, "PNG", "png", exif=exif, icc_profile=profile, pnginfo=text, dpi=(72, 72))
    yield from saved("png-animated", rgb, "PNG", "png", save_all=True, append_images=[other], duration=50)

    yield from saved("webp-lossy", rgb, "WEBP", "webp", exif=exif)
    yield from saved("webp-alpha", alpha, "WEBP", "webp", icc_profile=profile)
    yield from saved("webp-lossless", alpha, "WEBP", "webp", lossless=True)
    yield from saved("webp-animated", rgb, "WEBP", "webp", save_all=True, append_images=[other, rgb])

    for squeeze in (None, "packbits", "tiff_lzw", "tiff_adobe_deflate", "lzma", "zstd", "jpeg"):
        for mode, picture in modes.items():
            if squeeze == "jpeg" and mode not in ("L", "RGB", "CMYK", "YCbCr"):
                continue
            name = f"tiff-{squeeze or 'raw'}-{mode.replace(';', '')}"
            yield from saved(name, picture, "TIFF", "tif", **({"compression": squeeze} if squeeze else {}))
    for squeeze in ("group3", "group4", "tiff_ccitt"):
        yield from saved(f"tiff-{squeeze}", rgb.convert("1"), "TIFF", "tif", compression=squeeze)
    yield from saved("tiff-pages", rgb, "TIFF", "tif", save_all=True, append_images=[gray, palette])
    yield from saved("tiff-big", rgb, "TIFF", "tif", big_tiff=True, exif=exif, icc_profile=profile)

    yield from saved("gif", palette, "GIF", "gif", interlace=1)
    yield from saved("gif-gray", gray, "GIF", "gif", interlace=0, transparency=7)
    yield from saved("gif-animated", palette, "GIF", "gif", save_all=True, append_images=[other.quantize(16)])
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield from saved(f"bmp-{mode}", modes[mode], "BMP", "bmp")
    yield from saved("dib", rgb, "DIB", "bmp")
    for mode in ("1", "L", "RGB", "I;16", "F"):
        yield from saved(f"ppm-{mode.replace(';', '')}", modes[mode], "PPM", "ppm")
    numbers = " ".join(map(str, np.asarray(rgb).ravel()))
    yield "ppm-text", "ppm", f"P3\n# a comment\n{WIDTH} {HEIGHT}\n255\n{numbers}\n".encode()
    yield (
        "ppm-1000",
        "ppm",
        b"P6 %d %d 1000\n" % (WIDTH, HEIGHT) + np.asarray(deep.convert("RGB")).astype(">u2").tobytes(),
    )
    yield "bmp-rle", "bmp", _bmp_rle(WIDTH, HEIGHT, (bytes([WIDTH, 5]) + b"\0\0") * HEIGHT + b"\0\1")


# Damage


def mutations(seeds: list[Malformed], rng: random.Random) -> Iterator[Malformed]:
    """Without end: bases with one to three kinds of damage; now and then under another's suffix."""
    by_suffix = {suffix: [base for base in seeds if base.suffix == suffix] for suffix in SUFFIXES}
    while True:
        for suffix in ("jpg", *SUFFIXES):  # most photographs are JPEGs
            base = rng.choice(by_suffix[suffix])
            chosen = rng.choices(list(DAMAGES), k=rng.choice((1, 1, 1, 2, 3)))
            data = base.data
            for name in chosen:
                data = DAMAGES[name](data, rng) if data else data
            if rng.random() < 0.05:
                data, chosen = data[: rng.randrange(len(data) + 1)] + rng.choice(seeds).data[-200:], [*chosen, "splice"]
            suffix = rng.choice(SUFFIXES) if rng.random() < 0.05 else base.suffix
            yield Malformed(f"{base.name}-{'-'.join(chosen)}", suffix, data)


def _flip(data: bytes, rng: random.Random) -> bytes:
    array = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        array[rng.randrange(len(array))] ^= 1 << rng.randrange(8)
    return bytes(array)


def _header(data: bytes, rng: random.Random) -> bytes:
    """A field of the first bytes, where sizes, counts and offsets stand, becomes an extreme or a random number."""
    width = rng.choice((1, 2, 4))
    at = rng.randrange(min(len(data), rng.choice((40, 300))))
    number = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)))
    field = (number & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(("big", "little")))
    return data[:at] + field + data[at + width :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[
        : rng.choice((rng.randrange(len(data)), len(data) - 1, len(data) - 2, rng.randrange(min(len(data), 64))))
    ]


def _block(change: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    """Damage to a run of bytes anywhere."""

    def damage(data: bytes, rng: random.Random) -> bytes:
        start = rng.randrange(len(data))
        stop = min(len(data), start + rng.choice((1, 4, 40, 400)))
        return data[:start] + change(data[start:stop], rng) + data[stop:]

    return damage


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": _flip,
    "header": _header,
    "cut": _cut,
    "delete": _block(lambda _block, _rng: b""),
    "insert": _block(lambda block, rng: block + rng.randbytes(rng.choice((1, 7, 300)))),
    "double": _block(lambda block, _rng: block + block),
    "zero": _block(lambda block, _rng: bytes(len(block))),
    "ones": _block(lambda block, _rng: b"\xff" * len(block)),
    "noise": _block(lambda block, rng: rng.randbytes(len(block))),
    "reverse": _block(lambda block, _rng: block[::-1]),
    "append": lambda data, rng: data + rng.randbytes(rng.choice((1, 1000))),
}


# Bombs: small files that ask for much


def bombs(seeds: list[Malformed]) -> Iterator[Malformed]:
    by_name = {base.name: base.data for base in seeds}
    for name in ("jpeg-rgb", "jpeg-gray", "jpeg-cmyk", "jpeg-progressive"):
        for side in (HUGE, LARGE):
            yield Malformed(f"bomb-{name}-{side}", "jpg", jpeg_declaring(by_name[name], side, side))
    yield Malformed("bomb-jpeg-scans", "jpg", many_scans(3000, 1000))
    for mode, colour in (("RGB", 2), ("L", 0), ("RGBA", 6), ("P", 3)):
        for side in (HUGE, LARGE):
            yield Malformed(f"bomb-png-{mode}-{side}", "png", png(side, side, colour, zlib.compress(bytes(500))))
    rows = zlib.compress(bytes(1 << 27), 9)
    yield Malformed("bomb-png-deflate", "png", png(64, 64, 2, rows))
    small = zlib.compress((b"\0" + bytes(3 * 64)) * 64)
    zipped = b"Title\0\0" + rows
    overlapping = _overlapping(60_000, 700_000)
    for name, kind, block in [
        ("ztxt", b"zTXt", zipped),
        ("itxt", b"iTXt", b"Title\0\1\0\0\0" + rows),
        ("icc", b"iCCP", zipped),
        ("exif", b"eXIf", overlapping),
        ("text", b"tEXt", b"Title\0" + b"x" * 3_000_000),
    ]:
        yield Malformed(
            f"bomb-png-{name}", "png", png(64, 64, 2, small, [(kind, block)] * (1 if name == "exif" else 4))
        )
    yield Malformed("line-png", "png", png(60_000, 1, 0, zlib.compress(bytes(60_001))))
    yield Malformed("column-png", "png", png(1, 60_000, 0, zlib.compress(bytes(120_000))))
    yield Malformed("line-jpeg", "jpg", _saved(Image.new("L", (65_000, 2)), "JPEG"))

    lossy = bytearray(by_name["webp-animated"])
    lossy[24:30] = (16_383).to_bytes(3, "little") * 2
    yield Malformed("bomb-webp-canvas", "webp", bytes(lossy))
    plain = bytearray(_saved(Image.new("RGB", (64, 64), "red"), "WEBP"))
    plain[26:30] = struct.pack("<HH", 16_383, 16_383)
    yield Malformed("bomb-webp-lossy", "webp", bytes(plain))
    lossless = bytearray(_saved(Image.new("RGB", (64, 64), "red"), "WEBP", lossless=True))
    lossless[21:25] = struct.pack("<I", 16_382 | 16_382 << 14)
    yield Malformed("bomb-webp-lossless", "webp", bytes(lossless))

    for side in (HUGE, LARGE):
        gif = bytearray(by_name["gif"])
        gif[6:10] = struct.pack("<HH", side, side)
        yield Malformed(f"bomb-gif-screen-{side}", "gif", bytes(gif))
        frame = gif.index(b",", 13 + 3 * 32)
        gif[frame + 5 : frame + 9] = struct.pack("<HH", side, side)
        yield Malformed(f"bomb-gif-frame-{side}", "gif", bytes(gif))
        for name in ("bmp-RGB", "bmp-P"):
            bmp = bytearray(by_name[name])
            bmp[18:26] = struct.pack("<ii", side, side)
            yield Malformed(f"bomb-{name}-{side}", "bmp", bytes(bmp))
            bmp[18:26] = struct.pack("<ii", side, -side)
            yield Malformed(f"bomb-{name}-down-{side}", "bmp", bytes(bmp))
        yield Malformed(f"bomb-bmp-rle-{side}", "bmp", _bmp_rle(side, side, b"\xff\1" * 50 + b"\0\1"))
        for word in ("P1", "P2", "P3", "P4", "P5", "P6", "Pf"):
            depth = "1" if word == "Pf" else "" if word in ("P1", "P4") else "255"
            yield Malformed(f"bomb-ppm-{word}-{side}", "ppm", f"{word} {side} {side} {depth}\n0 0 0".encode())
        yield from _tiff_bombs(side)
    yield Malformed("slow-ppm", "ppm", b"P6 2000 2000 65000\n" + bytes(24_000_000))
    yield from _tiff_loops(by_name["tiff-raw-RGB"])
    yield Malformed("bomb-tiff-overlapping", "tif", overlapping)
    yield Malformed("bomb-webp-exif", "webp", _saved(Image.new("RGB", (64, 64)), "WEBP", exif=overlapping))


def jpeg_declaring(data: bytes, width: int, height: int) -> bytes:
    """A JPEG with another size in its header, and no more data."""
    at = min(place for place in (data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) if place > 0)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def many_scans(side: int, scans: int) -> bytes:
    """A gray progressive JPEG whose last scan comes again and again."""
    data = _saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]


def png(width: int, height: int, colour: int, rows: bytes, blocks: list[tuple[bytes, bytes]] | None = None) -> bytes:
    """A PNG of 8 bits with these compressed rows, and further blocks between header and rows."""
    palette = [(b"PLTE", bytes(768))] if colour == 3 else []
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *palette, *(blocks or []), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(block)) + kind + block + struct.pack(">I", zlib.crc32(kind + block))
        for kind, block in chunks
    )


def tiff(tags: list[tuple[int, int, int, int]], tail: bytes = b"", next_directory: int = 0) -> bytes:
    """A little-endian TIFF of one directory: (tag, type, count, value or offset) each; `tail` follows it."""
    directory = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + directory + struct.pack("<I", next_directory) + tail


def _tiff_bombs(side: int) -> Iterator[Malformed]:
    for squeeze in (1, 5, 7, 8, 32_773, 4, 50_000, 34_925):
        depth = 1 if squeeze == 4 else 8
        plain = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, depth), (259, 3, 1, squeeze), (262, 3, 1, 1)]
        size = 10 + 12 * 9 + 4
        strips = [(273, 4, 1, size), (277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, 300)]
        yield Malformed(f"bomb-tiff-strip-{squeeze}-{side}", "tif", tiff(plain + strips, bytes(300)))
    for squeeze in (1, 5, 8):
        tile = [
            (277, 3, 1, 1),
            (322, 4, 1, side // 16 * 16),
            (323, 4, 1, side // 16 * 16),
            (324, 4, 1, 200),
            (325, 4, 1, 300),
        ]
        small = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, squeeze), (262, 3, 1, 1)]
        yield Malformed(f"bomb-tiff-tile-{squeeze}-{side}", "tif", tiff(small + tile, bytes(600)))
        many = [(273, 4, 1 << 28, 130), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 1 << 28, 130)]
        yield Malformed(f"bomb-tiff-strips-{squeeze}-{side}", "tif", tiff(small + many, bytes(600)))
        bands = [(273, 4, 1, 200), (277, 3, 1, 65_535), (278, 4, 1, 64), (279, 4, 1, 300)]
        yield Malformed(f"bomb-tiff-bands-{squeeze}-{side}", "tif", tiff(small + bands, bytes(600)))


def _tiff_loops(whole: bytes) -> Iterator[Malformed]:
    """The next directory, or one below, is the directory itself."""
    (start,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, start)
    end = start + 2 + 12 * count
    yield Malformed("loop-tiff-next", "tif", whole[:end] + struct.pack("<I", start) + whole[end + 4 :])
    for name, tag in (("exif", 0x8769), ("gps", 0x8825), ("interop", 0xA005), ("sub", 330)):
        tags = [struct.unpack_from("<HHII", whole, start + 2 + 12 * number) for number in range(count)]
        entries = sorted([*tags, (tag, 4, 1, start)])
        directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        moved = whole[:4] + struct.pack("<I", len(whole)) + whole[8:] + directory + struct.pack("<I", 0)
        yield Malformed(
            f"loop-tiff-{name}",
            "tif",
            moved.replace(struct.pack("<HHII", tag, 4, 1, start), struct.pack("<HHII", tag, 4, 1, len(whole))),
        )


def _overlapping(entries: int, length: int) -> bytes:
    """A directory whose entries all hold the same `length` bytes of the file: together, gigabytes."""
    tags = [(1000 + number, 1, length, 8) for number in range(entries)]
    return tiff(tags, bytes(10))


def _bmp_rle(width: int, height: int, runs: bytes) -> bytes:
    palette = bytes(range(256)) * 4
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs


# No photographs


def foreign(seeds: list[Malformed]) -> Iterator[Malformed]:
    """Other kinds of files under the suffixes of photographs, and photographs under the wrong one."""
    picture = Image.new("RGB", (48, 48), "teal")
    others = {
        "empty": b"",
        "byte": b"\xff",
        "text": b"Not a picture, but a note.\n",
        "html": b"<!DOCTYPE html><html><body>404</body></html>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n(/etc/passwd) (r) file\nshowpage\n%%EOF\n",
        "pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400),
        "zip": b"PK\x03\x04" + bytes(200),
        "gzip": b"\x1f\x8b\x08\0" + bytes(200),
        "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 48, 48, 8, 3) + bytes(4000),
        "fits": b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(80) + bytes(2880),
        "fli": bytes(4) + b"\x11\xaf" + bytes(200),
        "xbm": b"#define im_width 8\n#define im_height 8\nstatic char im_bits[] = {0,0,0,0,0,0,0,0};\n",
        "jpeg-start": b"\xff\xd8\xff",
        "png-start": b"\x89PNG\r\n\x1a\n",
        "webp-start": b"RIFF\x10\0\0\0WEBPVP8 ",
        "tiff-start": b"II*\0",
        "gif-start": b"GIF89a",
        "bmp-start": b"BM",
        "ppm-start": b"P6",
        "zeros": bytes(5000),
        "noise": random.Random(1).randbytes(5000),
    }
    for kind in ("ICO", "ICNS", "TGA", "PCX", "SGI", "JPEG2000", "AVIF", "PDF", "EPS", "DDS", "IM", "QOI", "PSD"):
        try:
            others[f"pillow-{kind.lower()}"] = _saved(picture, kind)
        except (OSError, ValueError, KeyError):
            continue  # not in this build of Pillow
    for name, data in others.items():
        for suffix in SUFFIXES[:: 1 if name in ("eps", "pillow-eps") else 3]:
            yield Malformed(f"foreign-{name}", suffix, data)
    for base in seeds[::5]:
        yield Malformed(f"misnamed-{base.name}", SUFFIXES[(SUFFIXES.index(base.suffix) + 1) % len(SUFFIXES)], base.data)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture.save(buffer, kind, **options)
    return buffer.getvalue()
