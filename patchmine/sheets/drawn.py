"""Answers that draw themselves: a comparison with its figure."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from patchmine.questions import compare as comparing
from patchmine.reading.opened import OpenUnit
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
        from patchmine.sheets.vector import figure_of

        return figure_of(compare_page(self))


def compare(unit: OpenUnit, recipe: Recipe, **how: Any) -> Comparison:
    """Like `questions.compare.compare`, with a result that can draw itself."""
    found = comparing.compare(unit, recipe, **how)
    return Comparison(**{field.name: getattr(found, field.name) for field in fields(found)})
