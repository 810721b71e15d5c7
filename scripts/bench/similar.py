"""Nearest patches: what the approximate index finds of what a search of everything finds, and how long both take.

    python -m scripts.bench.similar [--vectors 50000 1000000] [--channels 320] [--clusters 2000] [--queries 200]

Writes, for each number of vectors, an index of one layer into a temporary folder (a million vectors of 320 channels
take 0.7 GB in activations.h5 and as much again in patches.faiss). Its vectors are drawn: centers from a normal
distribution, and around each the vectors, in one of 64 subspaces of 32 dimensions and a little in all, with ReLU on
top, as activations have it. Queries are drawn in the same way and are not among them. Prints the time to build
patches.faiss, its size, the recall that it states, and against the exact ten nearest of each query (float32): the
recall of the approximate and of the exact search, and their median times, the first question apart.
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.store import neighbors, patches_faiss
from patchmine.store.hdf5 import Datasets
from patchmine.store.reading import ACTIVATIONS, PATCHES, Store
from scripts.bench.measuring import command_line, seconds_of

LAYER = "layer"
BLOCK = 8192


class Drawn:
    """Clustered vectors, drawn block by block."""

    def __init__(self, channels: int, clusters: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.centers = rng.standard_normal((clusters, channels), np.float32)
        self.around = rng.standard_normal((64, 32, channels), np.float32) / 32**0.5

    def draw(self, count: int) -> NDArray[np.float32]:
        cluster = self.rng.integers(0, len(self.centers), count)
        near = self.rng.standard_normal((count, 32), np.float32)
        found = self.centers[cluster]
        for subspace in range(64):
            here = cluster % 64 == subspace
            found[here] += 0.75 * near[here] @ self.around[subspace]
        found += 0.1 * self.rng.standard_normal(found.shape, np.float32)
        return np.maximum(found, 0)


class DrawnStore(Store):
    """A store with the vectors of one layer alone, and all that `vectors` asks for."""

    def __init__(self, directory: Path, count: int, channels: int) -> None:
        self.directory = directory
        self.manifest = {"job_digest": "drawn", "layers": [{"layer": LAYER, "units": channels, "grid": [1, 1]}]}
        self._datasets = Datasets(directory / ACTIVATIONS)
        self.count = count

    def vectors(self, layer: str) -> tuple[Any, Any, Any]:
        shape = (self.count, self.channels[layer])
        rows = np.arange(self.count)
        return self._datasets.data("layers", layer, "vectors", dtypes=["f2"], shape=shape), rows, rows


def write(directory: Path, drawn: Drawn, count: int, channels: int) -> None:
    import h5py

    with h5py.File(directory / ACTIVATIONS, "w", libver="v110") as h5:
        chunk = (min(count, max(1, (1 << 18) // (2 * channels))), channels)
        dataset = h5.create_dataset(f"layers/{LAYER}/vectors", (count, channels), np.float16, chunks=chunk)
        for start in range(0, count, BLOCK):
            dataset[start : start + BLOCK] = drawn.draw(min(BLOCK, count - start))


def truth(store: DrawnStore, queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """The ten nearest of each query, in float32, by no means of FAISS."""
    normal = patches_faiss.normalized(queries)
    best = np.full((len(queries), patches_faiss.AT), -2, np.float32)
    rows = np.zeros((len(queries), patches_faiss.AT), np.int64)
    stored = store.vectors(LAYER)[0]
    for start in range(0, store.count, BLOCK):
        block = patches_faiss.normalized(stored[start : start + BLOCK].astype(np.float32))
        both = np.concatenate([best, normal @ block.T], axis=1)
        number = np.concatenate([rows, np.broadcast_to(start + np.arange(len(block)), (len(queries), len(block)))], 1)
        chosen = np.argsort(-both, axis=1, kind="stable")[:, : patches_faiss.AT]
        best, rows = np.take_along_axis(both, chosen, 1), np.take_along_axis(number, chosen, 1)
    return rows


def measure(store: DrawnStore, queries: NDArray[np.float32], exact: int, right: NDArray[np.int64]) -> None:
    kind = "exact" if exact >= store.count else "approximate"
    built = seconds_of(lambda: patches_faiss.build(store, store.directory, exact))
    began = perf_counter()
    nearby = neighbors.Neighbors(store, lambda text: print("note:", text), exact)
    opened = perf_counter() - began
    plan = nearby.plan(LAYER)
    assert plan is not None
    found, times = [], []
    for query in queries:
        began = perf_counter()
        found.append(nearby.nearest(LAYER, query, patches_faiss.AT)[0])
        times.append(perf_counter() - began)
    hits = [len(np.intersect1d(one, other)) for one, other in zip(found, right, strict=True)]
    recall = np.mean(hits) / patches_faiss.AT
    size = (store.directory / PATCHES).stat().st_size
    print(
        f"{store.count:9,} {kind:11} {plan.factory:16} {plan.parts or 2 * plan.channels:4} bytes each  "
        f"probes {plan.probes:4} depth {plan.depth:4} states {plan.recall:.3f}  "
        f"recall@{patches_faiss.AT} {recall:.4f}  query {1000 * median(times):7.1f} ms (first {1000 * times[0]:.1f})  "
        f"open {opened:.2f} s  build {built:.1f} s  {size / 1e6:.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--vectors", type=int, nargs="+", default=[50_000, 1_000_000])
    parser.add_argument("--channels", type=int, default=320)
    parser.add_argument("--clusters", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    for count in options.vectors:
        with tempfile.TemporaryDirectory() as name:
            drawn = Drawn(options.channels, options.clusters, np.random.default_rng(0))
            write(Path(name), drawn, count, options.channels)
            store = DrawnStore(Path(name), count, options.channels)
            queries = drawn.draw(options.queries)
            right = truth(store, queries)
            for exact in (0, count):
                measure(store, queries, exact, right)
            store.close()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
