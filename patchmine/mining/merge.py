"""Merges indexes that were built with the same options from different photographs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from patchmine import models
from patchmine.buckets.copies import naming
from patchmine.defaults import Run
from patchmine.errors import RequestError, StoreError, UnreadableError
from patchmine.kept import embedded
from patchmine.kept.in_bucket import here
from patchmine.kept.tight_crops import TightCrops, network_key
from patchmine.mining.build import Report, carried_out, prepared
from patchmine.mining.reuse import Known, Place
from patchmine.mining.task import Task
from patchmine.mining.workspace import Workspace
from patchmine.networks.directions import of_index
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.networks.taps import Tap, survey
from patchmine.relevance import joining
from patchmine.sources import Entry, Listed, Passed, open_source
from patchmine.sources.union import united
from patchmine.store.job import WHICH, Job, listing_digest
from patchmine.store.reading import Store
from patchmine.system.progress import Progress, Silent
from patchmine.system.timing import Stages

FREE = ("source", *WHICH)
"""The fields in which the jobs of merged indexes may differ."""


@dataclass(frozen=True)
class Held:
    """One photograph of one of the indexes."""

    store: int
    entry: Entry
    digest: str


@naming()
@with_own_settings
def merge_indexes(
    indexes: Sequence[str | Path],
    out: str | Path,
    dedupe: bool = False,
    weights: str | Path | None = None,
    run: Run | None = None,
    progress: Progress | None = None,
    model: str | None = None,
) -> Report:
    """Merge `indexes` into `out`, the index that one run over all their photographs would build, in order of path.

    Nothing is mined again. The network is loaded only to measure the effective receptive fields at the strongest hits
    of the merged index; `model` names it if it is a Python file. A killed merge resumes like `build_index`. The same
    photograph (by its bytes) in two indexes is an error; with `dedupe` the one whose path comes first stays, and the
    others are listed as skipped.

    Raises RequestError for fewer than two indexes and for shared photographs, StoreError for indexes of different jobs
    or without a table, and the errors of `build_index`.
    """
    stages, began = Stages(), perf_counter()
    run, progress = replace(run or Run(), extend=False), progress or Silent()
    if len({os.path.realpath(index) for index in indexes}) < 2:
        raise RequestError("merge needs at least two indexes, as in patchmine merge A.patchmine B.patchmine")
    stores = [Store(here(index, everything=True)) for index in indexes]
    job = _common_job(stores)
    space = Workspace.at(out)
    space.refuse()
    space.take_over(run.fresh, False)
    file = None if weights is None else Path(weights)
    with stages.timed("list"):
        known, entries = _united(stores, dedupe)
        source = open_source(united(sorted(store.manifest["job"]["source"] for store in stores)))
    listing = listing_digest((entry.path, entry.class_name) for entry in entries)
    job = replace(job, source=source.spec, photographs=len(entries), listing=listing)
    with stages.timed("load"):
        network, taps = _network(job, model, file, stores[0].directory)
    task = Task(
        job=job,
        source=source,
        entries=entries,
        folder=space.shards,
        model=models.absolute(model or job.model),
        weights=file and file.absolute(),
        workers=run.workers,
        known=known,
        stages=stages,
    )
    plan = prepared(task, network, taps, run)
    report = carried_out(plan, space, run, progress, began, Listed(entries, _passed(stores)))
    _take_over_kept(space.directory, network_key(job), [store.directory for store in stores], progress)
    space.deliver()
    return report


def _take_over_kept(directory: Path, key: str, others: Sequence[Path], progress: Progress) -> None:
    """Take over what indexes of the same network keep besides activations, and say what could not be."""
    try:
        TightCrops(directory, key).join([TightCrops(other, key) for other in others])
        embedded.join(directory, others)
        reason = joining.join(directory, key, others)
        if reason is not None:
            progress.note(f"the relevance of the indexes was not taken over: {reason}; add it with index --relevance")
    except (OSError, UnreadableError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        progress.note(f"what the indexes keep besides activations was not all taken over: {reason}")


def _passed(stores: Sequence[Store]) -> Passed:
    """What the sources of all indexes held besides their photographs."""
    passed = Passed()
    for store in stores:
        passed.others.update(store.manifest.get("passed_over", {}))
        passed.left_out |= {place["path"]: place["reason"] for place in store.manifest.get("left_out", [])}
    return passed


def _common_job(stores: Sequence[Store]) -> Job:
    jobs = [Job.from_dict(store.manifest["job"]) for store in stores]
    for store, job in zip(stores, jobs, strict=True):
        difference = jobs[0].first_difference(job, FREE)
        if difference:
            name, one, other = difference
            raise StoreError(
                f"{str(stores[0].directory)!r} and {str(store.directory)!r} cannot be merged: {name} is {one!r} in the "
                f"first and {other!r} in the second; build both with the same options"
            )
    return jobs[0]


def _united(stores: Sequence[Store], dedupe: bool) -> tuple[Known, list[Entry]]:
    """The rows of all stores, and the photographs of the merged index, each path once, in order.

    With `dedupe`, a photograph that repeats an earlier one is marked as skipped; without, it raises RequestError.
    """
    known = Known(stores)
    listed = sorted(_listed(stores), key=lambda photograph: (photograph.entry.path, photograph.store))
    twice = _twice(listed)
    if twice and not dedupe:
        (one, other), count = next(iter(twice.items())), len(twice)
        raise RequestError(
            f"{one!r} is the same photograph as {other!r}"
            + (f", and {count - 1} more are duplicates" if count > 1 else "")
            + "; keep only the first of each with --dedupe"
        )
    for path, original in twice.items():
        if path != original:
            known.places[path] = Place(0, -1, "", f"the same photograph as {original}")
    first = {photograph.entry.path: photograph.store for photograph in reversed(listed)}
    return known, [photograph.entry for photograph in listed if photograph.store == first[photograph.entry.path]]


def _network(job: Job, model: str | None, weights: Path | None, index: Path) -> tuple[Network, tuple[Tap, ...]]:
    """The network of the job and its taps. Raises what `models.load_for_index` and `of_index` raise."""
    network = of_index(models.load_for_index(job, model, weights), job.directions, index)
    return network, survey(network.module, network.blank(), job.layers)


def _listed(stores: Sequence[Store]) -> list[Held]:
    found: list[Held] = []
    for number, store in enumerate(stores):
        found += [Held(number, Entry(r.path, r.class_name), r.digest) for r in store.records()]
        found += [Held(number, Entry(s["image"], None), "") for s in store.manifest["skipped_files"]]
    return found


def _twice(listed: Sequence[Held]) -> dict[str, str]:
    """The photographs that repeat one of another index, by bytes or by path, with the path of the first."""
    by_digest: dict[str, Held] = {}
    by_path: dict[str, Held] = {}
    twice: dict[str, str] = {}
    for photograph in listed:
        path = photograph.entry.path
        there = by_path.setdefault(path, photograph)
        if there.store != photograph.store:
            if there.digest != photograph.digest:
                raise RequestError(
                    f"two indexes hold different photographs at the path {path!r}: index a folder above both instead"
                )
            twice[path] = path
            continue
        if photograph.digest:
            first = by_digest.setdefault(photograph.digest, photograph)
            if first.store != photograph.store:
                twice[path] = first.entry.path
    return twice
