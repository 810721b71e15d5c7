"""Where shards are computed. A module in this folder is a kind: it has `HELP` and `mine(task, todo)`.

`mine` computes the shards in `todo`, in any order and anywhere, and leaves each as a file in `task.shards`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from patchmine.executors import Executor
from patchmine.job import Job
from patchmine.known import Known
from patchmine.network import Tap
from patchmine.predicting import Predictor
from patchmine.request import Progress
from patchmine.shardfile import ShardFile
from patchmine.sources import Entry, Source
from patchmine.stages import Stages


@dataclass(frozen=True)
class Task:
    """What an engine is given: the job with everything already resolved, and where the shards belong."""

    job: Job
    taps: tuple[Tap, ...]
    executor: Executor
    source: Source
    entries: Sequence[Entry]
    shards: Path
    finished: Sequence[ShardFile]
    workers: int
    progress: Progress
    stages: Stages
    known: Known | None = None
    """What need not be computed again."""
    predictor: Predictor | None = None
    """What classifies the photographs, where nobody else does; the executor taps its output too."""


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.shard"


def kinds() -> dict[str, ModuleType]:
    """Every kind in this folder, by the name of its file."""
    return {found.name: import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)}
