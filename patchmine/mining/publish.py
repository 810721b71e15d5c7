"""From finished shards to an index: activations.h5, patches.faiss and the manifest, each whole or not at all.

The files are written to a separate folder and moved into place at the end: activations.h5, then patches.faiss, then the
manifest. activations.h5 carries its own part of the manifest, so a reader sees either the old index or the new one,
even if the process dies between two moves.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from time import perf_counter
from typing import Any

from patchmine.errors import SourceError
from patchmine.labels import of_index
from patchmine.mining.limit import Limit
from patchmine.networks.calls import as_dict
from patchmine.ranking import Float32
from patchmine.sources import Passed
from patchmine.store import patches_faiss, writing
from patchmine.store import reading as store
from patchmine.store.hdf5 import dataset_digests
from patchmine.store.job import Job
from patchmine.store.shardfile import ShardFile
from patchmine.system import digests
from patchmine.system.timing import Stages

MINING = ("read", "decode", "forward", "wait")
"""The stages of the mining threads. Another thread ranks and writes meanwhile."""

_PACKAGES = ("patchmine", "torch", "torchvision", "timm", "numpy", "h5py", "faiss-cpu", "Pillow")


@dataclass(frozen=True)
class Timing:
    """The times of a run, for the manifest, in seconds; `began` and `start` are on the clock of perf_counter.

    `limit` is that of the machine, if it was measured.
    """

    began: float
    start: float
    mining: float
    workers: int
    mined: int
    stages: Stages
    limit: Limit | None = None

    def as_dict(self) -> dict[str, Any]:
        """Seconds by stage so far. The stages of mining are averaged over its threads and add up to `mining`."""
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
            **({"limit": self.limit.as_dict()} if self.limit else {}),
        }


def publish(
    directory: Path,
    job: Job,
    files: Sequence[ShardFile],
    layers: Sequence[writing.LayerPlan],
    measured: Callable[[], Mapping[str, Mapping[str, Float32]]],
    timing: Timing,
    passed: Passed,
) -> dict[str, Any]:
    """Build the index in `directory` from all shards of the job, and return its manifest. Raises OSError.

    `measured` waits for what other threads measure meanwhile: effective fields and norms of tokens, by layer.
    `passed` is what the source holds besides its photographs: only the manifest tells it.
    """
    stages = timing.stages
    for left in (directory / store.SHARDS).glob("publish.*"):
        shutil.rmtree(left, ignore_errors=True)
    making = (
        directory / store.SHARDS / f"publish.{token_hex(4)}"
    )  # a run that was only held up must not write into ours
    making.mkdir()
    activations = making / store.ACTIVATIONS
    with stages.timed("table"):
        counts = writing.write_activations(activations, job.digest, files, layers, job.keep, job.table, timing.workers)
        content = _content(job, layers, counts)
    with ThreadPoolExecutor(timing.workers, "publish") as pool:
        labels = pool.submit(_labels, making, content, stages)
        with stages.timed("faiss"), closing(store.Store(making, content)) as opened:
            plans = patches_faiss.build(opened, making)
            for layer in content["layers"]:
                layer |= {"search": plans[layer["layer"]].report()} if plans[layer["layer"]].lists else {}
        found = labels.result()
        content["labels"] = found.about
        with stages.timed("effective"):
            writing.complete(activations, measured(), found.words, found.layers, content)
        with stages.timed("checksums"):
            datasets = pool.submit(dataset_digests, activations)
            names = (store.ACTIVATIONS, store.PATCHES)
            sums = pool.map(digests.of_file, [making / name for name in names])
            checksums = {"files": dict(zip(names, sums, strict=True)), "datasets": datasets.result()}
    times = timing.as_dict()
    manifest = {
        **content,
        "passed_over": passed.counted(),
        "left_out": passed.named(),
        "checksums": checksums,
        "seconds": times["total"],
        "images_per_second": round(timing.mined / times["total"], 2),
        "stages": times,
    }
    for name in (store.ACTIVATIONS, store.PATCHES):
        (making / name).replace(directory / name)
    writing.write_manifest(directory, manifest)
    return manifest


def _labels(making: Path, content: Mapping[str, Any], stages: Stages) -> of_index.Found:
    with stages.timed("labels"), closing(store.Store(making, content)) as opened:
        return of_index.of_store(opened)


def _content(job: Job, layers: Sequence[writing.LayerPlan], counts: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the manifest that does not depend on when and how fast the index was built."""
    reasons = Counter(entry["reason"].partition(":")[0] for entry in counts["skipped"])
    return {
        "job": job.as_dict(),
        "job_digest": job.digest,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "decoder": job.decoder,
        "images": counts["images"],
        "skipped": dict(reasons.most_common()),
        "skipped_files": counts["skipped"],
        "layers": [
            {
                "layer": plan.layer,
                "units": plan.units,
                "grid": list(plan.grid),
                "saturated": counts["saturated"][plan.layer],
                "non_finite": counts["non_finite"][plan.layer],
                **({} if plan.below is None else {"width": plan.below}),
                **as_dict(plan.call, plan.calls),
            }
            for plan in layers
        ],
    }


def refuse_unreadable(files: Sequence[ShardFile], strict: bool) -> None:
    """Refuse to publish if no photograph could be read, or, with `strict`, if one could not. Raises SourceError."""
    photographs = sum(len(file.readable) for file in files)
    broken = sum(int((~file.readable).sum()) for file in files)
    if not broken or (broken < photographs and not strict):
        return
    first = next(record for file in files for record in file.images if record["reason"] is not None)
    if broken == photographs:
        raise SourceError(
            f"none of the {photographs} photographs could be read; the first, {first['path']!r}: {first['reason']}"
        )
    raise SourceError(
        f"{broken} of {photographs} photographs could not be read, the first {first['path']!r}: {first['reason']}; the "
        "mined shards are kept: run the same command without --strict to publish them"
    )
