"""Verifies that an index is unchanged and agrees with itself, with its photographs, and with its network.

Checksums detect changes since publishing, but anyone who edits an index can edit its checksums too. Therefore rankings
are recomputed from the table, patches.faiss from the vectors, and activations from the photographs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchmine import executors
from patchmine.buckets.copies import bring
from patchmine.defaults import Run
from patchmine.errors import PhotographError, RequestError
from patchmine.executors import Executor, Setting
from patchmine.mining.calibration import Choice
from patchmine.networks.network import Network
from patchmine.networks.session import with_own_settings
from patchmine.networks.taps import survey
from patchmine.photographs.decode import prepare
from patchmine.ranking import CELLS, Float32, Int64, TopK
from patchmine.reading.cropped import kept_crops
from patchmine.reading.opened import OpenIndex
from patchmine.relevance.checking import differences, whole
from patchmine.sparse import blocks
from patchmine.store import patches_faiss
from patchmine.store import reading as store
from patchmine.store.hdf5 import dataset_digests
from patchmine.store.job import Job
from patchmine.system import digests
from patchmine.system.progress import Progress
from patchmine.tight.tightening import measured_again

PHOTOGRAPHS = 10_000
"""Photographs whose bytes are compared with their digests, unless all are requested."""

AGAIN = 32
"""Photographs whose activations are recomputed, unless all are requested."""

TOLERANCE = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1}
"""The largest accepted difference from the recorded value, as a share of the unit's standard deviation. Another batch
size or library version rounds differently."""

CROPS = 32
"""Kept tight crops that are measured again, unless all are requested."""

CROP_TOLERANCE = 1e-2
"""The largest accepted difference in the share that a tight crop retains."""

_BLOCK = 4096


@dataclass(frozen=True)
class Finding:
    """The result of one check: the comparison, the faults (empty if there are none), and what remains unproved."""

    check: str
    compared: str
    wrong: tuple[str, ...] = ()
    unproved: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "ok": not self.wrong,
            "compared": self.compared,
            "wrong": list(self.wrong),
            "not_proved": self.unproved or None,
        }


@with_own_settings
def verify(
    index: OpenIndex[Any],
    *,
    everything: bool = False,
    seed: int = 0,
    run: Run,
    progress: Progress,
) -> Iterator[Finding]:
    """Run every check in turn, the quick ones first.

    With `everything` all photographs are compared and all their activations recomputed; otherwise a sample drawn with
    the seed. A check that lacks its photographs or table says so in its finding. Raises what `OpenIndex.network`
    raises.
    """
    yield _manifest(index)
    yield from _checksums(index)
    yield _ranking(index)
    yield _faiss(index)
    rng = np.random.default_rng(seed)
    drawn = _drawn(len(index), len(index) if everything else PHOTOGRAPHS, rng)
    photographs, intact = _photographs(index, drawn, run, progress)
    yield photographs
    again = drawn if everything else np.sort(rng.permutation(drawn[np.isin(drawn, intact)])[:AGAIN])
    again = again[np.isin(again, intact)]
    yield _activations(index, again, run, progress)
    yield from _relevance(index, again, progress)
    yield from _tight_crops(index, everything, rng, run, progress)


def _drawn(count: int, most: int, rng: np.random.Generator) -> Int64:
    """Up to `most` of `count` ids, drawn at random, ascending."""
    return np.sort(rng.permutation(count)[:most]).astype(np.int64)


def _manifest(index: OpenIndex[Any]) -> Finding:
    written = store.read_manifest(index.directory)
    digest = written.pop("manifest_digest", None)
    wrong = []
    if digest != digests.of_json(written):
        wrong.append(f"{store.MANIFEST} was edited: its digest does not match")
    if Job.from_dict(written["job"]).digest != written["job_digest"]:
        wrong.append("its job does not match the job's digest")
    carried = index.store.carried_manifest()
    for name in sorted(carried.keys() | written.keys()):
        if name in carried and carried[name] != written.get(name):
            wrong.append(f"its {name} differs from the copy in {store.ACTIVATIONS}")
    what = f"{store.MANIFEST} with its digest and with what {store.ACTIVATIONS} carries"
    return Finding("manifest", what, tuple(wrong))


def _checksums(index: OpenIndex[Any]) -> Iterator[Finding]:
    sums = index.manifest.get("checksums")
    if sums is None:
        yield Finding("files", "nothing", (f"{store.MANIFEST} holds no checksums",))
        return
    wrong = []
    for name, digest in sums["files"].items():
        path = index.directory / name
        bring(path)
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif digests.of_file(path) != digest:
            wrong.append(f"{name} is not the file that was published")
    yield Finding("files", " and ".join(sums["files"]), tuple(wrong))
    recorded, found = sums["datasets"], dataset_digests(index.directory / store.ACTIVATIONS)
    names = sorted(recorded.keys() | found.keys())
    wrong = [f"{name} has changed" for name in names if recorded.get(name) != found.get(name)]
    yield Finding("datasets", f"{len(names)} datasets of {store.ACTIVATIONS}", tuple(wrong))


def _ranking(index: OpenIndex[Any]) -> Finding:
    """Compare the kept top of each unit with the table, and the vectors with the top."""
    wrong, stored, units = [], index.store, sum(index.layers.values())
    for layer, channels in index.layers.items():
        kept = stored.top_of_all(layer)
        if stored.has_table:
            top = _ranked(index, layer, channels)
            differ = np.flatnonzero((top.keys != kept.keys).any(1) | (top.positions != kept.positions).any(1))
            wrong += [f"the top of {layer}:{unit} does not follow from the table" for unit in differ[:3]]
            if len(differ) > 3:
                wrong.append(f"nor do the tops of {len(differ) - 3} more units of {layer}")
        _, image, place = stored.vectors(layer)
        filled = kept.filled
        pairs = np.unique(kept.images[filled] * CELLS + kept.positions[filled])
        if not np.array_equal(pairs, image * CELLS + place):
            wrong.append(f"the vectors of {layer} are not those of its top")
    what = f"the top {stored.keep} of {units} units with the table" if stored.has_table else "the vectors with the top"
    open_ = "" if stored.has_table else "the ranking itself: there is no table (--no-table)"
    return Finding("ranking", what, tuple(wrong), open_)


def _ranked(index: OpenIndex[Any], layer: str, channels: int) -> TopK:
    """The top of each unit of a layer, from the table."""
    stored = index.store
    whole = TopK.empty(channels, stored.keep)
    for units in blocks(channels):
        top = TopK.empty(units.stop - units.start, stored.keep)
        for start in range(0, len(index), _BLOCK):
            value, position = (dataset[start : start + _BLOCK, units] for dataset in stored.table_on_disk(layer))
            images = np.arange(start, start + len(value), dtype=np.int64)
            top = top.merge(TopK.of_batch(value, position, images, stored.keep))
        whole.keys[units], whole.positions[units] = top.keys, top.positions
    return whole


def _faiss(index: OpenIndex[Any]) -> Finding:
    what = f"{store.PATCHES} with one built anew from the vectors"
    path = index.directory / store.PATCHES
    bring(path)
    if not path.is_file():
        return Finding("faiss", what, (f"{store.PATCHES} is missing",))
    digest = digests.of_file(path)
    try:
        with tempfile.TemporaryDirectory(prefix="patchmine-") as place:
            patches_faiss.build(index.store, Path(place))
            same = digests.of_file(Path(place) / store.PATCHES) == digest
    except OSError as error:
        return Finding("faiss", what, (), f"{store.PATCHES}: no room to build another ({error.strerror}), see TMPDIR")
    return Finding("faiss", what, () if same else (f"{store.PATCHES} was not built from these vectors: delete it",))


def _photographs(index: OpenIndex[Any], drawn: Int64, run: Run, progress: Progress) -> tuple[Finding, Int64]:
    """Compare the bytes of photographs with their digests. Also returns the unchanged photographs."""

    def reason(image: int) -> str | None:
        try:
            index.photograph(image)
        except PhotographError as error:
            return f"{index.store.image(image).path!r}: {error}"
        finally:
            progress.advance(1)
        return None

    progress.begin(len(drawn), 0, "photographs read")
    with ThreadPoolExecutor(run.workers) as pool:
        reasons = list(pool.map(reason, drawn.tolist()))
    wrong = [text for text in reasons if text is not None]
    left = len(index) - len(drawn)
    finding = Finding(
        "photographs",
        f"the bytes of {len(drawn)} of {len(index)} photographs with their digests",
        tuple(wrong),
        f"the bytes of {left} photographs: --all compares them" if left else "",
    )
    return finding, drawn[[text is None for text in reasons]]


def _activations(index: OpenIndex[Any], images: Int64, run: Run, progress: Progress) -> Finding:
    """Compare values and positions with those recomputed from whole photographs."""
    what = f"activations of {len(images)} of {len(index)} photographs"
    if not len(images):
        return Finding("activations", what, (), "any activation: no photograph is unchanged")
    job, network = index.job, index.network()
    taps = survey(network.module, network.blank(), job.layers)
    executor, name = _executor(job, network, taps, run)
    compared, far, moved, largest = 0, 0, 0, 0.0
    wrong: list[str] = []
    tolerance = TOLERANCE[job.precision]
    # Bounds that nothing exceeds, because no vectors are needed.
    nothing = {
        layer: (np.full(units, np.inf, np.float32), np.zeros(units, np.int64)) for layer, units in index.layers.items()
    }
    progress.begin(len(images), 0, "photographs computed again")
    for ids, pixels in _batches(index, images, job.batch_size):
        for layer, reduced in executor.run(pixels, ids, nothing).items():
            known, value, place = _recorded(index, layer, ids)
            spread = np.maximum(index.stats(layer)["std"], np.finfo(np.float32).tiny)
            compared_here = known & np.isfinite(value)
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite in the index is not compared
                off = np.where(compared_here, np.abs(reduced.value - value) / spread, 0)
            off = np.nan_to_num(off, nan=np.inf)
            compared += int(known.sum())
            largest = max(largest, float(off.max(initial=0)))
            bad = np.argwhere(off > tolerance)
            far += len(bad)
            for row, unit in bad[: max(0, 3 - len(wrong))]:
                wrong.append(
                    f"{layer}:{unit} on {index.store.image(int(ids[row])).path!r} is {reduced.value[row, unit]:.6g}, "
                    f"but the index has {value[row, unit]:.6g}"
                )
            # A position may differ where another is equally high up to rounding; the value has been compared already.
            moved += int((known & (reduced.position != place)).sum())
        progress.advance(len(ids))
    if far > len(wrong):
        wrong.append(f"and {far - len(wrong)} more activations differ from the index")
    exact = (
        f"{compared} {what} computed again by {name}: largest difference {largest:.1e} of the unit's spread, "
        f"{moved} other places"
    )
    if moved > max(10, compared // 1000):
        wrong.append(f"{moved} of {compared} maxima are at other positions than in the index")
    left = len(index) - len(images)
    unproved = f"the activations of {left} photographs: --all computes them" if left else ""
    return Finding("activations", exact, tuple(wrong), unproved)


def _relevance(index: OpenIndex[Any], images: Int64, progress: Progress) -> Iterator[Finding]:
    """Compare relevance with that computed again from whole photographs. Nothing if the index keeps none."""
    found, damage = whole(index)
    if damage is not None:
        yield Finding("relevance", "relevance.h5 with its checksum", (damage,))
    if found is None:
        return
    progress.begin(len(images), 0, "relevance computed again")
    batches = _batches(index, images, found.origin.batch)
    largest, wrong = differences(index, found, _counted(batches, progress))
    asked = f"the relevance in {len(images)} of {len(index)} photographs"
    left = len(index) - len(images)
    unproved = f"the relevance in {left} photographs: --all computes it" if left else ""
    what = f"{asked} computed again: largest difference {largest:.1e} of the layer's largest"
    yield Finding("relevance", what, tuple(wrong[:3]), unproved)


def _counted(batches: Iterable[tuple[Int64, torch.Tensor]], progress: Progress) -> Iterator[tuple[Int64, torch.Tensor]]:
    for ids, pixels in batches:
        yield ids, pixels
        progress.advance(len(ids))


def _tight_crops(
    index: OpenIndex[Any], everything: bool, rng: np.random.Generator, run: Run, progress: Progress
) -> Iterator[Finding]:
    """Measure kept tight crops again: all, or some of the units' best patches. Nothing if the index keeps none."""
    kept, damaged = kept_crops(index)
    if not kept and not damaged:
        return
    seats = sorted(kept)
    drawn = seats if everything else [seats[row] for row in _drawn(len(seats), CROPS, rng).tolist()]
    progress.begin(len(drawn), 0, "tight crops measured again")
    wrong = [f"the tight crops kept for {unit} are damaged: patchmine tighten computes them again" for unit in damaged]
    largest, compared = 0.0, 0
    for seat, again in measured_again(index, {seat: kept[seat] for seat in drawn}, run):
        progress.advance(1)
        if isinstance(again, PhotographError):
            continue  # the check of photographs says so
        crop = kept[seat]
        off = inf if again is None else max(abs(again.retained - crop.retained), abs(again.without - crop.without))
        compared, largest = compared + 1, max(largest, off)
        if off > CROP_TOLERANCE:
            found = "no activation" if again is None else f"{again.retained:.4f}"
            wrong.append(
                f"the tight crop of {seat.unit} on {index.path(seat.image)!r} retains {found}, not {crop.retained:.4f}"
            )
    what = f"{compared} of {len(kept)} kept tight crops measured again: largest difference {largest:.1e}"
    left = len(kept) - len(drawn)
    yield Finding("tight crops", what, tuple(wrong), f"{left} tight crops: --all measures them" if left else "")


def _executor(job: Job, network: Network, taps: Sequence[Any], run: Run) -> tuple[Executor, str]:
    """The job's executor, or torch if it is not available, with its name."""
    choice = Choice(job.executor, job.batch_size, job.threads)
    try:
        setting = Setting(device=job.device, precision=job.precision, batch_size=job.batch_size, threads=job.threads)
        return executors.build(job.executor, network, tuple(taps), setting, choice.lanes(run.workers)), job.executor
    except RequestError:
        setting = Setting(device="cpu", precision="fp32", batch_size=job.batch_size, threads=run.workers)
        return executors.build("torch", network, tuple(taps), setting, 1), f"torch (no {job.executor} here)"


def _batches(index: OpenIndex[Any], images: Int64, size: int) -> Iterator[tuple[Int64, torch.Tensor]]:
    """Batches of photographs with one input size, as the executor takes them."""
    held: dict[tuple[int, ...], list[tuple[int, torch.Tensor]]] = {}
    for image in images.tolist():
        tensor = prepare(index.photograph(image), index.preprocessing).tensor
        batch = held.setdefault(tuple(tensor.shape), [])
        batch.append((image, tensor))
        if len(batch) == size:
            yield _stacked(held.pop(tuple(tensor.shape)))
    yield from map(_stacked, held.values())


def _stacked(batch: Iterable[tuple[int, torch.Tensor]]) -> tuple[Int64, torch.Tensor]:
    ids, tensors = zip(*batch, strict=True)
    return np.array(ids, np.int64), torch.stack(tensors)


def _recorded(index: OpenIndex[Any], layer: str, ids: Int64) -> tuple[Any, Float32, Int64]:
    """The recorded facts about these photographs: whether a value exists (images, units), values, and positions."""
    if index.store.has_table:
        value, place = (dataset[ids.tolist()] for dataset in index.store.table_on_disk(layer))
        return np.ones(value.shape, bool), value, place.astype(np.int64)
    top = index.store.top_of_all(layer)
    shape = (len(ids), index.layers[layer])
    known, value, place = np.zeros(shape, bool), np.zeros(shape, np.float32), np.zeros(shape, np.int64)
    for row, image in enumerate(ids.tolist()):
        unit, rank = np.nonzero(top.filled & (top.images == image))
        known[row, unit] = True
        value[row, unit], place[row, unit] = top.values[unit, rank], top.positions[unit, rank]
    return known, value, place
