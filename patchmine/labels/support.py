"""How far the label of a unit holds, in numbers and in the words that stand beside its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Support:
    """The label of a unit and how far it holds; None for what is not known.

    `hits` of the `of` strongest photographs carry the label, `lift` times as many as chance would give; with ties, hits
    are an expected number. `r` is the correlation by which the label was chosen. `common` is the commonest class among
    those photographs, which `common_hits` of them have. `predicted` says that the network predicted the classes.
    """

    label: str | None = None
    auroc: float | None = None
    hits: float | None = None
    of: int | None = None
    lift: float | None = None
    r: float | None = None
    common: str | None = None
    common_hits: float | None = None
    predicted: bool = False

    @property
    def count(self) -> str | None:
        """`19 of top 25 (5.8x chance)`; None without a label, or with one by patchmine's first rule."""
        return counted_hits(self.hits, self.of, self.lift)

    @property
    def beside(self) -> str | None:
        """`canine 19 of top 25 (5.8x chance)`; None without a label."""
        if self.label is None:
            return None
        area = "" if self.auroc is None else f" (AUROC {self.auroc:.2f})"
        return f"{self.label}{area}" if self.count is None else f"{self.label} {self.count}"

    def __str__(self) -> str:
        """`beside`, or for a unit without a label what comes nearest to one; empty if nothing is known."""
        if self.beside is not None or self.common is None or self.common_hits is None:
            return self.beside or ""
        if self.common_hits <= 1:
            return f"no label; no two of the top {self.of} share a class"
        what = "commonest predicted class" if self.predicted else "commonest class"
        count = f"{round(self.common_hits)}{_ties(self.common_hits)}"
        return f"no label; {what} in the top {self.of}: {self.common} ({count})"

    def numbers(self) -> dict[str, Any]:
        """The columns of `units --json` that say how far the label holds; None without a label."""
        return {
            "hits": _rounded(self.hits, 4),
            "of": None if self.hits is None else self.of,
            "lift": _rounded(self.lift, 4),
            "r": _rounded(self.r, 6),
            "auroc": _rounded(self.auroc, 6),
        }


def counted_hits(hits: float | None, of: int | None, lift: float | None) -> str | None:
    """`19 of top 25 (5.8x chance)`; None without the numbers. Hits that ties make an expected number are rounded."""
    if hits is None or of is None or lift is None:
        return None
    return f"{round(hits)} of top {of} ({_times(lift)} chance{_ties(hits)})"


def _times(lift: float) -> str:
    return f"{lift:.1f}x" if lift < 9.95 else f"{lift:.0f}x"


def _ties(hits: float) -> str:
    return "" if abs(hits - round(hits)) < 1e-4 else ", ties"


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)
