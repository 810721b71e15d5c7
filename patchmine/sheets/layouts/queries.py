"""Queries: a trial of psychophysics, with references on both sides and two queries between them.

As in Borowski et al. 2021, "Exemplary Natural Images Explain CNN Activations Better than State-of-the-Art Feature
Visualization", and Zimmermann et al. 2021: which query drives the unit that the references on the right drive?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from patchmine.drawing.lettering import fitted
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenUnit
from patchmine.sheets import tiles
from patchmine.sheets.captions import add_legend
from patchmine.sheets.layouts.strips import add_unit, page_of_units
from patchmine.sheets.origin import Origin
from patchmine.sheets.page import Page, Text
from patchmine.sheets.style import PAGE, Style

AIR = 10.0
"""Points between the references and the queries."""


@dataclass(frozen=True)
class Trial:
    """References of both ends, as many of each, and a query of each end that is not among them.

    `swapped` tells whether the query of the upper end stands below that of the lower end.
    """

    low: Patches
    high: Patches
    low_query: Patches
    high_query: Patches
    swapped: bool

    @property
    def patches(self) -> tuple[Patches, ...]:
        return self.low, self.high, self.low_query, self.high_query


def trial_of(top: Patches, bottom: Patches, k: int, seed: int) -> Trial:
    """A trial of the k + 1 best and the k + 1 weakest patches: at each end a query is drawn, the others are references.

    No photograph appears twice. With fewer photographs there are fewer references.
    """
    size = min(k + 1, len(top), len({patch.image_id for patch in (*top, *bottom)}) // 2)
    best = {patch.image_id for patch in top[:size]}
    free = [number for number, patch in enumerate(bottom) if patch.image_id not in best][:size]
    rng = np.random.default_rng(seed)
    parts: list[Patches] = []
    for patches in (bottom.chosen(free), top[:size]):
        query = int(rng.integers(len(patches))) if len(patches) else 0
        rest = [number for number in range(len(patches)) if number != query]
        parts += [patches.chosen(rest), patches.chosen([query] if len(patches) else [])]
    return Trial(parts[0], parts[2], parts[1], parts[3], bool(rng.integers(2)))


def queries_page(trials: Sequence[tuple[OpenUnit, Trial]], style: Style = PAGE) -> Page:
    """A page with a trial for each unit. Reads the photographs, in parallel. Raises ValueError without trials."""
    if not trials:
        raise ValueError("a sheet of queries needs at least one unit")
    units = [unit for unit, _ in trials]
    origin = Origin.of(units[0].index)
    facts = (
        f"Of {origin.data}: references that drive each unit least (left) and "
        "hardest (right), and two queries, one of each kind. Which is which?"
    )
    page, y = page_of_units(units, facts, style)
    for number, (unit, trial) in enumerate(trials):
        y = add_unit(page, unit, trial.high, y + style.gap * (number > 0))
        y = _trial(page, trial, y)
    page.height = add_legend(page, y) + style.margin
    return page


def queries_columns(references: int, style: Style) -> int:
    """How many references stand side by side, at each end."""
    return style.columns or max(1, ceil(sqrt(references)))


def _trial(page: Page, trial: Trial, y: float) -> float:
    style = page.style
    columns = queries_columns(len(trial.high), style)
    width = (style.inner - 2 * AIR - 2 * (columns - 1) * style.gap) / (2 * columns + 1)
    block = columns * (width + style.gap) - style.gap
    middle, right = style.margin + block + AIR, style.margin + block + 2 * AIR + width
    y += style.small
    for text, x, room in (("lowest", style.margin, block), ("queries", middle, width), ("highest", right, block)):
        page.texts.append(Text(fitted(text, room, style.small, bold=True), x, y, style.small, bold=True))
    top = y + 0.5 * style.small
    ends = [
        tiles.lay(page, trial.low, (style.margin, top, block), columns),
        tiles.lay(page, trial.high, (right, top, block), columns),
    ]
    pair = [trial.low_query, trial.high_query]
    tall = sum(width * tiles.ratio(query, query.cropping) + style.gap for query in pair) - style.gap
    below = top + max(0.0, (max(ends) - top - tall) / 2)
    for query in reversed(pair) if trial.swapped else pair:
        below = tiles.lay(page, query, (middle, below, width), 1, bare=True) + style.gap
    return max(*ends, below - style.gap)
