"""`build_index`: plan the shards, skip the finished ones, run an engine, publish."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch

from patchmine import allocator, engines, executors, models, store, vectors
from patchmine.calibration import WORTH_IT, Choice, candidates, fastest
from patchmine.class_file import classified
from patchmine.decode import decoder_name, prepare
from patchmine.engines import Task, shard_path
from patchmine.errors import PatchmineError, PhotographError, RequestError, SourceError, StoreError, nearest
from patchmine.executors import Setting
from patchmine.executors.torch import default_device
from patchmine.fields import Fields
from patchmine.job import Job
from patchmine.layers import choose
from patchmine.network import Network, Tap, survey
from patchmine.receptive import FieldKind
from patchmine.request import FIELDS, VIEWS, Progress, Run, Silent, Wanted
from patchmine.shardfile import ShardFile, write_atomically
from patchmine.sources import Entry, Source, open_source
from patchmine.stages import Stages

SAMPLE = 32
"""Photographs that calibration computes."""

MINING = ("read", "decode", "forward", "wait")
"""The stages of the threads that mine; what is ranked and written meanwhile is done by another."""


@dataclass(frozen=True)
class Report:
    """What a run of `build_index` comes to."""

    directory: Path
    manifest: dict[str, Any]
    resumed: bool
    seconds: float
    mined: int

    @property
    def images(self) -> int:
        return int(self.manifest["images"])

    @property
    def images_per_second(self) -> float:
        """Over the photographs that this run mined; 0 where there was nothing left to mine."""
        return self.mined / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of `patchmine index`."""
        return {
            "index": str(self.directory),
            "images": self.images,
            "skipped": len(self.manifest["skipped_files"]),
            "skipped_files": self.manifest["skipped_files"],
            "layers": [
                {"layer": layer["layer"], "units": layer["units"], "grid": layer["grid"]}
                for layer in self.manifest["layers"]
            ],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
            "resumed": self.resumed,
        }


def build_index(
    source: str | Path,
    out: str | Path | None = None,
    wanted: Wanted | None = None,
    run: Run | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Index the photographs of `source` in the directory `out`, or go on with an index that is not finished.

    `options` are fields of `Wanted`, for calls such as build_index("photos", model="timm:resnet18", keep=50). `out`
    defaults to SOURCE-NAME.patchmine in the working directory. Whatever is finished when the call is interrupted
    is kept, and the same call goes on from there; the result does not depend on interruptions.

    Raises a PatchmineError before anything is written where source, network or layers are not to be had, where
    `out` holds another job, and, with `run.strict`, after mining where a photograph could not be read.
    """
    wanted = replace(wanted or Wanted(), **options)
    run = run or Run()
    progress = progress or Silent()
    stages = Stages()
    began = perf_counter()
    with stages.timed("list"):
        opened = open_source(str(source))
        directory = Path(out) if out is not None else Path(f"{opened.name}.patchmine")
        _check(wanted, run)
        _refuse_foreign(directory)
        entries = opened.entries()
        if wanted.labels is not None:
            entries = classified(entries, wanted.labels)
        entries = entries[: wanted.limit]
    with stages.timed("load"):
        network = models.load(wanted.model, wanted.weights)
        network = replace(network, preprocessing=replace(network.preprocessing, view=wanted.view))
        taps = survey(network.module, network.blank(), choose(network, wanted.layers))
    there = None if run.fresh else _there(directory)
    wanted = _as_before(wanted, there)
    device = wanted.device or default_device()
    with stages.timed("calibrate"):
        choice = _choice(wanted, run, there, network, taps, device, opened, entries, progress)
    job = _job(wanted, choice, device, opened, entries, network, taps)

    finished = None if run.fresh else _finished(directory, job)
    if finished is not None:
        shutil.rmtree(directory / store.SHARDS, ignore_errors=True)
        return Report(directory, finished, True, 0.0, 0)
    with stages.timed("fields"):
        fields = Fields(network, taps, cast(FieldKind, job.field))
        fields.check()
    with stages.timed("build"):
        setting = Setting(job.device, job.precision, job.batch_size, job.threads)
        executor = executors.build(job.executor, network, taps, setting, choice.lanes(run.workers))
    if job.precision != "fp32":
        progress.note(f"{job.precision} changes answers: bf16 kept 96 % of the top 25 in a measurement (README)")
    shards = _workspace(directory, job, run.fresh)
    done = _verified(shards, job, progress)
    todo = [shard for shard in job.shards if shard.number not in done]
    resumed = bool(done)

    start = perf_counter()
    progress.begin(job.photographs, sum(len(file.about["images"]) for file in done.values()))
    finished_files = list(done.values())
    task = Task(
        job,
        taps,
        executor,
        opened,
        entries,
        shards,
        finished_files,
        run.workers,
        progress.advance,
        progress.note,
        stages,
    )
    engines.kinds()[run.engine].mine(task, todo)
    mining = perf_counter() - start
    files = [ShardFile.open(shard_path(shards, shard.number)) for shard in job.shards]
    _refuse_unreadable(files, run.strict)
    progress.note("publishing")
    with stages.timed("effective"):
        layers = fields.plans(job, files, opened, entries, run.workers)
    del task, network, executor, fields
    allocator.give_back()
    mined = sum(shard.stop - shard.start for shard in todo)
    timing = Timing(began, start, mining, run.workers, mined, stages)
    manifest = _publish(directory, job, files, layers, timing)
    shutil.rmtree(shards, ignore_errors=True)
    return Report(directory, manifest, resumed, perf_counter() - began, mined)


@dataclass(frozen=True)
class Timing:
    """When what was done, for the manifest. Seconds, `began` and `start` on the clock of perf_counter."""

    began: float
    start: float
    mining: float
    workers: int
    mined: int
    stages: Stages

    def as_dict(self) -> dict[str, Any]:
        """Seconds by stage up to now. Those of mining are an average over its threads, and add up to `mining`."""
        seconds = self.stages.seconds
        rounded = {name: round(value, 3) for name, value in seconds.items() if name not in MINING}
        threads = {name: round(seconds[name] / self.workers, 3) for name in MINING}
        return {
            "total": round(perf_counter() - self.began, 3),
            "start": round(self.start - self.began, 3),
            "mining": round(self.mining, 3),
            "publish": round(perf_counter() - self.start - self.mining, 3),
            "of_mining": threads,
            "others": rounded,
        }


def _there(directory: Path) -> Job | None:
    """The job of what is in the directory, finished or not, as far as it can be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return Job.from_dict(json.loads((directory / store.SHARDS / store.JOB).read_bytes()))
    with suppress(OSError, ValueError, KeyError, TypeError, PatchmineError):
        return Job.from_dict(store.read_manifest(directory)["job"])
    return None


def _as_before(wanted: Wanted, there: Job | None) -> Wanted:
    """What is left open, as it was chosen when the job began: rounding may depend on it."""
    if there is None:
        return wanted
    return replace(
        wanted,
        executor=wanted.executor or there.executor,
        batch_size=wanted.batch_size or there.batch_size,
        threads=wanted.threads or there.threads,
    )


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
    """Executor, batch size and threads: as wanted, else by trying where the job is long enough, else by rule."""
    choices = candidates(network, wanted, device, run.workers)
    if len(entries) < WORTH_IT:
        # torch is ready at once; converting a network takes seconds, which a short job does not win back.
        return next((choice for choice in choices if choice.executor == "torch"), choices[0])
    if len(choices) == 1 or there is not None or not run.calibrate:
        return choices[0]
    sample = _sample(network, source, entries)
    if sample is None:
        return choices[0]
    return fastest(network, taps, choices, wanted, device, run.workers, sample, progress.note)


def _sample(network: Network, source: Source, entries: Sequence[Entry]) -> torch.Tensor | None:
    """Up to SAMPLE readable photographs of one input size, spread over the source: uint8 (N, 3, height, width)."""
    found: list[torch.Tensor] = []
    for place in np.linspace(0, len(entries) - 1, min(len(entries), SAMPLE)).round().astype(int):
        with suppress(PhotographError):
            pixels = prepare(source.read(entries[place].path), network.preprocessing).tensor
            if not found or pixels.shape == found[0].shape:
                found.append(pixels)
    return torch.stack(found) if found else None


def _check(wanted: Wanted, run: Run) -> None:
    known = engines.kinds()
    if run.engine not in known:
        raise RequestError(f"there is no engine {run.engine!r}{nearest(run.engine, known)}")
    if wanted.executor is not None:
        executors.kind(wanted.executor)
    for option, word, words in (("--field", wanted.field, FIELDS), ("--view", wanted.view, VIEWS)):
        if word not in words:
            raise RequestError(f"there is no {option} {word!r}{nearest(word, words)}")
    counts = {
        "--keep": wanted.keep,
        "--limit": wanted.limit,
        "--shard-size": wanted.shard_size,
        "--batch-size": wanted.batch_size,
        "--threads": wanted.threads,
        "--workers": run.workers,
    }
    for option, count in counts.items():
        if count is not None and count < 1:
            raise RequestError(f"{option} {count} is too few: give 1 or more")


def _refuse_foreign(directory: Path) -> None:
    """Never write into a folder that patchmine did not make."""
    if directory.exists() and not directory.is_dir():
        raise StoreError(f"{str(directory)!r} is a file, and the index is a folder: choose another with -o DIR")
    if directory.is_dir():
        ours = {store.MANIFEST, store.ACTIVATIONS, store.SHARDS}
        names = {entry.name for entry in directory.iterdir()}
        if names and not names & ours:
            raise StoreError(f"{str(directory)!r} holds other files and is no index: choose another folder with -o DIR")


def _job(
    wanted: Wanted,
    choice: Choice,
    device: str,
    source: Source,
    entries: Sequence[Entry],
    network: Network,
    taps: Sequence[Tap],
) -> Job:
    listing = hashlib.blake2b(digest_size=16)
    for entry in entries:
        listing.update(f"{entry.path}\0{entry.class_name}\n".encode("utf-8", "surrogateescape"))
    return Job(
        source=source.spec,
        photographs=len(entries),
        listing=listing.hexdigest(),
        model=wanted.model,
        weights=network.weights,
        layers=tuple(tap.layer for tap in taps),
        preprocessing=network.preprocessing,
        decoder=decoder_name(),
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
    )


def _finished(directory: Path, job: Job) -> dict[str, Any] | None:
    """The manifest, if the directory holds this job already finished. Raises StoreError if it holds another."""
    if not (directory / store.MANIFEST).exists():
        return None
    manifest = store.read_manifest(directory)
    _refuse_other(directory, Job.from_dict(manifest["job"]), job)
    return manifest


def _refuse_other(directory: Path, there: Job, job: Job) -> None:
    difference = there.first_difference(job)
    if difference:
        name, old, new = difference
        raise StoreError(
            f"{str(directory)!r} holds another job: its {name} is {_brief(old)}, and now it is {_brief(new)}; "
            "choose another folder with -o DIR, or start over with --fresh"
        )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _workspace(directory: Path, job: Job, fresh: bool) -> Path:
    """The folder for shards, made for this job. Raises StoreError if it is there for another."""
    shards = directory / store.SHARDS
    if fresh:
        shutil.rmtree(shards, ignore_errors=True)
    described = shards / store.JOB
    try:
        there = Job.from_dict(json.loads(described.read_bytes()))
    except FileNotFoundError:
        there = None
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{described} is damaged or of another version; start over with --fresh") from None
    if there is not None:
        _refuse_other(directory, there, job)
        return shards
    try:
        shards.mkdir(parents=True, exist_ok=True)
        write_atomically(described, [json.dumps(job.as_dict(), indent=1).encode() + b"\n"])
    except OSError as error:
        raise StoreError(
            f"{str(directory)!r} cannot be written: {error.strerror}; choose another with -o DIR"
        ) from None
    return shards


def _verified(shards: Path, job: Job, progress: Progress) -> dict[int, ShardFile]:
    """The finished shards by number; a damaged one is removed, to be computed again."""
    done = {}
    for shard in job.shards:
        path = shard_path(shards, shard.number)
        try:
            file = ShardFile.open(path)
        except FileNotFoundError:
            continue
        except StoreError as error:
            progress.note(f"{error}; it is computed again")
            path.unlink()
            continue
        if file.about["job"] == job.digest:
            done[shard.number] = file
    return done


def _refuse_unreadable(files: Sequence[ShardFile], strict: bool) -> None:
    records = [record for file in files for record in file.about["images"]]
    broken = [record for record in records if record["reason"] is not None]
    if len(broken) == len(records):
        raise SourceError(
            f"not one of the {len(records)} photographs could be read; the first, {broken[0]['path']!r}: "
            f"{broken[0]['reason']}"
        )
    if strict and broken:
        raise SourceError(
            f"{len(broken)} of {len(records)} photographs could not be read, the first {broken[0]['path']!r}: "
            f"{broken[0]['reason']}; what is mined is kept: the same command without --strict publishes it"
        )


def _publish(
    directory: Path,
    job: Job,
    files: Sequence[ShardFile],
    layers: Sequence[store.LayerPlan],
    timing: Timing,
) -> dict[str, Any]:
    """activations.h5, then patches.faiss, then the manifest, which makes it an index."""
    counts = store.write_activations(directory / store.ACTIVATIONS, job.digest, files, layers, job.keep, job.table)
    manifest: dict[str, Any] = {
        "job": job.as_dict(),
        "job_digest": job.digest,
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("patchmine", "torch", "torchvision", "timm", "numpy", "h5py", "faiss-cpu", "Pillow")
        },
        "decoder": job.decoder,
        "images": counts["images"],
        "skipped_files": counts["skipped"],
        "layers": [
            {
                "layer": plan.layer,
                "units": plan.units,
                "grid": list(plan.grid),
                "saturated": counts["saturated"][plan.layer],
                "non_finite": counts["non_finite"][plan.layer],
            }
            for plan in layers
        ],
    }
    vectors.build(store.Store(directory, manifest))
    times = timing.as_dict()
    manifest |= {
        "seconds": times["total"],
        "images_per_second": round(timing.mined / times["total"], 2),
        "stages": times,
    }
    store.write_manifest(directory, manifest)
    return manifest


def kept(directory: Path) -> str:
    """What an interrupted run has left, for the message that says how to go on."""
    with suppress(OSError, ValueError, KeyError, TypeError, PatchmineError):
        job = Job.from_dict(json.loads((directory / store.SHARDS / store.JOB).read_bytes()))
        done = sum(shard_path(directory / store.SHARDS, shard.number).exists() for shard in job.shards)
        return f"{done} of {len(job.shards)} shards are kept in {directory}; the same command goes on from there"
    return "nothing had been computed yet"
