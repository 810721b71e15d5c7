"""Indexes of one job over different photographs as one index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from patchmine import models
from patchmine.defaults import Run
from patchmine.errors import RequestError, StoreError
from patchmine.mining.build import Report, complete, prepared
from patchmine.mining.reuse import Known, Place
from patchmine.mining.task import Task
from patchmine.mining.workspace import LOG, Workspace
from patchmine.networks.network import survey
from patchmine.sources import Entry, open_source
from patchmine.sources.union import united
from patchmine.store.job import WHICH, Job, listing_digest
from patchmine.store.reading import Store
from patchmine.system.log import logged
from patchmine.system.progress import Progress, Silent
from patchmine.system.timing import Stages

FREE = ("source", *WHICH)
"""In what the jobs of indexes that are merged may differ."""


@dataclass(frozen=True)
class Listed:
    """One photograph of one of the indexes."""

    store: int
    entry: Entry
    digest: str


def merge_indexes(
    indexes: Sequence[str | Path],
    out: str | Path,
    dedupe: bool = False,
    weights: str | Path | None = None,
    run: Run | None = None,
    progress: Progress | None = None,
) -> Report:
    """Make the index `out` that one run over the photographs of all `indexes` would have made, in the order of paths.

    Nothing is mined again; the network is loaded for the effective receptive fields alone, which are measured at the
    strongest hits of all. `out` is killed and resumed as `build_index` is. The same photograph (by its bytes) in two of
    the indexes is an error; with `dedupe` the one whose path comes first stays, and the others are listed as skipped.

    Raises RequestError where there are fewer than two indexes or they share photographs, StoreError where they are of
    different jobs or have no table, and what `build_index` raises.
    """
    stages, began = Stages(), perf_counter()
    run, progress = run or Run(), progress or Silent()
    if len({Path(index).resolve() for index in indexes}) < 2:
        raise RequestError("there is one index alone: name two or more, as in patchmine merge A.patchmine B.patchmine")
    stores = [Store(Path(index)) for index in indexes]
    job = _common_job(stores)
    with stages.timed("list"):
        known = Known(stores)
        listed = sorted(_listed(stores), key=lambda photograph: (photograph.entry.path, photograph.store))
        twice = _twice(listed)
        if twice and not dedupe:
            (one, other), count = next(iter(twice.items())), len(twice)
            raise RequestError(
                f"{one!r} is the same photograph as {other!r}"
                + (f", and so are {count - 1} more" if count > 1 else "")
                + ": --dedupe keeps the first of each"
            )
        for path, original in twice.items():
            if path != original:
                known.places[path] = Place(0, -1, "", f"the same photograph as {original}")
        first = {photograph.entry.path: photograph.store for photograph in reversed(listed)}
        entries = [photograph.entry for photograph in listed if photograph.store == first[photograph.entry.path]]
        source = open_source(united(sorted(store.manifest["job"]["source"] for store in stores)))
    job = replace(
        job,
        source=source.spec,
        photographs=len(entries),
        listing=listing_digest((entry.path, entry.class_name) for entry in entries),
    )
    space = Workspace(Path(out))
    space.refuse_foreign()
    with stages.timed("load"):
        network = models.load(job.model, None if weights is None else Path(weights))
        network = replace(network, preprocessing=job.preprocessing)
        if network.weights != job.weights:
            raise RequestError(f"these are not the weights that the indexes were made with: give those of {job.model}")
        taps = survey(network.module, network.blank(), job.layers)
    task = Task(
        job=job,
        source=source,
        entries=entries,
        folder=space.shards,
        weights=None if weights is None else Path(weights),
        workers=run.workers,
        known=known,
        stages=stages,
    )
    plan = prepared(task, network, taps)
    with space.taken(), logged(space.directory / LOG, progress) as told:
        finished = None if run.fresh else space.finished(job)
        if finished is not None:
            space.end()
            return Report(space.directory, finished, True, 0.0, 0)
        return complete(plan, space, run, told, began)


def _common_job(stores: Sequence[Store]) -> Job:
    jobs = [Job.from_dict(store.manifest["job"]) for store in stores]
    for store, job in zip(stores, jobs, strict=True):
        difference = jobs[0].first_difference(job, FREE)
        if difference:
            name, one, other = difference
            raise StoreError(
                f"{str(stores[0].directory)!r} and {str(store.directory)!r} are of different jobs: their {name} is "
                f"{one!r} and {other!r}; index the photographs of both in the same way"
            )
    return jobs[0]


def _listed(stores: Sequence[Store]) -> list[Listed]:
    found: list[Listed] = []
    for number, store in enumerate(stores):
        found += [Listed(number, Entry(r.path, r.class_name), r.digest) for r in store.records()]
        found += [Listed(number, Entry(s["image"], None), "") for s in store.manifest["skipped_files"]]
    return found


def _twice(listed: Sequence[Listed]) -> dict[str, str]:
    """The path of each photograph that an earlier one, of another index, is the same as: by its bytes, or its path."""
    by_digest: dict[str, Listed] = {}
    by_path: dict[str, Listed] = {}
    twice: dict[str, str] = {}
    for photograph in listed:
        path = photograph.entry.path
        there = by_path.setdefault(path, photograph)
        if there.store != photograph.store:
            if there.digest != photograph.digest:
                raise RequestError(
                    f"two indexes hold different photographs as {path!r}: index a folder above both sources instead"
                )
            twice[path] = path
            continue
        if photograph.digest:
            first = by_digest.setdefault(photograph.digest, photograph)
            if first.store != photograph.store:
                twice[path] = first.entry.path
    return twice
