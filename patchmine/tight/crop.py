"""One patch's tight crop, from the first look at the photograph to the last: a conversation with the network.

A box *retains* the smaller, over both backgrounds g, of (f(x in the box, g around) - f(g)) / (f(x) - f(g)), where f is
the unit's activation at the patch's position and x the photograph as the network saw it. *Without* is the share left
when the box is covered by the blurred photograph and the rest is whole: (f(blur in the box, x around) - f(blur)) /
(f(x) - f(blur)). The idea is that of sufficient input subsets (B. Carter, J. Mueller, S. Jain and D. Gifford, "What
made you do this?", AISTATS 2019) and of extremal perturbations (R. Fong, M. Patrick and A. Vedaldi, ICCV 2019), for a
box.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from patchmine.kept.tight_crops import TightCrop
from patchmine.tight.probes import Probe, Spot
from patchmine.tight.search import BLUR, COVERED, GREY, NOISE, STEP, search
from patchmine.units import Box

Probing = Generator[Probe, float, TightCrop | None]
"""A running search on a photograph: it yields probes, is sent activations, and returns the crop."""

TOO_NEAR = 1e-3
"""If the photograph drives the unit more than a background by less than this share of its spread, there is no crop."""


@dataclass(frozen=True)
class Subject:
    """A patch as the search sees it.

    `picture`, `blurred` and `noise` are float32 (3, height, width), normalized. `domain` is the part of the input that
    can change the activation, `center` (y, x) the position's center, both in input pixels; `spread` is the unit's
    standard deviation over the photographs.
    """

    picture: Tensor
    blurred: Tensor
    noise: Tensor
    spot: Spot
    domain: Box
    center: tuple[float, float]
    spread: float


def tight_crop(subject: Subject, share: float, *, rough: bool = False) -> Probing:
    """The crop; None where the photograph drives the unit hardly more than a background does.

    With `rough`, the search finds its way with probes that need not be exact.
    """
    picture, spot = subject.picture, subject.spot
    backgrounds: dict[int, Tensor | None] = {GREY: None, BLUR: subject.blurred, NOISE: subject.noise}
    whole = yield Probe(spot, picture)
    blanks, gains = {}, {}
    for around, background in backgrounds.items():
        blanks[around] = yield Probe(spot, background, exact=around != NOISE)
        gains[around] = whole - blanks[around]
    near = TOO_NEAR * subject.spread
    if not (gains[GREY] > near and gains[BLUR] > near):
        return None
    asking = search(subject.domain, subject.center, share, rough=rough)
    answer = None
    while True:
        try:
            question = asking.send(answer)  # type: ignore[arg-type]  # the first send begins, and must be None
        except StopIteration as end:
            found = end.value
            break
        covered = question.around == COVERED
        around = BLUR if covered else question.around
        if gains[around] > near:
            outside, inside = (picture, subject.blurred) if covered else (backgrounds[around], picture)
            value = yield Probe(spot, outside, inside, question.box, question.exact)
            answer = (value - blanks[around]) / gains[around]
        else:
            answer = 1.0  # noise drives the unit as much as the photograph: it rules no box out
    return TightCrop(found.box, found.retained, found.without, found.asked)


def measured(subject: Subject, box: Box) -> Probing:
    """What a box retains and what is left without it, measured afresh; None where there is no tight crop."""
    picture, spot, blur = subject.picture, subject.spot, subject.blurred
    whole = yield Probe(spot, picture)
    shares = []
    for background in (None, blur):
        blank = yield Probe(spot, background)
        if not whole - blank > TOO_NEAR * subject.spread:
            return None
        alone = yield Probe(spot, background, picture, box)
        shares.append((alone - blank) / (whole - blank))
    covered = yield Probe(spot, picture, blur, box)
    return TightCrop(box, min(shares), (covered - blank) / (whole - blank), 0)


def on_grid(box: Box, size: tuple[int, int]) -> Box:
    """The box with its sides moved outward to the grid of the search, inside an input of (height, width)."""
    return Box(
        box.left // STEP * STEP,
        box.top // STEP * STEP,
        min(-(-box.right // STEP) * STEP, size[1]),
        min(-(-box.bottom // STEP) * STEP, size[0]),
    )
