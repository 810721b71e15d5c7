import io

import numpy as np
import pytest
from PIL import Image

from patchmine.drawing.lettering import fitted, text_width
from patchmine.errors import PhotographError, RequestError
from patchmine.photographs.crops import cut, piece
from patchmine.photographs.placement import Placement, View
from patchmine.sheets import write
from patchmine.sheets.layouts.bands import MARKED, bands, histogram, quantiles, spectrum_page
from patchmine.sheets.layouts.grid import grid_page
from patchmine.units import Box
from tests.conftest import jpeg
from tests.support.sheets import HATCH


def picture_bytes(colour=(200, 30, 40), size=(400, 300)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


PLACEMENT = Placement(source=(400, 300), resized=(341, 256), left=58, top=16, input=(224, 224), reach=2.0)


def test_what_is_outside_the_picture_is_padding_and_nothing_is_stretched():
    field = Box(-20, 190, 80, 290)
    view = View(field, field.intersect(Box(0, 0, 224, 224)))
    array = np.asarray(piece(picture_bytes(), PLACEMENT, view).drawn((200, 200)))
    # Two tile pixels for an input pixel: the picture takes columns 40.. and rows ..68.
    assert (array[:68, 40:] == (200, 30, 40)).all()
    assert {tuple(pixel) for pixel in array[:, :40].reshape(-1, 3)} <= HATCH
    assert {tuple(pixel) for pixel in array[68:].reshape(-1, 3)} <= HATCH


def test_a_tile_shows_the_place_that_the_network_saw():
    x, y = np.meshgrid(np.arange(400), np.arange(300))
    buffer = io.BytesIO()
    Image.fromarray(np.stack([x // 2, y // 2, 0 * x], 2).astype(np.uint8)).save(buffer, "PNG")
    field = Box(100, 50, 150, 100)
    array = np.asarray(piece(buffer.getvalue(), PLACEMENT, View(field, field)).drawn((100, 100))).astype(float)
    # The center of the field, in source pixels, is the center of the tile.
    center = ((125 + 58) * 400 / 341, (75 + 16) * 300 / 256)
    assert array[45:55, 45:55, 0].mean() * 2 == pytest.approx(center[0], abs=2)
    assert array[45:55, 45:55, 1].mean() * 2 == pytest.approx(center[1], abs=2)


def test_a_photograph_that_changed_its_size_is_refused():
    with pytest.raises(PhotographError, match="40x30"):
        piece(picture_bytes(size=(40, 30)), PLACEMENT, View(Box(0, 0, 9, 9), Box(0, 0, 9, 9)))
    with pytest.raises(PhotographError, match="40x30"):
        cut(picture_bytes(size=(40, 30)), Box(0, 0, 41, 10))


def test_crops_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    stored = Image.new("RGB", (100, 60), "blue")
    stored.paste("white", (0, 0, 100, 30))
    crop = cut(jpeg(stored, exif=exif, quality=95), Box(20, 0, 40, 100))
    assert crop.size == (20, 100)
    assert min(crop.getpixel((15, 50))) > 200
    assert crop.getpixel((5, 50))[2] > 200 > 100 > crop.getpixel((5, 50))[0]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
@pytest.mark.parametrize("crop", ["rf", "erf", "image"])
def test_sheets_in_every_format_and_twice_the_same(shapes_index, tmp_path, suffix, crop):
    unit = shapes_index.units()[0]
    patches = unit.top(7, crop=crop)
    written = []
    for number in range(2):
        target = tmp_path / f"{number}{suffix}"
        write(grid_page(unit, patches), target)
        written.append(target.read_bytes())
    assert written[0] == written[1]
    assert written[0].startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix])
    if suffix == ".png":
        image = Image.open(io.BytesIO(written[0]))
        assert image.width > 1000
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_a_photograph_that_is_gone_gets_a_tile_that_says_so(photographs, tmp_path):
    import shutil

    import patchmine

    folder = tmp_path / "here"
    shutil.copytree(photographs, folder)
    patchmine.build_index(folder, tmp_path / "p.patchmine", model="shapes")
    unit = patchmine.open_index(tmp_path / "p.patchmine").units()[0]
    patches = unit.top(4)
    write(grid_page(unit, patches), tmp_path / "whole.png")
    (folder / patches[1].image).unlink()
    write(grid_page(unit, patches), tmp_path / "gone.png")
    whole, gone = (np.asarray(Image.open(tmp_path / name)) for name in ("whole.png", "gone.png"))
    assert whole.shape == gone.shape
    assert (whole != gone).any()


def test_targets_are_checked_first(shapes_index, tmp_path):
    unit = shapes_index.units()[0]
    for name, reason in (("a.jpg", "end its name"), ("no/a.png", "not found")):
        with pytest.raises(RequestError, match=reason):
            write(grid_page(unit, unit.top(1)), tmp_path / name)


def test_long_captions_are_cut_to_the_tile():
    assert fitted("dog", 100, 7) == "dog"
    short = fitted("a very long class name indeed", 40, 7)
    assert short.endswith("…")
    assert text_width(short, 7) <= 40


def test_a_spectrum_has_a_strip_for_each_band(shapes_index, tmp_path):
    unit = shapes_index.unit("thing:0")
    column, _ = shapes_index.store.column("thing", 0)
    patches = unit.top(25, "spectrum")
    found = bands(patches, column)
    assert [len(band.patches) for band in found] == [5] * 5
    assert [patch for band in found for patch in band.patches] == list(patches)
    assert found[0].values[1] == column.max()
    assert found[-1].values[0] == column.min()
    assert (found[0].quantiles[0], found[-1].quantiles[-1]) == (1, 0)
    for band in found:
        for patch, quantile in zip(band.patches, band.quantiles, strict=True):
            assert quantile == pytest.approx((column < patch.value).sum() / (len(column) - 1))
    assert [len(band.patches) for band in bands(unit.top(3, "spectrum"), column)] == [2, 1]
    assert max(len(band.patches) for band in bands(unit.top(48, "spectrum"), column)) <= 8
    assert bands(patches[:0], column) == []
    for suffix in (".png", ".svg", ".pdf"):
        write(spectrum_page(unit, patches, column), tmp_path / f"s{suffix}")
        assert (tmp_path / f"s{suffix}").stat().st_size > 10_000


@pytest.mark.parametrize("k", [1, 2, 7, 25])
def test_nothing_on_a_spectrum_lies_outside_of_the_page(shapes_index, k):
    unit = shapes_index.unit("thing:0")
    column, _ = shapes_index.store.column("thing", 0)
    page = spectrum_page(unit, unit.top(k, "spectrum"), column)
    edges = [(p.x, p.y, p.x + p.width, p.y + p.height) for p in page.pictures]
    for text in page.texts:
        wide = text_width(text.text, text.size, text.bold)
        edges.append((text.x - wide * text.right, text.y - text.size, text.x + wide * (not text.right), text.y))
    left, top, right, bottom = np.array(edges).T
    assert left.min() >= 20
    assert top.min() >= 15
    assert right.max() <= page.width - 20
    assert bottom.max() <= page.height - 10


def test_quantiles_count_equal_values_half_and_leave_out_what_is_no_number():
    column = np.array([3, 1, 2, 2, np.nan, 0], np.float32)
    assert quantiles(column, np.array([3, 2, 1, 0], np.float32)).tolist() == [1, 0.625, 0.25, 0]
    assert quantiles(np.zeros(4, np.float32), np.zeros(1, np.float32)).tolist() == [0.5]


@pytest.mark.parametrize("column", [np.arange(96), np.zeros(9), [1e-45, 0], [-3e38, 3e38, np.inf], [7]])
def test_bars_of_a_strip_are_colored(column):
    column = np.array(column, np.float32)
    finite = column[np.isfinite(column)]

    def colored(low, high):
        """Where bars are colored, in shares of the width."""
        bars = histogram(column, (low, high), (10, 20, 100))
        assert all(bar.x >= 10 and bar.x + bar.width <= 110 and bar.y >= 20 for bar in bars)
        return [(bar.x - 10) / 100 for bar in bars if bar.color == MARKED]

    assert colored(finite.min(), finite.max())
    assert colored(finite.max(), finite.max())
    if len(column) == 96:
        assert len(colored(0, 95)) == 48
        assert max(colored(0, 47)) < 0.5 <= min(colored(48, 95))
        assert len(colored(95, 95)) == 1
