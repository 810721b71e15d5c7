"""The directory of an index in the making: the job it belongs to, the shards that are finished, and its lock."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from patchmine import readouts
from patchmine.buckets.copy import Copy
from patchmine.errors import PatchmineError, StoreError
from patchmine.kept import scores, tight_crops
from patchmine.kept.in_bucket import copy_of
from patchmine.store import reading as store
from patchmine.store.job import WHICH, Job
from patchmine.store.shardfile import ShardFile, shard_numbers, shard_path
from patchmine.system.atomic import unwritable, write_atomically
from patchmine.system.parallel import in_order
from patchmine.system.regular_files import NO_LOCKS, is_there, withheld

LOG, LOCK = "index.log", "index.lock"
_PROOF = {store.MANIFEST, store.ACTIVATIONS, store.SHARDS}
_OURS = _PROOF | {
    store.PATCHES,
    store.NAMES,
    store.SYNTHETIC,
    tight_crops.FOLDER,
    readouts.FOLDER,
    scores.FILE,
    LOG,
    LOCK,
}


_JOB = f"{store.SHARDS}/{store.JOB}"
_DELIVERING, _DELIVERIES = 2, 4  # shards on their way to a bucket, and shards that mining may be ahead of it


@dataclass(frozen=True)
class Workspace:
    """An index in the making, or a finished one that a run was given. Creating this object writes nothing.

    An index in a bucket is made in its `copy` on this machine. Each finished shard is delivered at once, so that
    another machine can resume from the bucket, and at the end each file of the index, the manifest last.
    """

    directory: Path
    copy: Copy | None = None

    @classmethod
    def at(cls, path: str | Path) -> Workspace:
        """The workspace of the index at this path, or at this URL of a bucket."""
        copy = copy_of(path)
        return cls(Path(path)) if copy is None else cls(copy.directory, copy)

    @property
    def shards(self) -> Path:
        return self.directory / store.SHARDS

    def refuse(self, shared: bool = False) -> None:
        """Refuse, before any work, a folder that patchmine did not create or cannot write. Raises StoreError.

        `shared` says that several runs are to build the index together.
        """
        if self.copy is not None:
            self._refuse_bucket(self.copy, shared)
            return
        why = unwritable(self.directory)
        if why is not None and not is_there(self.directory / store.MANIFEST):
            raise StoreError(f"{str(self.directory)!r} cannot be written: {why}; choose another folder with -o DIR")
        shown = repr(str(self.directory))
        if not self.directory.exists():
            return
        if not self.directory.is_dir():
            raise StoreError(f"{shown} is a file, but an index is a folder: choose a folder with -o DIR")
        _refuse_others({entry.name for entry in self.directory.iterdir()}, shown)

    def _refuse_bucket(self, copy: Copy, shared: bool) -> None:
        if shared:
            raise StoreError(
                f"several runs cannot build {copy.url!r} together, because a bucket cannot rename a claim: give a "
                "folder that all of them see with -o DIR, or start one run with --engine ray"
            )
        _refuse_others({path.partition("/")[0] for path in copy.ask()}, repr(copy.url))

    def take_over(self, fresh: bool, extend: bool) -> None:
        """Fetch from the bucket what the run continues: shards, and with `extend` the whole index. Raises StoreError.

        Shards on this machine count only if they belong to the job of those in the bucket.
        """
        if self.copy is None:
            return
        with self.taken():
            self.copy.refresh((store.MANIFEST, store.NAMES))
            if store.MANIFEST in self.copy.changed():
                (self.directory / store.MANIFEST).unlink()  # of files that were not all delivered: they are made again
            if extend:
                self.copy.bring_all()
            described = self.directory / _JOB
            there = None if fresh or _JOB not in self.copy.listing else self.copy.read(_JOB)
            if described.exists() and described.read_bytes() != there:
                shutil.rmtree(self.shards)
            if not fresh:
                self.copy.fetch(path for path in self.copy.listing if path.startswith(f"{store.SHARDS}/"))

    def unfinished(self) -> Job | None:
        """The job of the unfinished shards; None without any. Raises StoreError if its description is damaged."""
        described = self.shards / store.JOB
        try:
            return Job.from_dict(json.loads(described.read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise withheld(described, error) or error from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StoreError(f"{described} is damaged or from another version: start over with --fresh") from None

    def job(self) -> Job | None:
        """The job of the unfinished shards, else of the finished index; None if neither can be read."""
        with suppress(OSError, ValueError, KeyError, TypeError, PatchmineError):
            return self.unfinished() or Job.from_dict(store.read_manifest(self.directory)["job"])
        return None

    def finished(self, job: Job, extend: bool = False) -> dict[str, Any] | None:
        """The manifest, if this job is finished. Raises StoreError if the directory holds another job, finished or not.

        With `extend` a finished index may hold other photographs of the same source.
        """
        unfinished = self.unfinished()
        if unfinished is not None:
            self._refuse_other(unfinished, job)
        if not (self.directory / store.MANIFEST).exists():
            return None
        manifest = store.read_manifest(self.directory)
        there = Job.from_dict(manifest["job"])
        if unfinished is None:
            self._refuse_other(there, job, WHICH if extend else ())
        return manifest if there.digest == job.digest else None

    def _refuse_other(self, there: Job, job: Job, but: Collection[str] = ()) -> None:
        difference = there.first_difference(job, but)
        if difference:
            name, old, new = difference
            grown = there.first_difference(job, WHICH) is None
            verb = "are" if name.endswith("s") else "is"
            raise StoreError(
                f"{str(self.directory)!r} holds another job: its {name} {verb} {_brief(old)}, not {_brief(new)}; "
                + ("update it with --extend, " if grown else "")
                + "choose another folder with -o DIR, or start over with --fresh"
            )

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Create the directory and hold its lock. The kernel releases the lock when the process ends in any way.

        Yields False on a file system without locks, where nothing keeps a second run out. Raises StoreError if another
        process holds the lock, or if the directory cannot be written.
        """
        from filelock import FileLock, Timeout

        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            # The soft lock would outlive a killed process and stop the next run.
            lock = FileLock(self.directory / LOCK, blocking=False, fallback_to_soft=False)
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"another process is writing to {str(self.directory)!r} ({LOG} names it): "
                "wait for it, or choose another folder with -o DIR"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise self.unwritable(error) from None
        try:
            yield lock.is_locked
        finally:
            lock.release()
            # The file stays, because another process may just have opened it.

    def unwritable(self, error: OSError) -> StoreError:
        """The error for an index that cannot be written."""
        why = error.strerror or str(error).splitlines()[0]
        return StoreError(
            f"{str(self.directory)!r} cannot be written: {why}; {self.kept() or 'choose another folder with -o DIR'}"
        )

    def begin(self, job: Job, fresh: bool) -> None:
        """Make room for the shards of the job, and remove the half-written files of a killed run."""
        if fresh:
            shutil.rmtree(self.shards, ignore_errors=True)
        self.shards.mkdir(exist_ok=True)
        for left in (*self.directory.glob(".*.tmp"), *self.shards.glob(".*.tmp")):
            left.unlink(missing_ok=True)
        self._describe(job)
        if self.copy is not None:
            if fresh:
                self.copy.remove(store.SHARDS, _JOB)
            if _JOB not in self.copy.listing:
                self.copy.put(_JOB)  # also finds out, before the work, whether the bucket can be written

    def joined(self, job: Job) -> Job:
        """The job of the run that first began this index, which is `job` if it is this one. Removes nothing.

        Raises StoreError if the directory cannot be written.
        """
        try:
            self.shards.mkdir(parents=True, exist_ok=True)
            self._describe(job)
        except OSError as error:
            raise self.unwritable(error) from error
        return self.unfinished() or job

    def _describe(self, job: Job) -> None:
        """Write the job of the shards, unless it is there."""
        described = self.shards / store.JOB
        if not described.exists():
            write_atomically(described, [json.dumps(job.as_dict(), indent=1).encode() + b"\n"], replace=False)

    def verified(self, job: Job, note: Callable[[str], None]) -> dict[int, ShardFile]:
        """The finished shards by number; a damaged one, or one of another job, is removed and will be recomputed."""
        done = {}
        for shard in job.shards:
            path = shard_path(self.shards, shard.number)
            try:
                file = ShardFile.open(path)
            except FileNotFoundError:
                continue
            except StoreError as error:
                note(f"{error}; recomputing it")
                path.unlink()
                continue
            if file.about["job"] == job.digest:
                done[shard.number] = file
            else:
                path.unlink()
        return done

    def refuse_missing(self, job: Job) -> None:
        """Count the shards against the plan before they are published. Raises StoreError that names the missing."""
        missing = sorted({shard.number for shard in job.shards} - shard_numbers(self.shards))
        if missing:
            shown = ", ".join(map(str, missing[:6])) + (", ..." if len(missing) > 6 else "")
            raise StoreError(
                f"{len(missing)} of the {len(job.shards)} shards of {str(self.directory)!r} are missing ({shown}): "
                "run the same command again to compute them"
            )

    def delivered(self, done: Iterable[int], mined: Iterator[int]) -> Iterator[int]:
        """Yield the numbers of mined shards, once their files, and those of `done`, are where the index is to be.

        Raises StoreError if the bucket cannot be written.
        """
        copy = self.copy
        if copy is None:
            yield from mined
            return

        before = list(done)

        def put(number: int) -> int:
            path = f"{store.SHARDS}/{shard_path(self.shards, number).name}"
            if number not in before or path not in copy.listing:
                copy.put(path)
            return number

        pool = ThreadPoolExecutor(_DELIVERING, "deliver")
        try:
            for count, number in enumerate(in_order(pool, put, chain(before, mined), _DELIVERIES)):
                if count >= len(before):
                    yield number
        finally:
            pool.shutdown(cancel_futures=True)

    def deliver(self) -> None:
        """Put what was written into an index in a bucket, besides shards, into the bucket. Raises StoreError."""
        if self.copy is not None:
            self.copy.deliver(own=True)

    def end(self) -> None:
        """Deliver a published index, and remove its shards. Raises StoreError if the bucket cannot be written."""
        self.deliver()
        shutil.rmtree(self.shards, ignore_errors=True)
        if self.copy is not None:
            self.copy.remove(store.SHARDS, _JOB)

    def kept(self) -> str:
        """How many shards an interrupted run has finished, and how to resume it; empty without any."""
        with suppress(OSError, PatchmineError):
            job = self.unfinished()
            if job is not None:
                done = sum(shard_path(self.shards, shard.number).exists() for shard in job.shards)
                return (
                    f"{done} of {len(job.shards)} shards are kept in {self.directory}; "
                    "run the same command (without --fresh) to resume"
                )
        return ""


def _refuse_others(names: set[str], shown: str) -> None:
    """Refuse a folder with these names in it that holds something else than an index."""
    if not names <= _OURS and not names & _PROOF:
        raise StoreError(f"{shown} holds other files and is not an index: choose another folder with -o DIR")


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
