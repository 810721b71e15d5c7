"""Computes shards in every process that runs the same command on a folder that all of them see.

Each process claims one shard after another and computes it. Nobody hands out work, so processes may come and go. The
one that claims the publishing, once all shards are there, publishes; the others wait for it and report the same index.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchmine.defaults import Run
from patchmine.engines import Task
from patchmine.engines._claims import Claims
from patchmine.errors import RequestError
from patchmine.system.progress import Progress

HELP = "claims: in each process that runs the same command on one shared folder"

POLL_S = 0.5
PUBLISHING = "publish"


def check(run: Run) -> None:
    if run.fresh:
        raise RequestError(
            "--fresh and --engine claims exclude each other, because each process would delete the shards of the "
            "others: remove the index first, then start them without --fresh"
        )


def mine(task: Task, todo: Sequence[int], progress: Progress) -> Iterator[int]:
    """Compute what nobody else has claimed, until every shard of `todo` is on disk or the index is published."""
    claims = Claims(_folder(task.folder))
    claims.prepare([PUBLISHING, *map(_piece, todo)])
    known, left = claims.known(), set(todo)
    for number in left - task.on_disk():  # after `known`: a shard is written before its claim is removed
        if _piece(number) not in known:  # its file was damaged, and removed
            claims.add(_piece(number))
    # Processes start at different places, so that they seldom want the same shard, and read on from there.
    start = random.randrange(len(todo)) if todo else 0
    order = [*todo[start:], *todo[:start]]
    with claims.kept():
        while left and task.folder.exists():
            for number in task.work(_claimed(claims, order, task), progress):
                claims.done(_piece(number))
                left.discard(number)
                yield number
                yield from _of_others(task, left, progress)
            yield from _of_others(task, left, progress)
            if left:
                time.sleep(POLL_S)


@contextmanager
def publishing(folder: Path) -> Iterator[bool]:
    """Wait for the turn of this process to publish from the folder of shards; False once another has done so."""
    claims = Claims(_folder(folder))
    with claims.kept():
        while (taken := claims.take([PUBLISHING])) is None and folder.exists():
            time.sleep(POLL_S)
        yield taken is not None


def _claimed(claims: Claims, order: Sequence[int], task: Task) -> Iterator[int]:
    """Claim one shard after another, until none is free. Each is claimed when the photographs before it are read."""
    left = {_piece(number): number for number in order}
    while (piece := claims.take(left)) is not None:
        number = left.pop(piece)
        if number in task.on_disk():  # a run without claims has computed it, or one that died before it could say so
            claims.done(piece)
        else:
            yield number


def _of_others(task: Task, left: set[int], progress: Progress) -> Iterator[int]:
    """The shards that others have finished meanwhile."""
    for number in sorted(left & task.on_disk()):
        left.discard(number)
        progress.advance(task.photographs(number))
        yield number


def _folder(shards: Path) -> Path:
    return shards / "claims"


def _piece(number: int) -> str:
    return f"{number:06d}"
