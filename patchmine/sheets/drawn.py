"""Answers that draw themselves, as figures of matplotlib to edit further: a comparison."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from patchmine.drawing.lettering import draw_on, text_width
from patchmine.drawing.settings import own_settings
from patchmine.photographs.crops import Piece
from patchmine.questions import compare as comparing
from patchmine.reading.opened import OpenUnit
from patchmine.sheets.page import DPI, Page
from patchmine.synthesis.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(comparing.Comparison):
    """Synthetic images beside real patches, in numbers and as a figure."""

    def figure(self) -> Figure:
        """The page of `patchmine compare` as a matplotlib figure.

        Each picture has axes of its own, each line is a text of the figure, so that both can be edited further.
        """
        from patchmine.sheets.layouts.compare import compare_page

        return figure_of(compare_page(self))


def compare(unit: OpenUnit, recipe: Recipe, **how: Any) -> Comparison:
    """Like `questions.compare.compare`, with a result that can draw itself."""
    found = comparing.compare(unit, recipe, **how)
    return Comparison(**{field.name: getattr(found, field.name) for field in fields(found)})


def figure_of(page: Page) -> Figure:
    """The page as a matplotlib figure: each picture in axes of its own, each line a text of the figure."""
    with own_settings():
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
            size = (max(1, round(picture.width * DPI / 72)), max(1, round(picture.height * DPI / 72)))
            shown = picture.image.drawn(size) if isinstance(picture.image, Piece) else picture.image
            axes.imshow(shown, aspect="auto", interpolation="none")
            axes.set_axis_off()
        for text in page.texts:
            left = text.x - text_width(text.text, text.size, text.bold) * text.right
            draw_on(figure, (left, page.height - text.y), text.text, text.size, text.color, text.bold)
        return figure
