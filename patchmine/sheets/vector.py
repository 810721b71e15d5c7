"""A page as PDF or SVG, by matplotlib: text stays text, pictures keep their pixels. Or as a figure to edit further."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from patchmine.sheets.page import Page, font_file
from patchmine.system.drawing import own_settings
from patchmine.system.printable import printable

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
    from matplotlib.font_manager import FontProperties

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
        figure.text(
            text.x / page.width,
            1 - text.y / page.height,
            printable(text.text).replace("$", r"\$"),
            size=text.size,
            color=text.color,
            ha="right" if text.right else "left",
            va="baseline",
            fontproperties=FontProperties(fname=font_file(text.bold), size=text.size),
        )
    return figure
