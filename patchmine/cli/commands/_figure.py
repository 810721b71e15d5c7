"""What `patchmine sheet` draws: for each layout its pages, and the patches on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchmine import defaults
from patchmine.cli.errors import say
from patchmine.errors import RequestError
from patchmine.reading.answers import counted
from patchmine.sheets.captions import Template
from patchmine.sheets.page import narrow, stacked
from patchmine.sheets.provenance import Record, deliver_beside, latex
from patchmine.sheets.style import MM, points, style_of
from patchmine.system import allocator

if TYPE_CHECKING:
    from patchmine.cli.deliver import Form
    from patchmine.index import Index, IndexedUnit, Patches
    from patchmine.sheets.page import Page
    from patchmine.sheets.style import Style

K = {"grid": defaults.K, "spectrum": defaults.K, "zeiler": 9, "compare": 9, "queries": 9, "layer": 9, "orders": 9}
"""Patches of a unit, for layouts that do not show 8."""


_ROOM = {"spectrum": 0.6, "queries": 0.4, "compare": 0.4, "zeiler": 0.1, "layer": 0.25, "orders": 0.45}
"""The share of a page's width that is sure to be left for columns of tiles."""

_LEAST, _MOST_IN_BLOCK = 6.0, 100
"""The narrowest tile that is drawn at all, in points, and the most patches in a block of a layer."""


def style_asked(
    width: str | None, columns: int | None, caption: str | None, frame: str | None, scale_bar: bool
) -> Style:
    """The style that the options ask for. Raises RequestError for an unknown width or field of a caption."""
    template = None if caption is None else Template(caption)
    return replace(style_of(width), columns=columns, caption=template, frame=frame, scale_bar=scale_bar)


class Figure:
    """A figure of some units of an index in one of the layouts; `k` None is the layout's own number of patches."""

    def __init__(
        self,
        index: Index,
        units: Sequence[IndexedUnit],
        layout: str,
        style: Style,
        *,
        k: int | None,
        crop: str,
        share: float | None,
        project: str,
        attribution: str | None,
        groups: int,
        seed: int,
    ) -> None:
        self.index, self.units, self.layout, self.style = index, units, layout, style
        self.k = K["zeiler"] if layout == "zeiler" else k or K.get(layout, 8)
        self.crop, self.share, self.project, self.groups, self.seed = crop, share, project, groups, seed
        self.attribution = attribution
        self._check_room()
        self._record = Record()
        """The patches on the pages that were drawn."""
        self._height = 0.0
        self._said = False
        self._dpi: int | None = None

    def _check_room(self) -> None:
        style, room = self.style, _ROOM.get(self.layout, 1.0) * self.style.inner
        most = max(1, int(room / (_LEAST + style.gap)))
        if style.columns is not None and style.columns > most:
            raise RequestError(f"--columns {style.columns} leaves patches no room here: give at most {most}")
        if self.layout == "layer" and self.k > _MOST_IN_BLOCK:
            raise RequestError(f"--layout layer shows at most {_MOST_IN_BLOCK} patches of a unit, not {self.k}")

    def draw(self, form: Form, dpi: int | None, strict: bool) -> None:
        """Write the sheet; with `strict` nothing is written if a photograph cannot be shown. Raises RequestError."""
        if self.crop == "tight" and self.layout in ("strip", "grid", "zeiler", "context", "layer"):
            self.index.tight(self.units, self.k, self.share)
        self._dpi = dpi
        if self.layout == "layer":
            allocator.keep_flat()  # before threads cut out thousands of photographs
            form.draw_pages(lambda: self._whole(strict))
        else:
            form.draw(lambda: next(self._whole(strict)), dpi=dpi)

    def _whole(self, strict: bool) -> Iterator[Page]:
        """The pages, each drawn as it is asked for; all but a layer are one page."""
        self._record = Record()
        for page in self._pages():
            self._height = page.height
            if not self._record.patches and self.layout != "layer":
                raise RequestError(f"nothing to draw: {self.units[0].unit} has no patch with a finite activation")
            if strict and page.missing:
                count = counted(len(page.missing), "photograph", "photographs")
                raise RequestError(f"{count} cannot be shown; {page.missing[0]}")
            if self.style.exact:
                self._check_widths(page)
            yield page

    def _pages(self) -> Iterator[Page]:
        if self.layout == "layer":
            from patchmine.sheets.layouts.layer import DPI, layer_pages

            dpi = self._dpi or DPI
            yield from layer_pages(self.units, self.k, lambda unit: self.top(unit, self.k), self.style, dpi)
        else:
            yield _DRAWN[self.layout](self)

    def _check_widths(self, page: Page) -> None:
        """Say once if patches are too narrow, and how many columns would fit."""
        remark = narrow(page)
        if remark is not None and not self._said:
            self._said = True
            say(remark)

    def check_height(self, venue: str) -> None:
        """Say if the figure is taller than the venue allows."""
        if self._height > points(defaults.TALLEST[venue]) + 0.1:
            say(
                f"the figure is {self._height / MM:.0f} mm high, and {venue} allows {defaults.TALLEST[venue]}: choose "
                "fewer units or patches"
            )

    def deliver_beside(self, target: Path) -> None:
        """Write the table of the patches and the caption beside the figure."""
        deliver_beside(target, self._record, self._caption())

    def latex(self, target: Path, wide: bool) -> str:
        """The LaTeX that includes the figure; `wide` spans both columns of a page."""
        return latex(target, self._caption(), wide=wide)

    def _caption(self) -> str:
        return self._record.caption(self.layout, self.project)

    def top(self, unit: IndexedUnit, k: int, pick: str = "top", by: str = "activation") -> Patches:
        return self.noted(unit, unit.top(k, pick, crop=self.crop, share=self.share, by=by))

    def noted(self, unit: IndexedUnit, patches: Patches) -> Patches:
        self._record.add(unit, patches)
        return patches

    def rows(self) -> list[tuple[IndexedUnit, Patches]]:
        return [(unit, self.top(unit, self.k)) for unit in self.units]


def _strip(figure: Figure) -> Page:
    from patchmine.sheets.layouts.strips import strips_page

    return strips_page(figure.rows(), figure.k, figure.style)


def _context(figure: Figure) -> Page:
    from patchmine.sheets.layouts.context import context_page

    if figure.attribution is None:
        return context_page(figure.rows(), figure.style)
    from patchmine.cli import progress

    rows = figure.rows()
    with progress.shown() as display:
        return context_page(rows, figure.style, figure.index.projector(figure.attribution, progress=display))


def _orders(figure: Figure) -> Page:
    from patchmine.relevance.kept import kept
    from patchmine.sheets.layouts.orders import orders_page

    decision = kept(figure.index).origin.decision
    rows = [(unit, figure.top(unit, figure.k), figure.top(unit, figure.k, by="relevance")) for unit in figure.units]
    return orders_page(rows, decision, figure.style)


def _zeiler(figure: Figure) -> Page:
    from patchmine.cli import progress
    from patchmine.sheets.layouts.zeiler import zeiler_page

    with progress.shown() as display:
        return zeiler_page(figure.rows(), figure.index.projector(figure.project, progress=display), figure.style)


def _grid(figure: Figure) -> Page:
    from patchmine.sheets.layouts.grid import grid_page

    return _stacked(figure, lambda unit: grid_page(unit, figure.top(unit, figure.k), figure.style))


def _spectrum(figure: Figure) -> Page:
    from patchmine.sheets.layouts.bands import spectrum_page

    def page(unit: IndexedUnit) -> Page:
        column = figure.index.store.column(unit.unit.layer, unit.unit.channel)[0]
        return spectrum_page(unit, figure.top(unit, figure.k, "spectrum"), column, figure.style)

    return _stacked(figure, page)


def _facets(figure: Figure) -> Page:
    from patchmine.sheets.layouts.facets import MOST as MAPPED
    from patchmine.sheets.layouts.facets import facets_of, facets_page

    def page(unit: IndexedUnit) -> Page:
        best = figure.top(unit, min(MAPPED, figure.index.store.keep))
        return facets_page(unit, facets_of(unit, best, figure.groups), figure.k, figure.style)

    return _stacked(figure, page)


def _queries(figure: Figure) -> Page:
    from patchmine.sheets.layouts.queries import queries_page, trial_of

    trials = []
    for unit in figure.units:
        ends = [unit.top(figure.k + 1, pick, crop=figure.crop, share=figure.share) for pick in ("top", "bottom")]
        trial = trial_of(ends[0], ends[1], figure.k, figure.seed)
        for patches in trial.patches:
            figure.noted(unit, patches)
        trials.append((unit, trial))
    return queries_page(trials, figure.style)


def _compare(figure: Figure) -> Page:
    from patchmine.cli import progress
    from patchmine.cli.stopping import stoppable
    from patchmine.index import Cropping
    from patchmine.questions.compare import compare
    from patchmine.sheets.layouts.compare import compare_page
    from patchmine.synthesis.recipe import Recipe

    def page(unit: IndexedUnit) -> Page:
        with stoppable(), progress.shown() as display:
            recipe = Recipe(seed=figure.seed)
            found = compare(unit, recipe, k=figure.k, cropping=Cropping(figure.crop, figure.share), progress=display)
        figure.noted(unit, found.patches)
        return compare_page(found, figure.style)

    return _stacked(figure, page)


_DRAWN: dict[str, Callable[[Figure], Page]] = {
    "strip": _strip,
    "grid": _grid,
    "spectrum": _spectrum,
    "context": _context,
    "orders": _orders,
    "facets": _facets,
    "queries": _queries,
    "zeiler": _zeiler,
    "compare": _compare,
}


def _stacked(figure: Figure, page: Callable[[IndexedUnit], Page]) -> Page:
    """One page of several, below one another."""
    return stacked([page(unit) for unit in figure.units], figure.style)
