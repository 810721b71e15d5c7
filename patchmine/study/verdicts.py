"""Turns trials and photographs into verdicts: each a word, the numbers behind it, and their uncertainty.

A verdict is `undecided` if the interval of its number allows more than one answer. It is `not measured`, with the
reason, if the number could not be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from patchmine.ranking import Float32
from patchmine.study.in_photographs import InPhotographs
from patchmine.study.instruments.alike import Alike, among, patches
from patchmine.study.instruments.counting import Estimate, exponent, ratio, ratio_over
from patchmine.study.instruments.peaks import APART, Peaks, peaks, period, scrambled
from patchmine.study.trials import Result, Subject, Trial

UNMEASURED = "not measured"
ALIKE = 0.2
"""Peaks count as alike if their mean cosine in the layer exceeds that of any two places of the image by this much."""
APART_FROM_NOISE = 0.25
"""The relative difference from the spacing in noise of the same spectrum above which peaks are spaced differently."""
_SURROGATES = 8
BORDER = 0.5
"""A cell whose center is at least this share of the field's side from the canvas's edge counts as the middle."""


@dataclass(frozen=True)
class Verdict:
    """`word` is the answer, `because` one sentence with the key numbers, `numbers` all numbers for the report."""

    question: str
    word: str
    because: str
    numbers: dict[str, Any] = field(default_factory=dict)


Results = Mapping[Trial, Result]


def reference(results: Results, subject: Subject) -> float | None:
    """The unit's largest activation on the trained canvas with the trained padding, as the median over seeds; None if
    it is never above 0."""
    native = results.get(Trial(subject.base))
    if native is None or native.refused or not len(native.maps) or float(native.maxima.max()) <= 0:
        return None
    return float(np.median(native.maxima))


def counted(result: Result, subject: Subject, level: float) -> list[Peaks]:
    """The peaks of each seed's map; none if the unit is driven less than half as hard as on the trained canvas."""
    return result.peaks(subject, APART, level)


def pitch_or_count(results: Results, subject: Subject) -> Verdict:
    """Does the number of peaks grow with the canvas's area (the pattern's pitch), or is it fixed?"""
    question = "pitch or count"
    level = reference(results, subject)
    if level is None:
        return Verdict(question, UNMEASURED, "no synthetic image drives the unit above 0 at the network's input size")
    numbers: dict[str, Any] = {}
    found: dict[str, Estimate] = {}
    for padding in ("zeros", "circular", "reflect"):
        areas, counts = _series(results, subject, level, padding)
        numbers[f"{padding}_areas_px2"], numbers[f"{padding}_peaks"] = areas, counts
        estimate = exponent(areas, counts)
        if estimate is not None:
            found[padding] = estimate
            numbers[f"{padding}_exponent"] = estimate.as_dict()
    if "zeros" not in found:
        why = subject.fixed or "the unit could be driven on one canvas only"
        return Verdict(question, UNMEASURED, why, numbers)
    b = found["zeros"]
    if b.low > 0.5:
        word = "pitch"
    elif b.high < 0.5:
        word = "count"
    else:
        word = "undecided"
    torus = f"; on the torus, to the power of {found['circular']}" if "circular" in found else ""
    meaning = {
        "pitch": "the number of peaks grows with the canvas",
        "count": "the number of peaks hardly grows with the canvas",
        "undecided": "it is unclear how the number of peaks grows",
    }[word]
    return Verdict(question, word, f"{meaning}: as the canvas's area to the power of {b}{torus}", numbers)


def _series(results: Results, subject: Subject, level: float, padding: str) -> tuple[list[float], list[int]]:
    areas, counts = [], []
    for trial, result in results.items():
        if (trial.padding, trial.objective, trial.method) == (padding, "channel", "fourier") and not result.refused:
            for one in counted(result, subject, level):
                areas.append(float(trial.side**2))
                counts.append(len(one))
    return areas, counts


def corners(results: Results, subject: Subject) -> Verdict:
    """Do the peaks depend on the padding at the border? They would then vanish on a canvas without one."""
    question = "corners"
    level = reference(results, subject)
    flat, torus = results.get(Trial(subject.base)), results.get(Trial(subject.base, "circular"))
    if level is None or flat is None:
        return Verdict(question, UNMEASURED, "no synthetic image drives the unit above 0 at the network's input size")
    if torus is None or torus.refused:
        why = torus.refused if torus else subject.fixed or "the budget did not reach the torus"
        return Verdict(question, UNMEASURED, str(why))
    pairs = [(Trial(side), Trial(side, "circular")) for side in subject.sides()]
    both = [(results[a], results[b]) for a, b in pairs if a in results and b in results]
    both = [(a, b) for a, b in both if not a.refused and not b.refused]
    with_border = [[len(one) for one in counted(a, subject, level)] for a, _ in both]
    without = [[len(one) for one in counted(b, subject, level)] for _, b in both]
    kept = ratio_over(list(zip(without, with_border, strict=True)))
    drive = float(np.median(torus.maxima)) / level
    density = _density(results, subject, level)
    numbers: dict[str, Any] = {
        "canvases_px": [a.trial.side for a, _ in both],
        "peaks_with_border": with_border,
        "peaks_on_torus": without,
        "torus_over_border": None if kept is None else kept.as_dict(),
        "drive_on_torus": drive,
        "border_over_middle": None if density is None else density.as_dict(),
        "kept_when_moved": flat.kept_when_moved(subject),
        "kept_when_moved_on_torus": torus.kept_when_moved(subject),
    }
    if kept is None:
        return Verdict(question, UNMEASURED, "no image has a peak, with or without a border", numbers)
    crowded = density is not None and density.low > 2
    if kept.high < 0.5:
        word = "yes"
    elif kept.low > 0.5 and not crowded:
        word = "no"
    elif kept.low > 0.5:
        word = "partly"
    else:
        word = "undecided"
    said = {
        "yes": "most peaks vanish on a torus, which has no border",
        "no": "the peaks remain without a border",
        "partly": "the peaks remain without a border, but crowd along it where there is one",
        "undecided": "it is unclear whether the peaks need a border",
    }[word]
    crowd = "" if density is None else f"; at the border they are {density} times as dense as in the middle"
    because = (
        f"{said}: a torus has {kept} times as many{crowd}; "
        f"on the torus the unit reaches {drive:.0%} of its activation with a border"
    )
    return Verdict(question, word, because, numbers)


def _density(results: Results, subject: Subject, level: float) -> Estimate | None:
    """Peaks per cell at the border relative to the middle, on the largest canvas that has both; None without such a
    canvas."""
    reach = BORDER * subject.pattern / subject.stride
    for side in reversed(subject.sides()):
        result = results.get(Trial(side))
        if result is None or result.refused:
            continue
        height, width = result.maps.shape[1:]
        ys, xs = np.mgrid[:height, :width]
        inner = (np.minimum(ys, height - 1 - ys) + 0.5 >= reach) & (np.minimum(xs, width - 1 - xs) + 0.5 >= reach)
        found = counted(result, subject, level)
        if 0 < inner.sum() < inner.size and any(len(one) for one in found):
            middle = [int(inner[one.cells[:, 0], one.cells[:, 1]].sum()) for one in found]
            edge = [len(one) - inside for one, inside in zip(found, middle, strict=True)]
            return ratio(edge, middle, float((~inner).sum() / inner.sum()))
    return None


def endless(results: Results, subject: Subject) -> Result | None:
    """The largest torus with images that is at least as large as the trained canvas: the canvas without an end."""
    found = [r for t, r in results.items() if t.padding == "circular" and t.objective == "channel" and not r.refused]
    large = [result for result in found if result.trial.side >= subject.base]
    return max(large, key=lambda result: result.trial.side, default=None)


def periodic(results: Results, subject: Subject, alike: Alike | None = None) -> Verdict:
    """Are the repeats on the torus, the canvas without an end, identical? `alike` compares the layer's responses to
    them."""
    question = "periodic"
    level, largest = reference(results, subject), endless(results, subject)
    if level is None or largest is None:
        return Verdict(question, UNMEASURED, subject.fixed or "no image on a large enough torus")
    strengths, lengths, correlations, pictured = [], [], [], []
    spacings, regular, by_chance = [], [], []
    for one, picture, values in zip(counted(largest, subject, level), largest.pictures, largest.maps, strict=True):
        apart = period(values, APART * subject.pattern / subject.stride)
        if apart is not None:
            strengths.append(apart.strength)
            lengths.append(apart.length * subject.stride)
        shift = period(picture.astype(np.float64).mean(2), APART * subject.pattern)
        if shift is not None:
            pictured.append(shift.strength)
        same = among(patches(picture, subject.places(one), min(subject.pattern, largest.trial.side // 2)))
        if same is not None:
            correlations.append(same)
        nearest = one.nearest() * subject.stride
        if len(nearest) > 2:
            spacings.append(float(np.median(nearest)))
            regular.append(float(nearest.std() / nearest.mean()))
            by_chance += _spacing_by_chance(values, subject)
    numbers = {
        "canvas_px": largest.trial.side,
        "map_autocorrelation": strengths,
        "map_period_px": lengths,
        "picture_autocorrelation": pictured,
        "patch_likeness": correlations,
        "response_likeness": None if alike is None else asdict(alike),
        "spacing_px": spacings,
        "spacing_over_field": [spacing / subject.pattern for spacing in spacings],
        "by_chance_over_field": [spacing / subject.pattern for spacing in by_chance],
        "spacing_variation": regular,
    }
    if not correlations or not strengths:
        return Verdict(question, UNMEASURED, "the torus has fewer than two peaks", numbers)
    likewise, strength = float(np.mean(correlations)), float(np.mean(strengths))
    excess = None if alike is None else alike.excess
    if likewise > 0.9 and strength > 0.8:
        word = "identical"
    elif likewise > 0.3 or (excess is not None and excess > ALIKE):
        word = "alike"
    else:
        word = "varied"
    spaced = ""
    if spacings:
        spaced = f"; the peaks lie {np.mean(spacings):.0f} px apart"
        spaced += f" ({np.mean(by_chance):.0f} px in noise of the same spectrum)" if by_chance else ""
    because = (
        f"patches around the peaks correlate at {likewise:.2f} pixel by pixel{_to_the_layer(alike)}; the map "
        f"correlates at {strength:.2f} with itself shifted by its period (1 would be identical){spaced}"
    )
    return Verdict(question, word, because, numbers)


def _spacing_by_chance(values: Float32, subject: Subject) -> list[float]:
    """The spacing of nearest peaks in pixels on tori of the same spectrum: the median of each that has two peaks."""
    generator, cells = np.random.default_rng(0), APART * subject.pattern / subject.stride
    found = [peaks(scrambled(values, generator), cells, wraps=True).nearest() for _ in range(_SURROGATES)]
    return [float(np.median(one)) * subject.stride for one in found if len(one)]


def _to_the_layer(alike: Alike | None) -> str:
    if alike is None or alike.excess is None:
        return ""
    return f" and at {alike.repeats:.2f} in the layer's other units (any two places: {alike.anywhere:.2f})"


def in_the_data(results: Results, subject: Subject, seen: InPhotographs | None) -> Verdict:
    """Do the photographs hold as many peaks, and are they where the image suggests?"""
    question = "positions in the data"
    if seen is None or not (seen.counts >= 0).any():
        return Verdict(question, UNMEASURED, "no photograph drives the unit above 0, or none could be read")
    counts = [int(count) for count in seen.counts if count >= 0]
    middle = seen.centeredness
    numbers: dict[str, Any] = {
        "photographs": len(counts),
        "peaks_per_photograph": counts,
        "padding_share": float(1 - seen.visible.mean()),
        "off_centre": middle.found,
        "off_centre_anywhere": middle.anywhere,
        "off_centre_z": middle.z,
        "off_centre_padded_alike": middle.padded_alike,
        "off_centre_padded_alike_z": middle.z_alike,
    }
    level = reference(results, subject)
    places = "where chance would put them"
    if abs(middle.z) > 3:
        places = "nearer the middle than by chance" if middle.z < 0 else "farther from the middle than by chance"
    where = f"their patches lie {places} (z {middle.z:.1f}), and {numbers['padding_share']:.0%} of a patch is padding"
    if level is None:
        return Verdict(question, UNMEASURED, f"no synthetic image to compare with; {where}", numbers)
    synthetic = [len(one) for one in counted(results[Trial(subject.base)], subject, level)]
    less = ratio(counts, synthetic)
    numbers |= {"peaks_per_synthetic_image": synthetic, "ratio": None if less is None else less.as_dict()}
    if less is None:
        return Verdict(question, UNMEASURED, f"neither photographs nor synthetic images have a peak; {where}", numbers)
    word = "as many" if less.low <= 1 <= less.high else "fewer" if less.high < 1 else "more"
    because = (
        f"a photograph has {np.mean(counts):.1f} peaks and a synthetic image of the same size "
        f"{np.mean(synthetic):.1f}, a ratio of {less}; {where}"
    )
    return Verdict(question, word, because, numbers)


def verdicts(
    results: Results, subject: Subject, seen: InPhotographs | None, alike: Alike | None = None
) -> list[Verdict]:
    """All verdicts except the one on noise, which `noise` computes."""
    grown, border = pitch_or_count(results, subject), corners(results, subject)
    return [grown, border, periodic(results, subject, alike), in_the_data(results, subject, seen)]


def conclusion(found: Sequence[Verdict]) -> str:
    """A paragraph in plain words: which explanation holds, to what extent, and what remains undecided."""
    by = {verdict.question: verdict for verdict in found}
    pitch, corner, repeat, data = (by[q] for q in ("pitch or count", "corners", "periodic", "positions in the data"))
    parts = []
    if pitch.word == UNMEASURED and corner.word == UNMEASURED:
        parts.append("Neither the pattern's pitch nor the corners could be measured.")
    elif corner.word == "yes":
        torus = corner.numbers["torus_over_border"]["value"]
        parts.append(f"The corners are the cause: {max(0.0, 1 - torus):.0%} of the peaks vanish without a border.")
    elif pitch.word == "pitch":
        parts.append("The pattern's pitch is the cause: a larger canvas holds more peaks, just as densely.")
    elif pitch.word == "count":
        parts.append("The number belongs to the unit: it stays the same as the canvas grows.")
    else:
        parts.append("Pitch or count remains undecided.")
    if corner.word in ("no", "partly"):
        gone = 1 - min(1.0, corner.numbers["torus_over_border"]["low"])
        part = f"at most {gone:.0%}" if gone > 0.005 else "none"
        crowd = ", although they crowd along it where there is one" if corner.word == "partly" else ""
        parts.append(f"Padding explains {part} of the peaks: they remain without a border{crowd}.")
    if data.numbers.get("ratio"):
        photographs, synthetic = (
            float(np.mean(data.numbers[name])) for name in ("peaks_per_photograph", "peaks_per_synthetic_image")
        )
        share = min(1.0, photographs / synthetic) if synthetic else 1.0
        parts.append(
            f"Photographs that drive the unit hold {photographs:.1f} peaks where the synthetic image holds "
            f"{synthetic:.1f}, so seeing several at once explains at most {share:.0%}."
        )
    if repeat.word != UNMEASURED:
        said = {
            "identical": "On an endless canvas the repeats are identical.",
            "alike": "On an endless canvas the repeats are alike, not identical.",
            "varied": "On an endless canvas the repeats differ: each is another way to drive the unit.",
        }
        parts.append(said[repeat.word] + _against_noise(repeat))
    open_ = [verdict.question for verdict in found if verdict.word in (UNMEASURED, "undecided")]
    if open_:
        parts.append(f"Undecided or not measured: {', '.join(open_)}.")
    return " ".join(parts)


def _against_noise(repeat: Verdict) -> str:
    """Whether the peaks are spaced like any texture of their spectrum.

    This cannot detect a lattice, because noise with a lattice's spectrum is equally regular. The strength of the period
    shows a lattice instead.
    """
    mine, by_chance = (repeat.numbers[name] for name in ("spacing_over_field", "by_chance_over_field"))
    if not mine or not by_chance:
        return ""
    times = float(np.mean(mine) / np.mean(by_chance))
    if abs(times - 1) <= APART_FROM_NOISE:
        return " They are spaced as in noise of the same spectrum."
    return f" Their spacing is {times:.1f} times that in noise of the same spectrum."


__all__ = [
    "Verdict",
    "conclusion",
    "corners",
    "counted",
    "endless",
    "in_the_data",
    "periodic",
    "pitch_or_count",
    "reference",
    "verdicts",
]
