"""Shards one after the other, in this process."""

from __future__ import annotations

from collections.abc import Sequence

from patchmine import executors
from patchmine.engines import Task, shard_path
from patchmine.executors import Setting
from patchmine.job import Shard
from patchmine.ranking import TopK
from patchmine.shardfile import ShardFile, write_shard
from patchmine.shards import ShardMiner

HELP = "local: in this process"


def mine(task: Task, todo: Sequence[Shard]) -> None:
    job = task.job
    setting = Setting(job.device, job.precision, job.batch_size)
    executor = executors.build(job.executor, task.network, task.taps, setting)
    miner = ShardMiner(job, task.taps, task.source, task.entries, executor, task.workers)
    try:
        for finished in task.finished:
            _remember(miner, finished)
        for shard in todo:
            about, arrays = miner.mine(shard, task.progress)
            write_shard(shard_path(task.shards, shard.number), about, arrays)
    finally:
        miner.close()


def _remember(miner: ShardMiner, finished: ShardFile) -> None:
    """Raise the bounds by what an earlier run has found."""
    images = finished.source_ids(miner.job.shard_size)
    for number, tap in enumerate(miner.taps):
        values, positions = finished.array(f"{number}/value"), finished.array(f"{number}/position")
        miner.remember(tap.layer, TopK.of_batch(values, positions, images, miner.job.keep))
