"""`build_index`: plan the job, skip the finished shards, run an engine, publish."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, cast

from patchmine import engines, executors, models, readouts
from patchmine.buckets.copies import named, naming
from patchmine.defaults import Run, Wanted, check
from patchmine.fields.exact import FieldKind
from patchmine.labels.class_hints import hints
from patchmine.labels.label_file import classified
from patchmine.labels.names_file import name_units
from patchmine.mining.calibration import WORTH_IT, Choice, candidates, fastest, sample
from patchmine.mining.fields import Fields
from patchmine.mining.limit import measured
from patchmine.mining.predictions import predicts
from patchmine.mining.publish import Timing, publish, refuse_unreadable
from patchmine.mining.reuse import of_finished
from patchmine.mining.task import Task, tools
from patchmine.mining.workspace import LOG, Workspace
from patchmine.networks.directions import given
from patchmine.networks.layers import choose, indexable
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.networks.taps import Tap, survey
from patchmine.networks.virtual import carried
from patchmine.photographs.decode import decoder_name
from patchmine.relevance import building as relevance
from patchmine.sources import Entry, Listed, Passed, Source, listed, open_source
from patchmine.store.job import Job, listing_digest
from patchmine.store.shardfile import ShardFile, shard_path
from patchmine.system import allocator
from patchmine.system.log import logged
from patchmine.system.progress import Progress, Silent
from patchmine.system.timing import Stages


@dataclass(frozen=True)
class Report:
    """The result of a run of `build_index`: the index, what this run did, and what it found in the source."""

    directory: Path
    manifest: dict[str, Any]
    resumed: bool
    seconds: float
    mined: int
    listed: Listed

    @property
    def name(self) -> str:
        """The path of the index, or its URL."""
        return named(str(self.directory))

    @property
    def images(self) -> int:
        return int(self.manifest["images"])

    @property
    def images_per_second(self) -> float:
        """The rate of this run; 0 if there was nothing left to mine."""
        return self.mined / self.seconds if self.seconds else 0.0

    @property
    def entries(self) -> list[Entry]:
        """The photographs that could be read, with their classes."""
        skipped = {file["image"] for file in self.manifest["skipped_files"]}
        return [entry for entry in self.listed.entries if entry.path not in skipped]

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of `patchmine index`."""
        return {
            "index": self.name,
            "images": self.images,
            "skipped": len(self.manifest["skipped_files"]),
            "skipped_files": self.manifest["skipped_files"],
            "layers": [
                {name: layer[name] for name in ("layer", "units", "grid", "search") if name in layer}
                for layer in self.manifest["layers"]
            ],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
            "resumed": self.resumed,
            "classes": len({entry.class_name for entry in self.entries} - {None}),
            "passed_over": self.listed.passed.counted(),
            "left_out": self.listed.passed.named(),
            "notes": list(self.listed.notes),
        }


@naming()
@with_own_settings
def build_index(
    source: str | Path,
    out: str | Path | None = None,
    wanted: Wanted | None = None,
    run: Run | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Index the photographs of `source` in the directory `out`, or resume an index that is not finished.

    `options` are fields of `Wanted`, for calls such as build_index("photos", model="timm:resnet18", keep=50). `out`
    may be a URL in a bucket, and defaults to SOURCE-NAME.patchmine in the working directory. An interrupted call keeps
    its finished shards, and the same call resumes from them; the result does not depend on interruptions.

    Raises a PatchmineError before writing anything if source, network or layers are not available or `out` holds
    another job. With `run.strict`, it also raises one after mining if a photograph could not be read.
    """
    wanted, run, progress = replace(wanted or Wanted(), **options), run or Run(), progress or Silent()
    stages, began = Stages(), perf_counter()
    with stages.timed("list"):
        opened = open_source(str(source))
        _check(wanted, run)
        space = Workspace.at(out if out is not None else f"{opened.name}.patchmine")
        space.refuse(engines.shared(run.engine))
        found = _listed(opened, wanted)
        space.take_over(run.fresh, run.extend)
    with engines.started(run):
        return _built(opened, found, space, wanted, run, progress, stages, began)


def _built(
    opened: Source,
    found: Listed,
    space: Workspace,
    wanted: Wanted,
    run: Run,
    progress: Progress,
    stages: Stages,
    began: float,
) -> Report:
    """Build or resume the index, once all that needs no network has been checked."""
    with stages.timed("load"):
        network, taps, names = _loaded(wanted)
        relevance.check(network, run, found.entries)
    there = None if run.fresh else space.job()
    settle = partial(_settled, wanted, run, network, taps, opened, found.entries, progress)
    with stages.timed("calibrate"):
        job = settle(there)
    finished = None if run.fresh else space.finished(job, run.extend)
    if finished is None and engines.shared(run.engine):
        # Runs that begin together may each have calibrated; the settings of the first count for all.
        job = settle(space.joined(job))
        finished = space.finished(job, run.extend)
    known = None
    if run.extend and not run.fresh:
        with stages.timed("compare"):
            predicted, done = predicts(network, found.entries), finished is not None
            known = of_finished(space.directory, opened, found.entries, predicted, done, run.workers, progress)
    if finished is not None and not space.shards.exists():
        return Report(space.directory, finished, True, 0.0, 0, found)
    task = Task(
        job=job,
        source=opened,
        entries=found.entries,
        folder=space.shards,
        model=models.absolute(wanted.model),
        address=run.address,
        weights=wanted.weights and wanted.weights.absolute(),
        workers=run.workers,
        known=known,
        stages=stages,
    )
    plan = prepared(task, network, taps, run)
    report = carried_out(plan, space, run, progress, began, found)
    name_units(space.directory, names)
    space.deliver()
    return report


def _loaded(wanted: Wanted) -> tuple[Network, tuple[Tap, ...], dict[str, tuple[str, ...]]]:
    """The network with the view and the directions of the job, the taps on its layers, and names of directions."""
    network = models.load(wanted.model, wanted.weights)
    network = replace(network, preprocessing=replace(network.preprocessing, view=wanted.view))
    network, names = given(network, wanted.directions, wanted.threshold)
    return network, survey(network.module, network.blank(), indexable(choose(network, wanted.layers))), names


def _listed(source: Source, wanted: Wanted) -> Listed:
    """The photographs to index, with their classes, and what to say about what else is there."""
    found = listed(source)
    if wanted.labels is not None:
        found = replace(found, entries=classified(found.entries, wanted.labels))
    return Listed(found.entries[: wanted.limit], found.passed, tuple(hints(source, found)))


@dataclass(frozen=True)
class Plan:
    """A task with the receptive fields of its layers."""

    task: Task
    fields: Fields


def prepared(task: Task, network: Network, taps: tuple[Tap, ...], run: Run) -> Plan:
    """Compute the fields, and build the executor if it is needed in this process.

    Raises a PatchmineError if the job cannot be computed here.
    """
    with task.stages.timed("fields"):
        fields = Fields(network, taps, cast(FieldKind, task.job.field))
        fields.check()
    if engines.elsewhere(run.engine) and not run.profile:
        return Plan(task, fields)
    with task.stages.timed("build"):
        return Plan(replace(task, here=tools(task.job, network, taps, task.source, task.entries, task.workers)), fields)


def carried_out(plan: Plan, space: Workspace, run: Run, progress: Progress, began: float, found: Listed) -> Report:
    """Lock the workspace, compute the missing shards and publish. `began` is on perf_counter.

    With an engine that lets several runs build one index, nothing is locked.
    """
    shared = engines.shared(run.engine)
    with nullcontext(True) if shared else space.taken() as locked, logged(space.directory / LOG, progress) as receiver:
        if not locked:
            receiver.note(f"the file system of {str(space.directory)!r} has no locks: start no second run into it")
        if shared:
            space.joined(plan.task.job)  # before the next line: later, nobody tidies up what is begun here
        # Another process may have finished the job by now, or died after publishing and before tidying up.
        finished = None if run.fresh else space.finished(plan.task.job, run.extend)
        if finished is not None:
            space.end()
            return Report(space.directory, finished, True, 0.0, 0, found)
        for note in found.notes:
            receiver.note(note)
        try:
            return _complete(plan, space, run, receiver, began, found)
        except OSError as error:
            finished = space.finished(plan.task.job, run.extend) if shared else None
            if finished is None:
                raise space.unwritable(error) from error
            return Report(space.directory, finished, True, 0.0, 0, found)  # tidied up by the run that published


def _complete(plan: Plan, space: Workspace, run: Run, progress: Progress, began: float, found: Listed) -> Report:
    """Compute the missing shards and publish. The workspace must be taken. Raises OSError."""
    task, job = plan.task, plan.task.job
    if job.precision != "fp32":
        kept = "96%" if job.precision == "bf16" else "99%"
        progress.note(f"{job.precision} changes results: {kept} of the top 25 stayed the same (see the docs)")
    limit = None
    if run.profile and task.here is not None:
        progress.note("measuring the limit of this machine")
        with task.stages.timed("limit"):
            limit = measured(task.here, job, task.source, task.entries, run.workers)
    start = perf_counter()
    if not engines.shared(run.engine):
        space.begin(job, run.fresh)
    readouts.keep(space.directory, list(carried(plan.fields.network.module).values()))
    done = space.verified(job, progress.note)
    todo = [shard for shard in job.shards if shard.number not in done]
    progress.begin(job.photographs, sum(len(file.readable) for file in done.values()))
    progress.committed(len(done), len(job.shards))
    engine = engines.kinds.get(run.engine, "--engine")
    numbers = [shard.number for shard in todo]
    work = replace(task, finished=list(done.values()))
    mining = space.delivered(done, engine.mine(work, numbers, progress))
    for count, _ in enumerate(mining, len(done) + 1):
        progress.committed(count, len(job.shards))
    mined = sum(shard.stop - shard.start for shard in todo)
    timing = Timing(began, start, perf_counter() - start, run.workers, mined, task.stages, limit)
    with engines.publishing(run.engine, space.shards):
        manifest = space.finished(job, run.extend) if engines.shared(run.engine) else None
        if manifest is None:
            space.refuse_missing(job)
            manifest = _published(plan, space, run, progress, timing, found.passed)
        space.end()
    readouts.forget(space.directory, [digest for _, digest in job.directions])
    count = manifest["images"]
    progress.note(f"finished: {count} photograph{'s' * (count != 1)}, {len(manifest['skipped_files'])} skipped")
    return Report(space.directory, manifest, bool(done), perf_counter() - began, mined, found)


def _published(
    plan: Plan, space: Workspace, run: Run, progress: Progress, timing: Timing, passed: Passed
) -> dict[str, Any]:
    """Publish the index made from all shards, and return its manifest."""
    task, job = plan.task, plan.task.job
    progress.note("publishing")
    with task.stages.timed("verify"), ThreadPoolExecutor(run.workers, "verify") as pool:
        files = list(pool.map(ShardFile.open, [shard_path(space.shards, shard.number) for shard in job.shards]))
    refuse_unreadable(files, run.strict)
    allocator.give_back()
    layers = plan.fields.plans(files)
    with plan.fields.measuring(job, files, layers, task.source, task.entries, run.workers) as measured:
        return publish(space.directory, job, files, layers, measured, timing, passed)


def _as_before(wanted: Wanted, there: Job | None) -> Wanted:
    """Take the settings that the user leaves open from the first run, because rounding may depend on them."""
    if there is None:
        return wanted
    return replace(
        wanted,
        executor=wanted.executor or there.executor,
        batch_size=wanted.batch_size or there.batch_size,
        threads=wanted.threads or there.threads,
    )


def _settled(
    wanted: Wanted,
    run: Run,
    network: Network,
    taps: tuple[Tap, ...],
    source: Source,
    entries: Sequence[Entry],
    progress: Progress,
    there: Job | None,
) -> Job:
    """The job, with the settings that the user leaves open from the first run `there`, else from calibration."""
    wanted = _as_before(wanted, there)
    device = wanted.device or executors.kind(wanted.executor or executors.DEFAULT).default_device()
    choice = _choice(wanted, run, there, network, taps, device, source, entries, progress)
    return _job(wanted, choice, device, source, entries, network, taps, there)


def _choice(
    wanted: Wanted,
    run: Run,
    there: Job | None,
    network: Network,
    taps: tuple[Tap, ...],
    device: str,
    source: Source,
    entries: Sequence[Entry],
    progress: Progress,
) -> Choice:
    """Executor, batch size and threads: from the user, else from calibration for a long job, else the defaults."""
    choices = candidates(network, wanted, device, run.workers)
    if len(entries) < WORTH_IT:
        # Converting a network takes seconds, which does not pay off in a short job.
        return next((choice for choice in choices if executors.kind(choice.executor).READY), choices[0])
    if len(choices) == 1 or there is not None or not run.calibrate:
        return choices[0]
    photographs = sample(network, source, entries)
    if photographs is None:
        return choices[0]
    return fastest(network, taps, choices, wanted, device, run.workers, photographs, progress.note)


def _check(wanted: Wanted, run: Run) -> None:
    engines.check(run)
    if wanted.executor is not None:
        executors.kind(wanted.executor)
    check({**vars(wanted), **vars(run)})


def _job(
    wanted: Wanted,
    choice: Choice,
    device: str,
    source: Source,
    entries: Sequence[Entry],
    network: Network,
    taps: Sequence[Tap],
    there: Job | None,
) -> Job:
    return Job(
        source=source.spec,
        photographs=len(entries),
        listing=listing_digest((entry.path, entry.class_name) for entry in entries),
        model=wanted.model,
        weights=network.weights,
        layers=tuple(tap.layer for tap in taps),
        preprocessing=network.preprocessing,
        decoder=decoder_name(entry.path for entry in entries),
        executor=choice.executor,
        runtime=executors.kind(choice.executor).version(),
        device=device,
        precision=wanted.precision,
        batch_size=choice.batch_size,
        threads=choice.threads,
        shard_size=wanted.shard_size,
        keep=wanted.keep,
        table=wanted.table,
        field=wanted.field,
        # An index made before jobs had this field stays resumable.
        code=network.code if there is None or there.code is not None else None,
        position_embedding=network.position_embedding,
        directions=tuple((layer, readout.digest) for layer, readout in carried(network.module).items()),
    )
