"""The settings of commands and their defaults. Standard library only, so that `--help` is instant."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

MODEL = "efficientnet_lite0"
K = 25
PICKS = ("top", "bottom", "random", "quantile:Q", "spectrum", "facets")
CROPS = ("rf", "erf", "image", "tight", "auto")
FIELDS = ("local", "full")
VIEWS = ("crop", "pad", "whole")
"""What of a photograph the network sees: the middle, as it was trained; all of it, with padding around; or all of it in
its own size."""
PROJECTIONS = ("deconv", "guided", "gradxinput", "ig", "occlusion")
PROJECTION = "guided"
"""On a sheet that needs one: unlike a deconvnet's, it shows the photograph in a network without max pooling too."""
LAYOUTS = ("strip", "zeiler", "context")
SHARE = 0.95
"""The share of the gradient's energy that the box of an effective receptive field holds."""
TIGHT_SHARE = 0.8
"""The share of the activation that a tight crop alone brings back."""
TIGHT_K = 9
"""The best patches of each unit that get tight crops overnight, and that `units` judges a unit's tight crops by."""
DIFFUSE = 0.5
"""A patch is diffuse if its tight crop covers more than this share of the input."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to index; with the source and the network it becomes the job."""

    model: str = MODEL
    weights: Path | None = None
    layers: tuple[str, ...] = ()
    labels: Path | None = None
    keep: int = 100
    limit: int | None = None
    shard_size: int = 128
    batch_size: int | None = None
    device: str | None = None
    precision: str = "fp32"
    executor: str | None = None
    threads: int | None = None
    """Threads of one batch. A short calibration finds what is None here, or a rule if it is not worth the time."""
    table: bool = True
    field: str = FIELDS[0]
    """Whether a receptive field includes the inputs of gates: `local` holds gates constant, `full` does not."""
    view: str = VIEWS[0]


@dataclass(frozen=True, kw_only=True)
class Run:
    """How to compute it; no field can change a byte of the result."""

    engine: str = "local"
    workers: int = field(
        default_factory=lambda: (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )
    )
    """The number of threads, each of which decodes and computes."""
    calibrate: bool = True
    fresh: bool = False
    extend: bool = False
    """Whether to update a finished index with photographs that were added or removed."""
    strict: bool = False
