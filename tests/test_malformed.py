"""Broken, huge and odd photographs: decoded as Pillow would, or refused with a reason, by their header if need be."""

import io
import re
import struct
import threading
import warnings
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageFile

from patchmine.errors import PhotographError
from patchmine.photographs.crops import cut
from patchmine.photographs.decode import full_size, prepare
from patchmine.photographs.placement import Preprocessing
from patchmine.photographs.upright import MOST_PIXELS, is_plain_jpeg, opened, to_array, to_rgb, upright
from patchmine.units import Box
from tests.conftest import jpeg
from tests.support.malformed import HUGE, bases, bombs, foreign, jpeg_declaring, many_scans, mutations
from tests.support.viewed import viewed

HALF = (0.5, 0.5, 0.5)
PREPROCESSING = Preprocessing(64, (64, 64), "bilinear", HALF, HALF)
BASES = bases()


def reason(data, read=upright):
    """Why a photograph is refused, for crops and for mining alike."""
    with pytest.raises(PhotographError) as caught:
        read(data)
    with pytest.raises(PhotographError, match=f"^{re.escape(str(caught.value))}$"):
        prepare(data, PREPROCESSING)
    return str(caught.value)


def array(data):
    """The pixels as mining sees them, checked to be those of crops; or the reason."""
    try:
        shown = np.asarray(upright(data))
    except PhotographError as error:
        return reason(data) and str(error)
    mined = full_size(data).permute(1, 2, 0).numpy()
    assert np.array_equal(shown, mined)
    return mined


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_kind_and_mode_is_decoded_as_a_viewer_shows_it(base):
    assert np.abs(array(base.data).astype(int) - viewed(base.data)).max() <= 1


@pytest.mark.filterwarnings("error::UserWarning")
def test_damaged_photographs_are_decoded_as_pillow_does_or_refused():
    decoded = 0
    for file in islice(mutations(BASES, Random(0)), 500):
        found = array(file.data)
        if isinstance(found, str):
            assert found
            assert "\n" not in found
            continue
        decoded += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.abs(found.astype(int) - viewed(file.data)).max() <= 1, file.name
    assert 100 < decoded < 400


def test_other_kinds_of_files_are_refused_whatever_they_are_called(monkeypatch):
    monkeypatch.setattr("patchmine.photographs.upright.with_heif", lambda: ())
    named = ("HEIC or AVIF, which needs an extra: pip install 'patchmine[heif]'", "a TIFF that is damaged or of")
    for file in foreign(BASES):
        found = array(file.data)
        if file.name.startswith("misnamed"):
            assert not isinstance(found, str)
        elif file.name != "foreign-empty":
            assert found.startswith(("not an image in a supported format (JPEG PNG", "damaged: ", *named)), file.name


def test_postscript_never_reaches_ghostscript(monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("ran"))
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "EPS")
    assert "not an image in a supported format" in reason(buffer.getvalue())


def memory_mib(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc")
def test_what_its_header_says_is_too_large_is_refused_before_memory_is_taken():
    names = str(HUGE), "webp-canvas", "webp-lossy", "webp-lossless"
    huge = [bomb for bomb in bombs(BASES) if bomb.name.endswith(names)]
    reason(b"no picture")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory_mib("VmRSS:")
    reasons = [reason(bomb.data) for bomb in huge]
    assert memory_mib("VmHWM:") - before < 60
    large = [words for words in reasons if f"more than the limit of {MOST_PIXELS:,}" in words]
    assert len(large) > 25


def test_the_limit_is_ours_whatever_somebody_sets_in_pillow(monkeypatch):
    bomb = jpeg_declaring(jpeg(Image.new("RGB", (64, 64))), HUGE, HUGE)
    assert reason(bomb) == "4,290,250,000 pixels: more than the limit of 178,956,970"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert reason(bomb) == "4,290,250,000 pixels: more than the limit of 178,956,970"
    assert Image.MAX_IMAGE_PIXELS is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    small = next(base.data for base in BASES if base.name == "png-RGB")
    assert upright(small).size == full_size(small).shape[:0:-1]
    assert Image.MAX_IMAGE_PIXELS == 50


def test_a_photograph_cut_short_is_broken_whatever_somebody_sets_in_pillow(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for base in BASES:
        if base.name in ("png-RGB", "jpeg-rgb", "jpeg-progressive"):
            assert reason(base.data[: len(base.data) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_what_would_take_minutes_is_refused_by_the_header():
    assert "503 scans of 3000x3000 pixels" in reason(many_scans(3000, 497))
    assert "1,000,000 for a PPM" in reason(b"P6 2000 2000 65000\n" + bytes(24_000_000))
    # Neither thumbnails nor a film behind the photograph count as its scans.
    whole = jpeg(Image.new("L", (3000, 3000)), progressive=True)
    assert opened(whole + b"\xff\xda\0\xff\xd9" * 2000).size == (3000, 3000)


def test_the_header_of_most_jpegs_is_judged_without_pillow():
    plain = {base.name for base in BASES if is_plain_jpeg(base.data)}
    assert {"jpeg-rgb", "jpeg-gray", "jpeg-progressive", "jpeg-444", "jpeg-icc"} <= plain
    assert not plain & {"jpeg-exif", "jpeg-cmyk", "mpo"}
    assert not any(is_plain_jpeg(bomb.data) for bomb in bombs(BASES) if bomb.name.endswith(str(HUGE)))
    assert not is_plain_jpeg(many_scans(3000, 500))


def test_a_line_of_pixels_is_not_blown_up():
    line = jpeg(Image.new("L", (65_000, 2)))
    assert upright(line).size == (65_000, 2)
    refusal = "65000x2 pixels become 7280000x224 resized: more than the limit of 178,956,970"
    with pytest.raises(PhotographError, match=refusal):
        prepare(line, Preprocessing(224, (224, 224), "bilinear", HALF, HALF))


@pytest.mark.parametrize("number", range(9))
def test_every_orientation_turns_mining_and_crops_alike(number):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = number
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        picture.save(buffer, kind, exif=exif)
        assert np.array_equal(array(buffer.getvalue()), viewed(buffer.getvalue()))


def test_an_orientation_that_only_xmp_states_turns_mining_and_crops_alike():
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation='6' tiff:Orientation=\"6\"/>"
    whole = jpeg(Image.radial_gradient("L").resize((60, 40)))
    data = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + whole[2:]
    assert array(data).shape == (60, 40, 3)
    assert cut(data, Box(0, 0, 40, 60)).size == (40, 60)


def test_nonsense_in_exif_does_not_undo_the_orientation():
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "a program's name"
    data = jpeg(Image.radial_gradient("L").resize((60, 40)), exif=exif)
    at = max(data.find(b"\x01\x31\0\x02"), data.find(b"\x31\x01\x02\0")) + 8  # where the name stands in the block
    for field in (b"\xff\xff\xff\xff", b"\0\0\0\0"):
        assert array(data[:at] + field + data[at + 4 :]).shape == (60, 40, 3)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_deep_grays_are_scaled_to_the_same_levels_strip_by_strip(mode, monkeypatch):
    levels = np.arange(-70_000, 70_000, 3, dtype=np.int32)[:46_000].reshape(200, 230).clip(0, 65535)
    if mode == "I":
        image = Image.fromarray(levels)
        image.format = "TIFF"
    else:
        image = Image.frombytes(mode, (230, 200), levels.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    expected = np.repeat((levels // 257).astype(np.uint8)[:, :, None], 3, 2)
    for strip in (1 << 22, 4_000, 1):
        monkeypatch.setattr("patchmine.photographs.upright._STRIP_BYTES", strip)
        assert np.array_equal(np.asarray(to_rgb(image)), expected)
        assert np.array_equal(to_array(image), expected)


def test_a_16_bit_pgm_is_scaled_and_not_cut_off():
    data = b"P5 2 1 65535\n" + np.array([0, 40_000], ">u2").tobytes()
    assert array(data).tolist() == [[[0] * 3, [155] * 3]]


def test_pillows_warnings_are_silent_and_those_of_others_are_not_lost():
    bad = jpeg(Image.new("RGB", (9, 9)), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30))
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=lambda: [array(bad) for _ in range(30)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        warnings.warn("of another", stacklevel=1)
    said = [warning for warning in caught if warning.category is not DeprecationWarning]  # torchvision's, of itself
    assert [str(warning.message) for warning in said] == ["of another"]
    assert warnings.filters == before
