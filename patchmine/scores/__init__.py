"""Scores of units: how one-minded a unit is, from what an index keeps. Every module in this folder is a score, with

- `HELP`: one line: the score, a colon, and what it says;
- `KEPT`: whether the index keeps it: not what changes without the job, such as labels;
- `of_layer(evidence)`: the score of every unit of a layer, float64 (units,), NaN where a unit has none. Raises Lacking
  for an index without what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from patchmine.plugins import Kinds

if TYPE_CHECKING:
    from patchmine.scores._evidence import Evidence, Float64


class Score(Protocol):
    """The contract of a score."""

    HELP: str
    KEPT: bool

    @staticmethod
    def of_layer(evidence: Evidence) -> Float64: ...


kinds: Kinds[Score] = Kinds("patchmine.scores", needs=("KEPT", "of_layer"))
