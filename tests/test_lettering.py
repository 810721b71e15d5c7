"""Every character of a page is drawn in a font that has it, or written as an escape that one line explains."""

import hashlib
import re
import unicodedata

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

from patchmine.drawing import lettering
from patchmine.drawing.lettering import fitted, font_file, lacking, runs, text_width, wrapped
from patchmine.sheets import write
from patchmine.sheets.layouts.grid import grid_page
from patchmine.sheets.page import Page, Text
from patchmine.study import figure as study_figure

ESCAPED = {
    "猫": "\\u732b",
    "नमस्ते": "\\u0928\\u092e\\u0938\\u094d\\u0924\\u0947",
    "🐈": "\\U0001f408",
    "a猫b": "a\\u732bb",
    "\x1b[31m": "\\x1b[31m",
    "\u202eevil": "\\u202eevil",
}


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """What is known of the system's fonts is forgotten; the system has none but ours."""
    for remembered in (runs, lettering._looked_for, lettering._characters):
        remembered.cache_clear()
    lettering._system_fonts.clear()
    lettering._lacking_scripts.clear()
    monkeypatch.setattr(lettering, "_candidates", lambda _: [font_file(False)])
    yield
    runs.cache_clear()
    lettering._looked_for.cache_clear()
    lettering._system_fonts.clear()
    lettering._lacking_scripts.clear()


@pytest.fixture
def cats_and_dogs(tmp_path, monkeypatch):
    """A font of the system that has two Chinese characters: a square and a triangle."""
    builder = FontBuilder(1000, isTTF=True)
    shapes = {"cat": [(0, 0), (0, 800), (800, 800), (800, 0)], "dog": [(0, 0), (400, 800), (800, 0)], ".notdef": []}
    glyphs = {}
    for name, points in shapes.items():
        pen = TTGlyphPen(None)
        if points:
            pen.moveTo(points[0])
            for point in points[1:]:
                pen.lineTo(point)
            pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyphOrder([".notdef", "cat", "dog"])
    builder.setupCharacterMap({ord("猫"): "cat", ord("狗"): "dog"})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(shapes, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Cats and Dogs", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    file = tmp_path / "cats.ttf"
    builder.save(file)
    monkeypatch.setattr(lettering, "_candidates", lambda _: [file])
    return file


def test_our_font_has_every_printable_character_that_needs_no_look():
    for bold in (False, True):
        known = TTFont(font_file(bold)).getBestCmap()
        for number in range(ord(lettering._COMMON)):
            assert number in known or unicodedata.category(chr(number)) == "Cc"


@pytest.mark.parametrize("text", ["dog", "Löwe", "λέων", "кот", "ا", "≥ × · σ …", "e\u0301", "$\\alpha$ $"])
def test_what_our_font_has_is_drawn_in_it(text):
    (run,) = runs(text)
    assert (run.font, run.lacks) == (font_file(False), "")
    assert lacking([text]) is None
    assert run.text == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(("text", "shown"), ESCAPED.items())
def test_what_no_font_has_is_an_escape(text, shown):
    assert "".join(run.text for run in runs(text)) == shown
    assert text_width(text, 7) == text_width(shown, 7)


@pytest.mark.parametrize(
    ("text", "install"),
    [
        ("猫", "no font on this system has 猫, shown as \\u732b: install Noto Sans CJK"),
        ("ひらがな", "ひ が な ら, shown as \\u304c: install Noto Sans CJK"),
        ("한국", "install Noto Sans CJK"),
        ("देव", "install Noto Sans Devanagari"),
        ("🐈", "install Noto Emoji or Symbola"),
    ],
)
def test_one_line_names_the_font_to_install(text, install):
    line = lacking([text, text])
    assert set(install.split(": ")[-1].split()) <= set(line.split())
    assert "\n" not in line
    assert line.count("install") == 1


def test_a_font_of_the_system_draws_what_ours_lacks(cats_and_dogs):
    found = runs("a猫b狗", True)
    assert [(run.text, run.font) for run in found] == [
        ("a", font_file(True)),
        ("猫", cats_and_dogs),
        ("b", font_file(True)),
        ("狗", cats_and_dogs),
    ]
    assert text_width("猫", 10) == pytest.approx(10)
    assert lacking(["猫狗"]) is None
    assert lacking(["猫狗鳥"]).startswith("no font on this system has 鳥,")


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize("have", [False, True])
def test_two_words_of_another_script_give_two_pages(request, tmp_path, suffix, have):
    if have:
        request.getfixturevalue("cats_and_dogs")
    written = set()
    for word in ("猫", "狗"):
        page = Page(80, 30, texts=[Text(f"a {word}", 70, 20, 9, right=True), Text(f"$x {word}", 5, 20, 9, bold=True)])
        write(page, tmp_path / f"a.{suffix}")
        written.add(hashlib.md5((tmp_path / f"a.{suffix}").read_bytes()).hexdigest())
        assert (page.lacking is None) == have
    assert len(written) == 2


def test_a_font_of_bitmaps_or_a_broken_one_counts_as_none(tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    assert lettering._characters(tmp_path / "broken.ttf") == frozenset()
    assert lettering._characters(tmp_path / "missing.ttf") == frozenset()


def test_a_script_without_a_font_is_not_looked_for_again_and_again(monkeypatch):
    asked = []
    monkeypatch.setattr(lettering, "_candidates", lambda number: asked.append(number) or [])
    runs("".join(chr(0x4E00 + number) for number in range(300)))
    assert len(asked) == lettering._TRIES


def test_text_from_the_right_keeps_its_runs_in_order(cats_and_dogs):
    assert [run.text for run in runs("ابج猫")] == ["猫", "ابج"]


@pytest.mark.parametrize("text", ["", " ", "x", "w" * 5000, "猫" * 900, "a b " * 300, "\u0301\u0301", "\ud800"])
@pytest.mark.parametrize("width", [0, 3, 40, 500])
def test_a_fitted_text_fits(text, width):
    short = fitted(text, width, 7)
    assert text_width(short, 7) <= max(width, text_width("…", 7))
    for line in wrapped(text, width, 7):
        assert text_width(line, 7) <= max(width, text_width("…", 7))


def test_names_in_a_study_are_no_mathematics(monkeypatch, tmp_path):
    """A dollar is a dollar, and what our font lacks is an escape, as on every page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 1))
    lettering.draw_on(figure, (5, 5), "Why $x^{_1$ 猫?", 15, "black", bold=True)
    figure.savefig(tmp_path / "a.pdf")
    assert figure.texts[0].get_text() == "Why $x^{_1$ \\u732b?"
    assert study_figure.draw_on is lettering.draw_on


def test_the_command_says_what_it_cannot_draw(photographs, tmp_path, cli):
    import shutil

    import patchmine

    shutil.copytree(photographs / "other", tmp_path / "photos" / "猫")
    patchmine.build_index(tmp_path / "photos", tmp_path / "x.patchmine", model="shapes", layers=("shape",))
    done = cli("top", "-i", "x.patchmine", "--unit", "shape:0", "-k", 1, "-o", "a.svg")
    assert done.returncode == 0
    assert re.fullmatch(r"patchmine: no font on this system has 猫, shown as \\u732b: install .*\n", done.stderr)


def test_a_page_is_drawn_as_before(shapes_index, tmp_path):
    """Numbers and names in our own font lie where their right or left end is given."""
    page = Page(100, 30, texts=[Text("right", 90, 20, 9, right=True), Text("left", 10, 20, 9)])
    write(page, tmp_path / "a.png")
    from PIL import Image

    with Image.open(tmp_path / "a.png") as image:
        dark = np.flatnonzero((np.asarray(image.convert("L")) < 128).any(0)) * 72 / 200
    assert dark.min() == pytest.approx(10.5, abs=1)
    assert dark.max() == pytest.approx(89.5, abs=1)
    assert grid_page(shapes_index.unit("thing:0"), shapes_index.unit("thing:0").top(1)).lacking is None
