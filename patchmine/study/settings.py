"""The settings of a study, with their defaults. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

BUDGET_S = 300.0
"""The time budget for one unit, in seconds."""


@dataclass(frozen=True)
class Settings:
    """The settings that can change a result: steps of each ascent, images of each kind, the seed of their noise, and
    the jitter as a share of the canvas's side."""

    steps: int = 64
    seeds: int = 3
    seed: int = 0
    jitter: float = 0.04


__all__ = ["BUDGET_S", "Settings"]
