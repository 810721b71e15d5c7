"""What an engine is given: a job with everything resolved, and where its shards belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchmine.executors import Executor
from patchmine.mining.predictions import Predictor
from patchmine.mining.reuse import Known
from patchmine.networks.network import Tap
from patchmine.sources import Entry, Source
from patchmine.store.job import Job
from patchmine.store.shardfile import ShardFile
from patchmine.system.progress import Progress
from patchmine.system.timing import Stages


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
