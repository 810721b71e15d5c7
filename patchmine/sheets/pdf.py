"""Pages as PDF: text as text in embedded TrueType, photographs in their own pixels, the same bytes for the same pages.

Each page is handed on as it is drawn, so that thousands of photographs take the memory of one page; Python's writers of
PDF (reportlab, fpdf2, pydyf, matplotlib) keep a document until its end. Formats are those of ISO 32000-1.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from patchmine.drawing import fonts
from patchmine.drawing.lettering import font_file, runs, text_width
from patchmine.photographs.crops import FADED, LINES, MARK, PAPER, Edges, Piece
from patchmine.sheets.page import Page, Picture, Rectangle, Text
from patchmine.sheets.raster import deflated, jpeg, reduced

FONTS = {False: "F0", True: "F1"}
_CATALOG, _PAGES, _FIRST_FONT = 1, 2, 3
_OBJECTS_OF_A_FONT = 5


def pdf(pages: Iterable[Page], dpi: int | None = None, lossless: bool = True) -> Iterator[bytes]:
    """The document, piece by piece. `dpi` is the most pixels per inch that a photograph keeps; None keeps all.

    Photographs are compressed without loss, or else as JPEG.
    """
    document = _Document()
    used: dict[bool, dict[int, str]] = {False: {}, True: {}}
    numbers: list[int] = []
    marks: list[tuple[str, int]] = []
    yield document.begin()
    links: list[tuple[int, Page]] = []
    for page in pages:
        drawing = _Drawing(page.height, used)
        names = {}
        for count, picture in enumerate(page.pictures):
            image = picture.image.image if isinstance(picture.image, Piece) else picture.image
            if image.width:
                number = document.reserve()
                names[f"I{count}"] = number
                yield document.put(number, _image(reduced(picture, dpi), lossless))
            drawing.picture(f"I{count}", picture)
            if picture.frame is not None:
                drawing.rectangle(picture.frame)
        for rectangle in page.rectangles:
            drawing.rectangle(rectangle)
        for text in page.texts:
            drawing.text(text)
        content, number = document.reserve(), document.reserve()
        yield document.put(content, _stream(b"/Filter /FlateDecode", zlib.compress(drawing.data())))
        numbers.append(number)
        links.append((number, Page(page.width, page.height, links=page.links)))
        if page.bookmark is not None:
            marks.append((page.bookmark, number))
        document.pages[number] = (content, names)
    for number, page in links:
        yield document.put(number, _page(page, *document.pages[number], numbers))
    yield from document.end(used, numbers, marks)


class _Document:
    """Numbers the objects of a document and remembers where each begins."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.at = 0
        self.last = _FIRST_FONT + _OBJECTS_OF_A_FONT * len(FONTS) - 1
        self.pages: dict[int, tuple[int, dict[str, int]]] = {}

    def begin(self) -> bytes:
        return self._passed(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")

    def reserve(self) -> int:
        self.last += 1
        return self.last

    def put(self, number: int, body: bytes) -> bytes:
        self.places[number] = self.at
        return self._passed(b"%d 0 obj\n%b\nendobj\n" % (number, body))

    def _passed(self, data: bytes) -> bytes:
        self.at += len(data)
        return data

    def end(self, used: dict[bool, dict[int, str]], pages: list[int], marks: list[tuple[str, int]]) -> Iterator[bytes]:
        """The fonts, the outline, the tree of pages and the table of all objects."""
        for count, (bold, glyphs) in enumerate(used.items()):
            for number, body in enumerate(_font(font_file(bold), glyphs, _FIRST_FONT + count * _OBJECTS_OF_A_FONT)):
                yield self.put(_FIRST_FONT + count * _OBJECTS_OF_A_FONT + number, body)
        outline = b""
        if marks:
            root, first = self.reserve(), self.last + 1
            items = [self.reserve() for _ in marks]
            for (title, page), number in zip(marks, items, strict=True):
                around = (b" /Prev %d 0 R" % (number - 1)) * (number > first)
                around += (b" /Next %d 0 R" % (number + 1)) * (number < items[-1])
                body = b"<< /Title %b /Parent %d 0 R /Dest [%d 0 R /Fit]%b >>"
                yield self.put(number, body % (_words(title), root, page, around))
            body = b"<< /Type /Outlines /First %d 0 R /Last %d 0 R /Count %d >>"
            yield self.put(root, body % (first, items[-1], len(items)))
            outline = b" /Outlines %d 0 R /PageMode /UseOutlines" % root
        kids = b" ".join(b"%d 0 R" % number for number in pages)
        yield self.put(_PAGES, b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(pages)))
        yield self.put(_CATALOG, b"<< /Type /Catalog /Pages %d 0 R%b >>" % (_PAGES, outline))
        table = b"".join(b"%010d 00000 n \n" % self.places[number] for number in range(1, self.last + 1))
        begin = b"xref\n0 %d\n0000000000 65535 f \n" % (self.last + 1)
        trailer = b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        yield begin + table + trailer % (self.last + 1, _CATALOG, self.at)


def _page(page: Page, content: int, images: dict[str, int], numbers: list[int]) -> bytes:
    fonts_used = " ".join(
        f"/{name} {_FIRST_FONT + count * _OBJECTS_OF_A_FONT} 0 R" for count, name in enumerate(FONTS.values())
    )
    shown = " ".join(f"/{name} {number} 0 R" for name, number in images.items())
    links = " ".join(
        f"<< /Type /Annot /Subtype /Link /Border [0 0 0] /Dest [{numbers[link.page]} 0 R /Fit] /Rect "
        f"[{_n(link.x)} {_n(page.height - link.y - link.height)} "
        f"{_n(link.x + link.width)} {_n(page.height - link.y)}] >>"
        for link in page.links
    )
    return (
        f"<< /Type /Page /Parent {_PAGES} 0 R /MediaBox [0 0 {page.width:.6f} {page.height:.6f}] "
        f"/Contents {content} 0 R /Resources << /Font << {fonts_used} >> "
        f"/XObject << {shown} >> /ExtGState << /Pale << /ca {FADED} >> >> >> "
        f"/Annots [{links}] >>"
    ).encode()


def _image(image: Image.Image, lossless: bool) -> bytes:
    about = b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB /BitsPerComponent 8 "
    about %= image.size
    if not lossless:
        return _stream(about + b"/Filter /DCTDecode", jpeg(image))
    packed = b"/Filter /FlateDecode /DecodeParms << /Predictor 15 /Colors 3 /BitsPerComponent 8 /Columns %d >>"
    return _stream(about + packed % image.width, deflated(image))


@dataclass
class _Drawing:
    """The content of one page: operators, with y upwards from the lower edge."""

    height: float
    used: dict[bool, dict[int, str]]
    """The glyphs of each font that are on any page, with what each stands for."""
    operators: list[str] = field(default_factory=list)

    def data(self) -> bytes:
        return "\n".join(self.operators).encode("ascii")

    def _add(self, *operators: str) -> None:
        self.operators += operators

    def _box(self, left: float, top: float, right: float, bottom: float) -> str:
        return f"{_n(left)} {_n(self.height - bottom)} {_n(right - left)} {_n(bottom - top)} re"

    def picture(self, name: str, picture: Picture) -> None:
        piece = picture.image if isinstance(picture.image, Piece) else None
        whole = (picture.x, picture.y, picture.x + picture.width, picture.y + picture.height)
        at = partial(points_of, picture)
        left, top, right, bottom = whole if piece is None else at(piece.place)
        draws = f"q {_n(right - left)} 0 0 {_n(bottom - top)} {_n(left)} {_n(self.height - bottom)} cm /{name} Do Q"
        if piece is None:
            self._add(draws)
            return
        self._add("q", f"{self._box(*whole)} W n")
        if not piece.full:
            self._hatch(whole)
        if piece.visible:
            self._add("q", f"{self._box(*at(piece.shown))} W n", draws)
            if piece.lit is not None:
                # As far as the pixels reach: some programs draw a sliver of them beyond the clip.
                self._add("q /Pale gs 1 g", f"{self._box(*at(piece.place))} {self._box(*at(piece.lit))} f* Q")
            self._add("Q")
        if piece.lit is not None and piece.edged:
            self._line(at(piece.lit), MARK, max(0.4, picture.width / 200))
        for outline in piece.outlines:
            width = max(0.7, picture.width / 100)
            self._line(at(outline.edges), "#ffffff", width + 0.7)
            self._line(at(outline.edges), outline.color, width, outline.dashed)
        self._add("Q")

    def _hatch(self, box: Edges) -> None:
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        self._add(f"{_color(PAPER)} rg {self._box(*box)} f", f"q {_color(LINES)} RG {_n(width / 200)} w")
        for start in hatching(width, height):
            x, y = left + start, self.height - bottom
            self._add(f"{_n(x)} {_n(y)} m {_n(x + height)} {_n(y + height)} l S")
        self._add("Q")

    def rectangle(self, rectangle: Rectangle) -> None:
        box = (rectangle.x, rectangle.y, rectangle.x + rectangle.width, rectangle.y + rectangle.height)
        if rectangle.line is None:
            self._add(f"{_color(rectangle.color)} rg {self._box(*box)} f")
        else:
            self._line(box, rectangle.color, rectangle.line, rectangle.dashed)

    def _line(self, box: Edges, color: str, width: float, dashed: bool = False) -> None:
        """A line of that width inside the edges of the box."""
        left, top, right, bottom = box
        half = width / 2
        dash = f"[{_n(3 * width)} {_n(2 * width)}] 0 d " if dashed else ""
        inside = self._box(left + half, top + half, right - half, bottom - half)
        self._add(f"q {_color(color)} RG {_n(width)} w {dash}{inside} S Q")

    def text(self, text: Text) -> None:
        x = text.x - text_width(text.text, text.size, text.bold) * text.right
        y = self.height - text.y
        for run in runs(text.text, text.bold):
            wide = text_width(run.text, text.size, text.bold)
            if run.font == font_file(text.bold):
                self._words(run.text, (x, y), wide, text)
            else:
                self._outlines(run.font, run.text, (x, y), text)
            x += wide

    def _words(self, words: str, place: tuple[float, float], wide: float, text: Text) -> None:
        glyphs = fonts.glyphs(font_file(text.bold), words)
        self.used[text.bold].update((number, char) for number, char, _ in glyphs)
        bare = sum(advance for _, _, advance in glyphs) * text.size
        # Kerning is part of the measured width, but not of the advances.
        scale = f"{_n(100 * wide / bare)} Tz " if bare else ""
        shown = "".join(f"{number:04x}" for number, _, _ in glyphs)
        self._add(
            f"BT {_color(text.color)} rg /{FONTS[text.bold]} {_n(text.size)} Tf {scale}"
            f"{_n(place[0])} {_n(place[1])} Td <{shown}> Tj ET"
        )

    def _outlines(self, file: Path, words: str, place: tuple[float, float], text: Text) -> None:
        self._add(f"{_color(text.color)} rg")
        for start, commands in fonts.outlines(file, words):
            for what, points in commands:
                numbers = (
                    f"{_n(place[0] + (start + x) * text.size)} {_n(place[1] + y * text.size)}" for x, y in points
                )
                self._add(" ".join((*numbers, what)))
            self._add("f")


def hatching(width: float, height: float) -> Iterator[float]:
    """Where the lines of a hatched box of that size begin at its lower edge; each rises to the right."""
    step = width / 24
    start = -height
    while start < width:
        yield start
        start += step


def points_of(picture: Picture, edges: Edges) -> Edges:
    """Shares of a tile as points of the page."""
    left, top, right, bottom = edges
    across, down = picture.width, picture.height
    return (
        picture.x + left * across,
        picture.y + top * down,
        picture.x + right * across,
        picture.y + bottom * down,
    )


def _font(file: Path, glyphs: dict[int, str], first: int) -> list[bytes]:
    """The objects of a font, from number `first` on: TrueType with glyphs by number (9.7.4), and the text they mean."""
    font = fonts.opened(file)
    em, head, lines = font["head"].unitsPerEm, font["head"], font["hhea"]
    name = f"PATCHM+{file.stem}".encode()
    order, metrics = font.getGlyphOrder(), font["hmtx"].metrics
    widths = " ".join(f"{number} [{_n(1000 * metrics[order[number]][0] / em)}]" for number in sorted(glyphs)).encode()
    box = " ".join(_n(1000 * edge / em) for edge in (head.xMin, head.yMin, head.xMax, head.yMax)).encode()
    up, down = (_n(1000 * edge / em).encode() for edge in (lines.ascent, lines.descent))
    file_data = fonts.subset(file, (), sorted(glyphs))
    about = b"/Length1 %d /Filter /FlateDecode" % len(file_data)
    return [
        b"<< /Type /Font /Subtype /Type0 /BaseFont /%b /Encoding /Identity-H /DescendantFonts [%d 0 R] "
        b"/ToUnicode %d 0 R >>" % (name, first + 1, first + 4),
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /%b /CIDToGIDMap /Identity /FontDescriptor %d 0 R "
        b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> /W [%b] >>"
        % (name, first + 2, widths),
        b"<< /Type /FontDescriptor /FontName /%b /Flags 4 /FontBBox [%b] /ItalicAngle 0 /Ascent %b /Descent %b "
        b"/CapHeight %b /StemV 80 /FontFile2 %d 0 R >>" % (name, box, up, down, up, first + 3),
        _stream(about, zlib.compress(file_data, 9)),
        _stream(b"/Filter /FlateDecode", zlib.compress(_meaning(glyphs))),
    ]


def _meaning(glyphs: dict[int, str]) -> bytes:
    """Which character each glyph stands for, as a CMap (9.10.3)."""
    lines = [f"<{number:04x}> <{char.encode('utf-16-be').hex()}>" for number, char in sorted(glyphs.items())]
    blocks = [lines[start : start + 100] for start in range(0, len(lines), 100)]
    mapped = "\n".join(f"{len(block)} beginbfchar\n" + "\n".join(block) + "\nendbfchar" for block in blocks)
    return (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n"
        "/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def\n"
        "/CMapName /Adobe-Identity-UCS def /CMapType 2 def\n"
        f"1 begincodespacerange <0000> <ffff> endcodespacerange\n{mapped}\n"
        "endcmap CMapName currentdict /CMap defineresource pop end end"
    ).encode("ascii")


def _stream(about: bytes, data: bytes) -> bytes:
    return b"<< %b /Length %d >>\nstream\n%b\nendstream" % (about, len(data), data)


def _words(text: str) -> bytes:
    """A text string (7.9.2.2)."""
    return b"<feff%b>" % text.encode("utf-16-be", "replace").hex().encode()


def _color(color: str) -> str:
    return " ".join(_n(int(color[start : start + 2], 16) / 255) for start in (1, 3, 5))


def _n(number: float) -> str:
    """A number with as many digits as matter."""
    return f"{number:.4f}".rstrip("0").rstrip(".") or "0"
