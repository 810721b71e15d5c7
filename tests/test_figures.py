"""Figures for papers: exact widths, vector pages with native pixels, captions, and what stands beside them."""

import csv
import io
import re
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image

from patchmine import defaults
from patchmine.drawing.fonts import glyphs, visual
from patchmine.drawing.lettering import font_file
from patchmine.errors import RequestError
from patchmine.reading.answers import Patches
from patchmine.sheets import provenance, write
from patchmine.sheets.captions import FIELDS, Template
from patchmine.sheets.layouts.facets import facets_of, principal
from patchmine.sheets.layouts.grid import grid_page
from patchmine.sheets.layouts.queries import trial_of
from patchmine.sheets.page import Page, Text, narrow
from patchmine.sheets.pdf import pdf
from patchmine.sheets.style import INCH, MM, style_of

WORDS = ["sheet", "--unit", "thing:0", "--unit", "shape:1", "-k", 4]


@pytest.fixture
def sheet(cli, shapes_index_dir):
    return lambda *words: cli(*WORDS, "-i", shapes_index_dir, *words)


@pytest.fixture
def gone(photographs, tmp_path):
    """An index whose photographs have gone, but for the folder."""
    import patchmine

    shutil.copytree(photographs, tmp_path / "photos")
    patchmine.build_index(tmp_path / "photos", tmp_path / "gone.patchmine", model="shapes", layers=("shape",))
    shutil.rmtree(tmp_path / "photos")
    return tmp_path / "gone.patchmine"


def objects(data):
    """The objects of a PDF by number: the dictionary, and the stream without its compression where it is Flate."""
    found = {}
    for number, body in re.findall(rb"(\d+) 0 obj\n(.*?)\nendobj", data, re.DOTALL):
        about, _, stream = body.partition(b"\nstream\n")
        stream = stream.removesuffix(b"\nendstream")
        found[int(number)] = (about, zlib.decompress(stream) if b"FlateDecode" in about else stream)
    return found


@pytest.mark.parametrize("width", [*defaults.VENUES, "89mm", "3.5in", "240pt", "12.3cm"])
def test_a_page_is_exactly_as_wide_as_its_venue_says(shapes_index, tmp_path, width):
    inches = {"in": 1, "mm": 1 / 25.4, "cm": 1 / 2.54, "pt": 1 / 72.27}
    number, unit = re.fullmatch(r"([\d.]+)(\w\w)", defaults.VENUES.get(width, (width,))[0]).groups()
    meant = float(number) * inches[unit]
    unit = shapes_index.unit("thing:0")
    page = grid_page(unit, unit.top(5), style_of(width))
    for suffix in ("pdf", "svg", "png"):
        write(page, tmp_path / f"a.{suffix}", 300)
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ", (tmp_path / "a.pdf").read_bytes())
    drawn = re.search(r'width="([\d.]+)pt"', (tmp_path / "a.svg").read_text())
    with Image.open(tmp_path / "a.png") as image:
        widths = [float(box[1]) / 72, float(drawn[1]) / 72, image.width / image.info["dpi"][0]]
    assert np.abs(np.array(widths) - meant).max() * 25.4 < 0.1
    assert max(text.size for text in page.texts) == style_of(width).heading


@pytest.mark.parametrize("width", ["acl", "", "89", "mm", "-3in", "1e3mm", "5mm", "9999cm", "neurips "])
def test_another_width_is_refused_with_the_list(sheet, tmp_path, width):
    done = sheet("--width", width, "-o", "a.pdf")
    assert done.returncode == 1
    assert "--width" in done.stderr
    assert ("neurips" in done.stderr) != (width in ("5mm", "9999cm"))
    assert not (tmp_path / "a.pdf").exists()


def test_a_pdf_holds_the_pixels_of_the_photograph_and_nothing_else(shapes_index, tmp_path):
    unit = shapes_index.unit("thing:0")
    patches = unit.top(6)
    write(grid_page(unit, patches), tmp_path / "a.pdf")
    images = [
        (about, stream) for about, stream in objects((tmp_path / "a.pdf").read_bytes()).values() if b"/Image" in about
    ]
    assert len(images) == len(patches)
    for (about, stream), patch in zip(images, patches, strict=True):
        crop = patch.crop()
        assert b"/Width %d /Height %d" % crop.size in about
        assert np.array_equal(unfiltered(stream, crop.width), np.asarray(crop))


def unfiltered(stream, width):
    """PNG's filters undone, by putting the data back into a PNG."""
    rows = len(stream) // (3 * width + 1)
    head = b"IHDR" + width.to_bytes(4, "big") + rows.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    chunks = b""
    for chunk in (head, b"IDAT" + zlib.compress(stream, 0), b"IEND"):
        chunks += (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return np.asarray(Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunks)))


def test_text_is_text_in_embedded_truetype(tmp_path):
    page = Page(200, 60, texts=[Text("Löwe λ 12.5", 5, 20, 9), Text("fish_33 · ابج", 5, 40, 9, bold=True)])
    write(page, tmp_path / "a.pdf")
    found = objects((tmp_path / "a.pdf").read_bytes())
    fonts = [TTFont(io.BytesIO(stream)) for about, stream in found.values() if b"/Length1" in about]
    assert [sorted(font.reader.keys()) for font in fonts] == [["glyf", "head", "hhea", "hmtx", "loca", "maxp"]] * 2
    maps = [stream.decode() for _, stream in found.values() if stream.startswith(b"/CIDInit")]
    pairs = [re.findall("^<(.{4})> <(.{4})>$", one, re.MULTILINE) for one in maps]
    meant = [{int(glyph, 16): chr(int(char, 16)) for glyph, char in one} for one in pairs]
    content = next(stream for _, stream in found.values() if b" Tj ET" in stream).decode()
    shown = [
        "".join(meant[int(font)][int(glyph, 16)] for glyph in re.findall("....", line))
        for font, line in re.findall(r"/F(\d) .*<(\w+)> Tj", content)
    ]
    assert shown == ["Löwe λ 12.5", "fish_33 · جبا"]  # what is read from the right is drawn from the left
    for font, known in zip(fonts, meant, strict=True):
        for glyph, char in known.items():
            drawn = font["glyf"][font.getGlyphOrder()[glyph]].numberOfContours
            assert (drawn != 0) == (char != " ")


def test_letters_of_arabic_are_joined_as_in_a_shaped_line():
    forms = [shown for shown, _ in visual("بيت", frozenset(range(0x600, 0x10000)))]
    assert forms == ["\ufe96", "\ufef4", "\ufe91"]  # final, medial, initial from left to right
    assert [number for number, _, _ in glyphs(font_file(False), "ab")] != [
        number for number, _, _ in glyphs(font_file(False), "ba")
    ]


def test_an_svg_carries_its_font_and_keeps_text_apart_without_it(tmp_path):
    write(Page(90, 30, texts=[Text("<fish> & 33", 5, 20, 9)]), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "&lt;fish&gt; &amp; 33</text>" in text
    assert "textLength=" in text
    assert "url(data:font/woff;base64," in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]+"', "", text)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize("layout", [*defaults.LAYOUTS[:1], "context", "grid", "spectrum", "facets", "queries", "layer"])
def test_the_same_command_gives_the_same_bytes(sheet, tmp_path, layout, suffix):
    if layout == "layer" and suffix != "pdf":
        assert "end its name in .pdf" in sheet("--layout", layout, "-o", f"a.{suffix}").stderr
        return
    written = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        more = ["--crop", "rf", "--width", "icml", "--frame", "class", "--scale-bar", "--provenance", "--seed", 3]
        done = sheet("--layout", layout, *more, "-o", f"{folder}/f.{suffix}")
        assert done.returncode == 0, done.stderr
        written.append([file.read_bytes() for file in sorted((tmp_path / folder).iterdir())])
    assert len(written[0]) == 3
    assert written[0] == written[1]


def test_what_stands_beside_a_figure(sheet, shapes_index, tmp_path):
    done = sheet("-o", "f.pdf", "--provenance", "--latex", "--width", "icml2")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "f.csv").read_text("utf-8"))))
    assert len(rows) == 8
    patches = [patch for unit in ("thing:0", "shape:1") for patch in shapes_index.unit(unit).top(4)]
    for row, patch in zip(rows, patches, strict=True):
        assert (int(row["rank"]), float(row["value"]), row["image"]) == (patch.rank, patch.value, patch.image)
        assert row["digest"] == shapes_index.digest(patch.image_id)
        assert [int(row[f"box_{edge}"]) for edge in ("left", "top", "right", "bottom")] == list(patch.box.as_tuple())
    text = (tmp_path / "f.txt").read_text("utf-8")
    for word in ("thing:0", "shapes", shapes_index.job.weights, "48 photographs", "highest first", "receptive field"):
        assert word in text
    name, *lines = done.stdout.splitlines()
    assert name == "f.pdf"
    assert (lines[0], lines[2], lines[-1]) == ("\\begin{figure*}[t]", "  \\includegraphics{f.pdf}", "\\end{figure*}")
    assert "thing\\_" in lines[3] or "unit\\_0" in lines[3]


def test_a_file_of_another_is_not_replaced_without_force(sheet, tmp_path):
    (tmp_path / "f.txt").write_text("my notes")
    done = sheet("-o", "f.pdf", "--provenance")
    assert (done.returncode, "f.txt" in done.stderr, "--force" in done.stderr) == (1, True, True)
    assert not (tmp_path / "f.pdf").exists()
    assert sheet("-o", "f.pdf", "--provenance", "--force").returncode == 0
    assert sheet("-o", "f.pdf", "--provenance").returncode == 0  # now it is one of a sheet
    assert (tmp_path / "f.txt").read_text() != "my notes"


def test_captions_by_template(shapes_index):
    (patch,) = shapes_index.unit("thing:0").top(1)
    assert Template("{name}: {value:.2f}\\n{rank} {class}{retained}").lines(patch, "fish") == [
        f"fish: {patch.value:.2f}",
        f"1 {patch.class_name or ''}",
    ]
    assert Template("").lines(patch, "fish") == []
    every = Template(" ".join(f"{{{name}}}" for name in FIELDS))
    assert patch.unit.layer in every.lines(patch, "fish")[0]


@pytest.mark.parametrize(
    "template",
    [
        "{nothing}",
        "{value",
        "{}",
        "{0}",
        "{value.real}",
        "{name[0]}",
        "{rank!r}",
        "{value:99999999999}",
        "{name:.2f}",
        "}",
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(sheet, tmp_path, template):
    done = sheet("--caption", template, "-o", "a.png")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "--caption" in done.stderr
    assert not (tmp_path / "a.png").exists()
    with pytest.raises(RequestError, match="choose from name, layer, channel, rank, value, class"):
        Template("{nothing}")


def test_patches_too_narrow_for_print_are_reported_with_what_fits(sheet, shapes_index):
    done = sheet("--width", "icml", "-k", 12, "-o", "a.pdf")
    assert done.returncode == 0
    columns = int(re.search(r"give --columns (\d+)", done.stderr)[1])
    unit = shapes_index.unit("thing:0")
    page = grid_page(unit, unit.top(12), replace(style_of("icml"), columns=columns))
    assert narrow(page) is None
    assert page.pictures[0].width >= 0.35 * INCH
    assert narrow(grid_page(unit, unit.top(12), replace(style_of("icml"), columns=columns + 1))) is not None
    assert "170mm" in sheet("--width", "nature", "--layout", "grid", "-k", 3, "--columns", 1, "-o", "a.pdf").stderr
    assert style_of("nature").width == 89 * MM


def test_photographs_that_are_gone_are_drawn_as_missing_or_refused(cli, gone, tmp_path):
    words = ["sheet", "-i", gone, "--unit", "shape:0", "-k", 3]
    for suffix in ("png", "pdf", "svg"):
        done = cli(*words, "-o", f"a.{suffix}")
        assert done.returncode == 0
        assert "3 photographs could not be shown" in done.stderr
        assert "--source FOLDER" in done.stderr
        done = cli(*words, "--strict", "-o", f"b.{suffix}")
        assert done.returncode == 1
        assert "3 photographs cannot be shown" in done.stderr
        assert not (tmp_path / f"b.{suffix}").exists()
    done = cli(*words, "--layout", "layer", "--strict", "-o", "b.pdf")
    assert done.returncode == 1
    assert not list(tmp_path.glob("*b.pdf*"))
    assert cli(*words, "--source", "nowhere", "-o", "c.png").returncode == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--layout", "mosaic"], "unknown --layout 'mosaic'"),
        (["--frame", "size"], "unknown --frame 'size'"),
        (["--columns", 0], "--columns must be at least 1"),
        (["--columns", 5000], "--columns 5000 leaves patches no room here: give at most"),
        (["--layout", "layer", "-k", 101], "at most 100 patches"),
        (["--dpi", 99999], "--dpi must be at most 2400"),
        (["--layout", "grid", "--latex", "-o", "a.svg"], "--latex includes a PDF or PNG"),
    ],
)
def test_other_words_are_refused(sheet, tmp_path, words, reason):
    done = sheet("-o", "a.pdf", *words)
    assert done.returncode == 1
    assert reason in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_trial_shows_no_photograph_twice(shapes_index):
    unit = shapes_index.unit("thing:0")
    for seed in range(4):
        trial = trial_of(unit.top(10), unit.top(10, "bottom"), 9, seed)
        images = [patch.image_id for patches in trial.patches for patch in patches]
        assert len(images) == len(set(images)) == 20
    few = trial_of(unit.top(48), unit.top(48, "bottom"), 47, 0)
    images = [patch.image_id for patches in few.patches for patch in patches]
    assert len(images) == len(set(images)) == 48
    assert trial_of(Patches([]), Patches([]), 9, 0).patches[0].chosen([]) is not None


def test_facets_hold_every_patch_once_the_best_first(shapes_index):
    unit = shapes_index.unit("thing:0")
    found = facets_of(unit, unit.top(10), 3)
    assert found.group[0] == 0
    assert set(found.group.tolist()) == {0, 1, 2}
    assert found.places.min() >= 0
    assert found.places.max() <= 1
    assert principal(np.ones((3, 4))).tolist() == [[0.5, 0.5]] * 3


def test_pages_are_handed_on_one_by_one():
    drawn = []

    def pages():
        for number in range(3):
            drawn.append(number)
            yield Page(100, 100, texts=[Text(f"page {number}", 5, 20, 9)], bookmark=f"{number}")

    pieces = pdf(pages())
    next(pieces)
    next(pieces)
    assert drawn == [0]
    rest = b"".join(pieces)
    assert rest.count(b"/Type /Page ") == 3
    assert b"/Outlines" in rest


def test_every_layout_has_its_sentence_and_its_function():
    from patchmine.cli.commands._figure import _DRAWN

    assert set(defaults.LAYOUTS) == set(provenance.ABOUT) == {*_DRAWN, "layer"}
