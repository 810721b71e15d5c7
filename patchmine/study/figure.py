"""The page of a study: synthetic images on their canvases with peaks marked, and the curves behind the verdicts."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from patchmine.drawing.lettering import draw_on, fitted
from patchmine.drawing.settings import own_settings
from patchmine.study.in_photographs import InPhotographs
from patchmine.study.instruments.peaks import APART
from patchmine.study.trials import Result, Trial
from patchmine.study.verdicts import UNMEASURED, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from patchmine.study.why import Study

_COLORS = {"zeros": "#1b6ca8", "circular": "#d1495b", "reflect": "#7a9e43"}
_SAID = {"zeros": "zero padding, as trained", "circular": "circular: a torus", "reflect": "reflected"}
_ACROSS = 4  # canvases shown side by side


def page(found: Study) -> Figure:
    """An A4 page. The figure belongs to no window and can be changed before it is saved."""
    with own_settings({"font.size": 8, "axes.titlesize": 8.5, "axes.spines.top": False, "axes.spines.right": False}):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.27, 11.69))
        FigureCanvasAgg(figure)
        left, across, down = 0.06 * 72 * 8.27, 72 * 8.27, 72 * 11.69
        title = fitted(f"Why {found.name}?", 0.9 * across, 15, bold=True)
        draw_on(figure, (left, 0.965 * down), title, 15, "black", bold=True)
        facts = [str(found.unit), f"field {found.subject.pattern} px", *([found.evidence] if found.evidence else ())]
        draw_on(figure, (left, 0.951 * down), fitted(" · ".join(facts), 0.9 * across, 8), 8, "#555555")
        figure.text(0.06, 0.938, textwrap.fill(found.conclusion, 108), size=9, va="top", linespacing=1.35)
        _canvases(figure, found)
        curves = figure.add_gridspec(2, 3, left=0.08, right=0.96, bottom=0.05, top=0.40, hspace=0.42, wspace=0.36)
        _growth(figure.add_subplot(curves[0, 0]), found)
        _corners(figure.add_subplot(curves[0, 1]), found)
        _photographs(figure.add_subplot(curves[0, 2]), found)
        _positions(figure.add_subplot(curves[1, 0]), found.seen)
        _spectra(figure.add_subplot(curves[1, 1]), found)
        _words(figure.add_subplot(curves[1, 2]), found.verdicts)
    return figure


def _canvases(figure: Figure, found: Study) -> None:
    """Two rows of canvases at one scale, zero padding above and the torus below."""
    sides = _shown_sides(found)
    if not sides:
        return
    width, gap, left, top = 0.90, 0.012, 0.06, 0.845
    aspect = 8.27 / 11.69
    scale = min((width - gap * (len(sides) - 1)) / sum(sides), 0.185 / aspect / max(sides))
    height = max(sides) * scale * aspect
    for row, padding in enumerate(("zeros", "circular")):
        x, bottom = left, top - (row + 1) * height - row * 0.028
        figure.text(left, bottom + height + 0.004, _SAID[padding], size=8, color=_COLORS[padding])
        for side in sides:
            result = found.results.get(Trial(side, padding))  # type: ignore[arg-type]
            if result is not None and len(result.pictures):
                axes = figure.add_axes(
                    (x, bottom + height - side * scale * aspect, side * scale, side * scale * aspect)
                )
                _picture(axes, result, found)
            x += side * scale + gap


def _shown_sides(found: Study) -> list[int]:
    """The trained canvas and the canvases around it, as many as fit in a row."""
    sides = sorted({t.side for t, r in found.results.items() if t.objective == "channel" and len(r.pictures)})
    while len(sides) > _ACROSS:
        sides.pop(-1 if sides[-1] > 2 * found.subject.base else (1 if sides[1] != found.subject.base else 2))
    return sides


def _picture(axes: Axes, result: Result, found: Study) -> None:
    axes.imshow(result.pictures[0], interpolation="lanczos")
    (marks,) = result.peaks(found.subject, APART)[:1]
    ys, xs = found.subject.places(marks).T
    axes.plot(xs, ys, "o", mfc="none", mec="white", ms=5, mew=1.6)
    axes.plot(xs, ys, "o", mfc="none", mec="black", ms=5, mew=0.7)
    axes.set_xlim(-0.5, result.trial.side - 0.5)
    axes.set_ylim(result.trial.side - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(f"{result.trial.side} px, {len(marks)} peak{'s' if len(marks) != 1 else ''}", size=7, labelpad=2)


def _verdict(found: Study, question: str) -> Verdict:
    return next(verdict for verdict in found.verdicts if verdict.question == question)


def _growth(axes: Axes, found: Study) -> None:
    numbers = _verdict(found, "pitch or count").numbers
    axes.set_title("Peaks on larger canvases", loc="left")
    for padding, color in _COLORS.items():
        areas, counts = numbers.get(f"{padding}_areas_px2", []), numbers.get(f"{padding}_peaks", [])
        if not areas:
            continue
        sides = np.sqrt(areas)
        fit = numbers.get(f"{padding}_exponent")
        label = f"{padding}: area$^{{{fit['value']:.2f}}}$" if fit else padding
        axes.plot(sides, np.maximum(counts, 0.5), "o", color=color, ms=3.5, alpha=0.7, label=label)
        if fit:
            means = {side: np.mean([c for s, c in zip(sides, counts, strict=True) if s == side]) for side in set(sides)}
            middle = np.exp(np.mean(np.log(sides)))
            level = np.exp(np.mean([np.log(max(m, 0.5)) - fit["value"] * 2 * np.log(s) for s, m in means.items()]))
            line = np.array([sides.min(), middle, sides.max()])
            axes.plot(line, level * line ** (2 * fit["value"]), color=color, lw=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({round(np.sqrt(a)) for p in _COLORS for a in numbers.get(f"{p}_areas_px2", [])})
    axes.set_xticks(ticks[:: max(1, len(ticks) // 4)], [str(tick) for tick in ticks[:: max(1, len(ticks) // 4)]])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
    levels = [level for level in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= level <= high]
    axes.set_yticks(levels, [str(level) for level in levels])
    axes.minorticks_off()
    axes.set_xlabel("side of the canvas, px")
    axes.set_ylabel("peaks (0 drawn at 0.5)")
    if ticks:
        axes.legend(frameon=False, fontsize=6.5, loc="upper left")


def _corners(axes: Axes, found: Study) -> None:
    axes.set_title("With a border and without", loc="left")
    base = found.subject.base
    for number, padding in enumerate(("zeros", "reflect", "circular")):
        result = found.results.get(Trial(base, padding))  # type: ignore[arg-type]
        if result is None or not len(result.maps):
            continue
        counts = [len(one) for one in result.peaks(found.subject, APART)]
        axes.bar(number, np.mean(counts), 0.6, color=_COLORS[padding], alpha=0.35)
        axes.plot([number] * len(counts), counts, "o", color=_COLORS[padding], ms=4)
        left = result.kept_when_moved(found.subject)
        if left is not None:
            axes.annotate(
                f"moved:\n{left:.0%}", (number, 0), xytext=(0, 3), textcoords="offset points", ha="center", size=6.5
            )
    axes.set_xticks([0, 1, 2], ["zeros", "reflect", "circular"])
    axes.set_ylabel(f"peaks on {base} px")
    axes.set_xlim(-0.6, 2.6)


def _photographs(axes: Axes, found: Study) -> None:
    axes.set_title("Peaks in photographs", loc="left")
    numbers = _verdict(found, "positions in the data").numbers
    seen, made = numbers.get("peaks_per_photograph", []), numbers.get("peaks_per_synthetic_image", [])
    if not seen:
        _empty(axes)
        return
    most = max([*seen, *made, 1])
    bins = [count - 0.5 for count in range(most + 2)]
    axes.hist(seen, bins, color="#999999", weights=np.full(len(seen), 1 / len(seen)), label=f"{len(seen)} photographs")
    for count in sorted(set(made)):
        axes.axvline(count, color=_COLORS["zeros"], lw=1.2, label="synthetic images" if count == min(made) else None)
    axes.set_xlabel("peaks")
    axes.set_ylabel("share of photographs")
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])  # room for the legend
    axes.legend(fontsize=6.5, loc="upper right", edgecolor="none", framealpha=0.9)


def _positions(axes: Axes, seen: InPhotographs | None) -> None:
    axes.set_title("Where the strongest patches lie", loc="left")
    if seen is None or not len(seen.positions):
        _empty(axes)
        return
    counts = np.zeros(seen.grid)
    np.add.at(counts, (seen.positions[:, 0], seen.positions[:, 1]), 1)
    shown = axes.imshow(counts, cmap="Grays", interpolation="nearest", vmin=0)
    axes.figure.colorbar(shown, ax=axes, shrink=0.8, label="photographs")
    axes.set_xticks([])
    axes.set_yticks([])
    middle = seen.centeredness
    axes.set_xlabel(f"off center {middle.found:.2f}, by chance {middle.anywhere:.2f}", size=7)


def _spectra(axes: Axes, found: Study) -> None:
    axes.set_title("Power by frequency", loc="left")
    if found.noise is None:
        _empty(axes)
        return
    for name, curve in found.noise.curves.items():
        axes.plot(curve.frequencies, curve.power, lw=1.1, label=f"{name}: slope {curve.slope:.1f}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("cycles per pixel")
    axes.set_ylabel("share of all power")
    axes.legend(frameon=False, fontsize=6.5)


def _words(axes: Axes, found: list[Verdict]) -> None:
    axes.set_axis_off()
    axes.set_title("Verdicts", loc="left")
    y = 0.95
    for verdict in found:
        color = "#888888" if verdict.word in (UNMEASURED, "undecided") else "black"
        axes.text(0, y, verdict.question, transform=axes.transAxes, size=7.5, color="#555555")
        axes.text(0, y - 0.075, verdict.word, transform=axes.transAxes, size=9.5, weight="bold", color=color)
        y -= 0.2


def _empty(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, UNMEASURED, transform=axes.transAxes, ha="center", color="#888888")


__all__ = ["page"]
