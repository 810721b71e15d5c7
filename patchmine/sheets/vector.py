"""A page as PDF or SVG, by matplotlib: text stays text, pictures keep their pixels. Or as a figure to edit further."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from patchmine.drawing.lettering import draw_on, text_width
from patchmine.drawing.settings import own_settings
from patchmine.sheets.page import Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def vector(page: Page, kind: str) -> bytes:
    """The page as a `pdf` or `svg`."""
    # Fixed dates and ids: the same page gives the same bytes. Type 42 keeps the text selectable.
    with own_settings({"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "patchmine"}):
        from matplotlib.backends.backend_pdf import FigureCanvasPdf
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        canvas = (FigureCanvasPdf if kind == "pdf" else FigureCanvasSVG)(_figure(page))
        metadata = {"CreationDate": None} if kind == "pdf" else {"Date": None}
        buffer = io.BytesIO()
        canvas.print_figure(buffer, format=kind, dpi=72, metadata=metadata)
    return buffer.getvalue()


def figure_of(page: Page) -> Figure:
    """The page as a matplotlib figure: each picture in axes of its own, each line a text of the figure."""
    with own_settings():
        return _figure(page)


def _figure(page: Page) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(page.width / 72, page.height / 72), dpi=72)
    for picture in page.pictures:
        axes = figure.add_axes(
            (
                picture.x / page.width,
                1 - (picture.y + picture.height) / page.height,
                picture.width / page.width,
                picture.height / page.height,
            )
        )
        axes.imshow(picture.image, aspect="auto", interpolation="none")
        axes.set_axis_off()
    for text in page.texts:
        left = text.x - text_width(text.text, text.size, text.bold) * text.right
        draw_on(figure, (left, page.height - text.y), text.text, text.size, text.color, text.bold)
    return figure
