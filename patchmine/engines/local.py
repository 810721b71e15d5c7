"""Shards one after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence

from patchmine.mining.miner import ShardMiner
from patchmine.mining.task import Task
from patchmine.store.job import Shard
from patchmine.store.shardfile import ShardFile, shard_path, write_shard

HELP = "local: in this process"


def mine(task: Task, todo: Sequence[Shard]) -> None:
    miner = ShardMiner(
        task.job,
        task.taps,
        task.source,
        task.entries,
        task.executor,
        task.workers,
        task.progress,
        task.stages,
        task.known,
        task.predictor,
    )
    committed = len(task.finished)
    try:
        for finished in task.finished:
            _remember(miner, finished)
        for about, arrays in miner.mine(todo):
            with task.stages.timed("write"):
                write_shard(shard_path(task.shards, about["shard"]), about, arrays)
            committed += 1
            task.progress.committed(committed, len(task.job.shards))
    finally:
        miner.close()


def _remember(miner: ShardMiner, finished: ShardFile) -> None:
    """Raise the bounds by what an earlier run has found."""
    images = finished.source_ids(miner.job.shard_size)
    for number, tap in enumerate(miner.taps):
        miner.remember(tap.layer, finished.array(f"{number}/value"), images)
