"""A page as SVG: text as text in an embedded font, photographs in their own pixels, the same bytes for a page."""

from __future__ import annotations

from base64 import b64encode
from xml.sax.saxutils import escape, quoteattr

from patchmine.drawing import fonts
from patchmine.drawing.lettering import font_file, runs, text_width
from patchmine.photographs.crops import FADED, LINES, MARK, PAPER, Edges, Piece
from patchmine.sheets.page import Page, Picture, Rectangle, Text
from patchmine.sheets.pdf import hatching, points_of
from patchmine.sheets.raster import packed, reduced

FAMILY = "'patchmine sans', 'DejaVu Sans', sans-serif"


def svg(page: Page, dpi: int | None = None) -> bytes:
    """The page; `dpi` is the most pixels per inch that a photograph keeps, None keeps all."""
    body = [
        *(line for picture in page.pictures for line in _framed(picture, dpi)),
        *map(_rectangle, page.rectangles),
        *(line for text in page.texts for line in _text(text)),
    ]
    width, height = _n(page.width), _n(page.height)
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}pt" height="{height}pt" viewBox="0 0 {width} {height}">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n'
    )
    return (head + "\n".join((*_fonts(page), *body)) + "\n</svg>\n").encode("utf-8")


def _fonts(page: Page) -> list[str]:
    """The fonts with the characters of the page's texts, inside the file."""
    faces = []
    for bold in (False, True):
        own = font_file(bold)
        used = {
            char
            for text in page.texts
            if text.bold == bold
            for run in runs(text.text, bold)
            if run.font == own
            for char in run.text
        }
        if used:
            data = b64encode(fonts.subset(own, sorted(used), woff=True)).decode()
            weight = "bold" if bold else "normal"
            faces.append(
                f"@font-face {{ font-family: 'patchmine sans'; font-weight: {weight}; "
                f"src: url(data:font/woff;base64,{data}) format('woff'); }}"
            )
    return ["<style>", *faces, "</style>"]


def _framed(picture: Picture, dpi: int | None) -> list[str]:
    return [*_picture(picture, dpi), *([] if picture.frame is None else [_rectangle(picture.frame)])]


def _picture(picture: Picture, dpi: int | None) -> list[str]:
    piece = picture.image if isinstance(picture.image, Piece) else None
    whole = (0.0, 0.0, picture.width, picture.height)
    lines = [f"<svg {_place((picture.x, picture.y, picture.x + picture.width, picture.y + picture.height))}>"]
    inside = picture.at(0, 0)
    if piece is None:
        return [*lines, _image(picture, whole, dpi), "</svg>"]
    if not piece.full:
        lines += _hatch(picture)
    if piece.visible:
        shown = points_of(inside, piece.shown)
        place = points_of(inside, piece.place)
        moved = (place[0] - shown[0], place[1] - shown[1], place[2] - shown[0], place[3] - shown[1])
        lines += [f"<svg {_place(shown)}>", _image(picture, moved, dpi), "</svg>"]
        if piece.lit is not None:
            holes = " ".join(map(_path, (shown, points_of(inside, piece.lit))))
            lines.append(f'<path d="{holes}" fill="#ffffff" fill-opacity="{FADED}" fill-rule="evenodd"/>')
    if piece.lit is not None and piece.edged:
        lines.append(_line(points_of(inside, piece.lit), MARK, max(0.4, picture.width / 200)))
    for outline in piece.outlines:
        width, edges = max(0.7, picture.width / 100), points_of(inside, outline.edges)
        lines += [_line(edges, "#ffffff", width + 0.7), _line(edges, outline.color, width, outline.dashed)]
    return [*lines, "</svg>"]


def _image(picture: Picture, edges: Edges, dpi: int | None) -> str:
    data = b64encode(packed(reduced(picture, dpi))).decode()
    return f'<image {_place(edges)} preserveAspectRatio="none" xlink:href="data:image/png;base64,{data}"/>'


def _hatch(picture: Picture) -> list[str]:
    width, height = picture.width, picture.height
    rising = " ".join(f"M{_n(start)} {_n(height)}L{_n(start + height)} 0" for start in hatching(width, height))
    return [
        f'<rect width="{_n(width)}" height="{_n(height)}" fill="{PAPER}"/>',
        f'<path d="{rising}" stroke="{LINES}" stroke-width="{_n(width / 200)}"/>',
    ]


def _rectangle(rectangle: Rectangle) -> str:
    box = (rectangle.x, rectangle.y, rectangle.x + rectangle.width, rectangle.y + rectangle.height)
    if rectangle.line is None:
        return f'<rect {_place(box)} fill="{rectangle.color}"/>'
    return _line(box, rectangle.color, rectangle.line, rectangle.dashed)


def _line(box: Edges, color: str, width: float, dashed: bool = False) -> str:
    """A line of that width inside the edges of the box."""
    half = width / 2
    inside = (box[0] + half, box[1] + half, box[2] - half, box[3] - half)
    dash = f' stroke-dasharray="{_n(3 * width)} {_n(2 * width)}"' if dashed else ""
    return f'<rect {_place(inside)} fill="none" stroke="{color}" stroke-width="{_n(width)}"{dash}/>'


def _text(text: Text) -> list[str]:
    x = text.x - text_width(text.text, text.size, text.bold) * text.right
    lines = []
    for run in runs(text.text, text.bold):
        wide = text_width(run.text, text.size, text.bold)
        if run.font == font_file(text.bold) and run.text.strip():
            # The width as measured keeps texts apart in a program that shows another font.
            weight = ' font-weight="bold"' if text.bold else ""
            lines.append(
                f'<text x="{_n(x)}" y="{_n(text.y)}" font-family={quoteattr(FAMILY)} '
                f'font-size="{_n(text.size)}"{weight} '
                f'fill="{text.color}" textLength="{_n(wide)}" lengthAdjust="spacingAndGlyphs" xml:space="preserve">'
                f"{escape(run.text)}</text>"
            )
        elif run.font != font_file(text.bold):
            steps = []
            for start, commands in fonts.outlines(run.font, run.text):
                for what, points in commands:
                    numbers = " ".join(
                        f"{_n(x + (start + along) * text.size)} {_n(text.y - up * text.size)}" for along, up in points
                    )
                    steps.append(f"{what.upper()}{numbers}" if numbers else "Z")
            lines.append(f'<path d="{"".join(steps)}" fill="{text.color}"/>')
        x += wide
    return lines


def _place(box: Edges) -> str:
    left, top, right, bottom = box
    return f'x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" height="{_n(bottom - top)}"'


def _path(box: Edges) -> str:
    left, top, right, bottom = map(_n, box)
    return f"M{left} {top}H{right}V{bottom}H{left}Z"


def _n(number: float) -> str:
    """A number with as many digits as matter."""
    return f"{number:.4f}".rstrip("0").rstrip(".") or "0"
