"""The settings of commands and their defaults. Standard library only, so that `--help` is instant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from patchmine.errors import RequestError, nearest

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
LAYOUTS = ("strip", "zeiler", "context", "grid", "spectrum", "facets", "queries", "compare", "orders", "layer")
SHARES = ("tight", "diffuse", "outlier_tokens", "positional")
"""What a summary says of a unit's best patches, as shares from 0 to 1."""
SORTS = ("hits", "lift", "r", "auroc", "max", "mean", "positive", "tied", *SHARES, "name", "label")
"""What of a unit's summary units are sorted by."""
BY = ("activation", "relevance")
"""What ranks the photographs of a unit."""
SCORES = ("sum", "max", "sum-normed", "max-normed")
"""Relevance of a unit in a photograph: over the positions, and as a share of the layer's."""
CLASSES_OF = ("predicted", "label")
RULES = ("plus", "gradient")
FRAMES = ("class", "sign")
MOST_DPI = 2400
VENUES = {
    "neurips": ("5.5in", 7.0, 9.0),
    "iclr": ("5.5in", 7.0, 9.0),
    "icml": ("3.25in", 6.0, 8.0),
    "icml2": ("6.75in", 6.0, 8.0),
    "cvpr": ("3.25in", 7.0, 9.0),
    "cvpr2": ("6.875in", 7.0, 9.0),
    "eccv": ("4.8in", 7.0, 9.0),
    "aaai": ("3.3in", 7.0, 9.0),
    "aaai2": ("6.975in", 7.0, 9.0),
    "tmlr": ("6.5in", 7.0, 9.0),
    "nature": ("89mm", 6.0, 7.0),
    "nature2": ("183mm", 6.0, 7.0),
    "slides": ("398.3pt", 8.0, 11.0),
}
"""Width of a column (or, with a 2, of both), and the sizes of small text and of headings in points.

The widths and sizes of conferences are those of tueplots (figsizes.py, fontsizes.py: legends three points below the
text, titles one), Nature's those of its guide (5 to 7 points)."""
TALLEST = {"nature": "170mm", "nature2": "170mm"}
"""The height that a venue allows, where its guide names one."""
HOST, PORT = "127.0.0.1", 8000
"""Where `patchmine serve` listens."""
PRECISIONS = ("fp32", "bf16", "fp16")
POOLS = ("max", "mean")
"""How the positions of a photograph become one number."""
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
    directions: tuple[str, ...] = ()
    """Each `LAYER@NAME=FILE`."""
    threshold: float | None = None
    """For a file of directions that needs one and does not hold it."""
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
    address: str | None = None
    """The Ray cluster of the engine `ray`; None for that of the environment, or this machine."""
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
    class_of: str | None = None
    """The class that relevance will begin at, so that labels which the network lacks are refused before any work."""
    classes: Path | None = None
    """A text with the name of each output of the network on a line, to find its labels by."""
    profile: bool = False
    """Whether to measure the limit of this machine before the work."""


_WORDS: Mapping[str, tuple[str, ...]] = {
    "pick": PICKS,
    "crop": CROPS,
    "field": FIELDS,
    "view": VIEWS,
    "project": PROJECTIONS,
    "attribution": PROJECTIONS,
    "layout": LAYOUTS,
    "frame": FRAMES,
    "by": BY,
    "score": SCORES,
    "class_of": CLASSES_OF,
    "rule": ("auto", *RULES),
    "precision": PRECISIONS,
    "pool": POOLS,
}
_COUNTS = {
    *("k", "keep", "limit", "shard_size", "batch_size", "threads", "workers", "units", "images", "seeds", "columns"),
    *("groups", "dpi"),
}
_DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "xla", "mtia")


def check(settings: Mapping[str, Any]) -> None:
    """Refuse what a setting cannot be, before anything heavy is imported. `settings` are options by parameter name.

    Raises RequestError for an unknown word, a number out of range, and an option whose extra is not installed.
    """
    for name, value in settings.items():
        option = "-k" if name == "k" else f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if name in _WORDS and value not in _WORDS[name] and not (name == "pick" and value.startswith("quantile:")):
            raise RequestError(f"unknown {option} {value!r}{nearest(value, _WORDS[name])}")
        if name in _COUNTS and value < 1:
            raise RequestError(f"{option} must be at least 1, not {value:g}")
        if name == "dpi" and value > MOST_DPI:
            raise RequestError(f"{option} must be at most {MOST_DPI}, not {value}")
        if name == "share" and not 0 < value <= 1:
            raise RequestError(f"{option} must be above 0 and at most 1, not {value:g}")
        if name == "seed" and value < 0:
            raise RequestError(f"{option} must be at least 0, not {value}")
        if name == "device" and value.partition(":")[0] not in _DEVICES:
            raise RequestError(f"unknown {option} {value!r}: give cpu, or cuda for a GPU of NVIDIA or AMD")
        if name in ("weights", "labels", "classes") and not Path(value).exists():
            raise RequestError(f"{name} file {str(value)!r} not found")
        if name in ("project", "attribution") and find_spec("captum") is None:
            raise RequestError(f"{option} needs captum: pip install 'patchmine[attribution]'")
