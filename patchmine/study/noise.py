"""Why synthetic images are noisy: their power spectra beside those of photographs and of the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot, isnan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from patchmine.networks.taps import survey
from patchmine.photographs.decode import normalized
from patchmine.study.in_photographs import InPhotographs
from patchmine.study.instruments.gradients import gradient_power, gradients, phases
from patchmine.study.instruments.spectra import STRIDES, Power, mean_power, radial, slope, stride_energy, stride_share
from patchmine.study.trials import Result, Subject, Trial
from patchmine.study.verdicts import UNMEASURED, Verdict
from patchmine.units import Position

_QUESTION = "noise"
_PHOTOGRAPHS = 8  # photographs whose gradients are computed
_FLATTER = 0.5  # in the exponent: two photographs differ by less
_CHECKERED = 2.0  # times the energy of neighboring frequencies


@dataclass(frozen=True)
class Curve:
    """A power spectrum over frequency (cycles per pixel), with a total power of 1, and the exponent of its fall with
    its standard error. `strides` is the energy at each stride's frequencies relative to neighboring frequencies,
    `energy` its share of the total."""

    frequencies: NDArray[np.float64]
    power: NDArray[np.float64]
    slope: float
    error: float
    strides: dict[int, float]
    energy: dict[int, float]

    def as_dict(self) -> dict[str, Any]:
        return {
            "slope": self.slope,
            "error": self.error,
            "stride_over_beside": {str(s): None if isnan(v) else v for s, v in self.strides.items()},
            "stride_energy": {str(s): None if isnan(v) else v for s, v in self.energy.items()},
        }


@dataclass(frozen=True)
class Noise:
    """The curves by name, and the verdict."""

    curves: dict[str, Curve]
    verdict: Verdict


def noise(results: Mapping[Trial, Result], subject: Subject, seen: InPhotographs | None) -> Noise | None:
    """Compare the plain-pixel image, the robust one, photographs, and gradients. None without the plain-pixel image or
    without any other curve."""
    strides = [stride for stride in STRIDES if stride <= subject.stride]
    base = subject.base
    curves = {}
    uneven: dict[str, float] = {}
    for name, trial in (("plain pixels", Trial(base, method="pixels")), ("robust", Trial(base))):
        result = results.get(trial)
        if result is not None and len(result.pictures):
            curves[name] = _curve(mean_power(result.pictures, multiple=subject.stride), strides, len(result.pictures))
    if seen is not None and len(seen.pictures) and min(seen.pictures.shape[1:3]) >= subject.stride:
        curves["photographs"] = _curve(mean_power(seen.pictures, multiple=subject.stride), strides, len(seen.pictures))
        inputs = normalized(torch.from_numpy(seen.pictures[:_PHOTOGRAPHS]).permute(0, 3, 1, 2), subject.preprocessing)
        tap = survey(subject.module, inputs[:1], [subject.layer])[0]
        middle = Position(tap.layout.grid[0] // 2, tap.layout.grid[1] // 2)
        asked = (subject.module, tap, subject.channel, middle, inputs)
        curves["gradient"] = _curve(gradient_power(*asked, multiple=subject.stride), strides, len(inputs))
        uneven = _uneven(gradients(*asked), strides)
    if "plain pixels" not in curves or len(curves) < 2:
        return None
    verdict = _verdict(curves, strides)
    verdict.numbers["gradient_uneven"] = uneven
    return Noise(curves, verdict)


def unmeasured() -> Verdict:
    return Verdict(_QUESTION, UNMEASURED, "no plain-pixel image to compare")


def _curve(spectrum: Power, strides: list[int], pictures: int) -> Curve:
    rings, fall = radial(spectrum), slope(spectrum, pictures=pictures)
    return Curve(
        rings.frequency,
        rings.power / rings.power.sum(),
        fall.value,
        fall.error,
        {stride: stride_share(spectrum, stride) for stride in strides},
        {stride: stride_energy(spectrum, stride) for stride in strides},
    )


def _uneven(found: NDArray[np.float32], strides: list[int]) -> dict[str, float]:
    """How unevenly the gradient's energy is distributed over the pixels of a stride's cell: standard deviation over
    mean, by stride. Strided windows read some pixels more often, which a spectrum hides where signs change."""
    fits = [stride for stride in strides if not (found.shape[1] % stride or found.shape[2] % stride)]
    return {str(stride): float(phases(found, stride).std()) for stride in fits}


def _verdict(curves: dict[str, Curve], strides: list[int]) -> Verdict:
    plain, real = curves["plain pixels"], curves.get("photographs")
    numbers = {name: curve.as_dict() for name, curve in curves.items()}
    if real is None:
        return Verdict(_QUESTION, UNMEASURED, "no photographs to compare with", numbers)
    flatter = plain.slope - real.slope
    searched = flatter > max(_FLATTER, 2 * hypot(plain.error, real.error))
    worst = max(strides, key=lambda stride: -1.0 if isnan(plain.strides[stride]) else plain.strides[stride])
    checkered = not isnan(plain.strides[worst]) and plain.strides[worst] > _CHECKERED
    word = {(True, True): "search and strides", (True, False): "search", (False, True): "strides"}.get(
        (searched, checkered), "neither"
    )
    robust = f", that of the robust image as f^{curves['robust'].slope:.1f}" if "robust" in curves else ""
    through = curves["gradient"].strides[worst] if "gradient" in curves else float("nan")
    back = "" if isnan(through) else f"; the gradient has {through:.1f} times"
    because = (
        f"the power of the plain-pixel image falls as f^{plain.slope:.1f}, that of photographs as f^{real.slope:.1f}"
        f"{robust}; at the frequencies of stride {worst} the plain-pixel image has {plain.strides[worst]:.1f} times "
        f"the energy of neighboring frequencies{back}"
    )
    return Verdict(_QUESTION, word, because, numbers)


__all__ = ["Curve", "Noise", "noise", "unmeasured"]
