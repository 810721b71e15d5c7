"""What a study is asked for, with the defaults. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

BUDGET_S = 300.0
"""Seconds for one unit."""


@dataclass(frozen=True)
class Settings:
    """Everything that can change a result: steps of each ascent, images of each kind, the seed of their noise, and the
    jitter, a share of the canvas's side."""

    steps: int = 64
    seeds: int = 3
    seed: int = 0
    jitter: float = 0.04


__all__ = ["BUDGET_S", "Settings"]
