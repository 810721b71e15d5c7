"""The file patches.faiss: all vectors of an index, in lists that FAISS can search. Only this file imports faiss.

Vectors are compared by cosine similarity. A layer of up to EXACT vectors is searched exhaustively. A larger one gets
the inverted lists of FAISS's factory: each vector lies in the list of its nearest center. A query searches the `probes`
lists whose centers are nearest to it, as many as it takes to reach a recall of RECALL against an exhaustive search.

`patches.faiss` is one line of JSON, followed by plain arrays for each layer, in the order of the network. The array
sizes follow from the JSON: `centres` float32 (lists, channels), `starts` uint64 (lists + 1), `rows` uint32 (vectors) of
the store, list by list, and in the same order `codes` float16 (vectors, channels), of length 1. A layer that is
searched exhaustively has only codes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import log2, sqrt
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32, Int64
from patchmine.store.reading import PATCHES, Store
from patchmine.system import digests

EXACT = 250_000
"""The largest number of vectors of a layer for which all vectors are compared."""

AT, RECALL = 10, 0.99
"""An approximate index finds this share of the AT nearest neighbors, measured while it is built. RECALL exceeds the
promised 0.95 because the queries behind the measurement are only a sample, taken from the vectors that made the
centers."""

QUERIES = 256
SEED = 0
_ROUNDS, _PER_LIST = 10, 64  # rounds of k-means, and vectors per list that it sees
_SAMPLE_BYTES = 256 << 20
_BLOCK, _PART = 8192, 128  # vectors in memory, and vectors in the processor's cache

MOST_LISTS = 1 << 20
"""The largest number of lists of a layer."""

Codes = NDArray[np.float16]


@dataclass(frozen=True)
class Plan:
    """How one layer is searched, as stored in the header. `factory` is FAISS's factory string.

    `digest` is the digest of the store's vectors, as in the manifest's checksums. A plan without lists searches all
    vectors and has a `recall` of 1.
    """

    factory: str
    vectors: int
    channels: int
    digest: str
    lists: int = 0
    probes: int = 0
    recall: float = 1.0

    @property
    def sizes(self) -> dict[str, int]:
        """The size in bytes of each array of the layer, in file order."""
        listed = {
            "centres": 4 * self.lists * self.channels,
            "starts": 8 * (self.lists + 1),
            "rows": 4 * self.vectors,
        }
        return {**(listed if self.lists else {}), "codes": 2 * self.vectors * self.channels}


def build(store: Store, folder: Path, exact: int = EXACT) -> None:
    """Write patches.faiss into the folder, whole or not at all, with one block of vectors in memory at a time.

    The same vectors give the same bytes. Raises OSError.
    """
    target = folder / PATCHES
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    body = target.with_name(f".{target.name}.{os.getpid()}.body.tmp")
    plans: dict[str, dict[str, Any]] = {}
    made: list[Path] = []
    try:
        # "x": an untrusted folder may hold a link of that name, which must not be followed.
        with body.open("xb+") as file:
            made.append(body)
            for layer in store.channels:
                vectors = len(store.vectors(layer)[0])
                write = _write_whole if vectors <= exact else _write_lists
                plans[layer] = vars(write(file, store, layer))
                file.seek(0, os.SEEK_END)
        header = json.dumps({"job": store.manifest["job_digest"], "layers": plans}).encode() + b"\n"
        with temporary.open("xb") as file, body.open("rb") as source:
            made.append(temporary)
            file.write(header)
            while block := source.read(1 << 22):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def _write_whole(file: BinaryIO, store: Store, layer: str) -> Plan:
    digest = _Digest(store, layer)
    for _, codes in blocks(store, layer, digest):
        file.write(codes.data)
    return Plan("SQfp16", len(store.vectors(layer)[0]), store.widths[layer], digest.value)


def _write_lists(file: BinaryIO, store: Store, layer: str) -> Plan:
    """Pass over the vectors three times: to sample them, to assign each to a list, and to write each in its place."""
    import faiss

    vectors, channels = len(store.vectors(layer)[0]), store.widths[layer]
    lists = min(2 ** round(log2(2 * sqrt(vectors))), vectors)
    factory = f"IVF{lists},SQfp16"
    rng = np.random.default_rng(SEED)
    most = max(lists, min(_PER_LIST * lists, _SAMPLE_BYTES // (4 * channels)))
    index: Any = faiss.index_factory(channels, factory, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed = _ROUNDS, SEED
    index.cp.min_points_per_centroid = 1
    with _one_thread():
        index.train(_picked(store, layer, rng.permutation(vectors)[:most]))
        centers = index.quantizer.reconstruct_n(0, lists)
        digest = _Digest(store, layer)
        lists_of = np.concatenate(
            [index.quantizer.search(codes.astype(np.float32), 1)[1][:, 0] for _, codes in blocks(store, layer, digest)]
        )
    rows = np.argsort(lists_of, kind="stable")
    starts = np.searchsorted(lists_of[rows], np.arange(lists + 1))
    for array, dtype in ((centers, np.float32), (starts, np.uint64), (rows, np.uint32)):
        file.write(np.ascontiguousarray(array, dtype).data)
    file.flush()
    _place_codes(file, store, layer, rows)
    probes, recall = _probes(store, layer, centers, lists_of, rng)
    return Plan(factory, vectors, channels, digest.value, lists, probes, recall)


def _place_codes(file: BinaryIO, store: Store, layer: str, rows: Int64) -> None:
    """Write every vector at the place of its list, starting at the current position of the file."""
    begin, width = file.tell(), 2 * store.widths[layer]
    place = np.empty_like(rows)
    place[rows] = np.arange(len(rows))
    for start, codes in blocks(store, layer):
        for code, number in zip(codes, place[start : start + len(codes)].tolist(), strict=True):
            file.seek(begin + number * width)
            file.write(code.data)


def _probes(store: Store, layer: str, centers: Float32, lists_of: Int64, rng: np.random.Generator) -> tuple[int, float]:
    """The number of lists to search, and the share of the AT nearest neighbors in them, for a sample of the vectors.

    A vector always finds itself, so it does not count among its own neighbors.
    """
    chosen = np.sort(rng.permutation(len(lists_of))[:QUERIES])
    queries = _picked(store, layer, chosen)
    found, _ = scan(((start, codes, None) for start, codes in blocks(store, layer)), queries, AT + 1)
    order = np.argsort(-(queries @ centers.T), axis=1, kind="stable")
    rank = np.argsort(order, axis=1)
    neighbors = [[row for row in near if row != own][:AT] for near, own in zip(found.tolist(), chosen, strict=True)]
    needed = np.sort([rank[query, lists_of[row]] for query, near in enumerate(neighbors) for row in near])
    if not len(needed):
        return centers.shape[0], 1.0
    probes = int(needed[min(len(needed) - 1, int(np.ceil(RECALL * len(needed))) - 1)]) + 1
    return probes, round(float((needed < probes).mean()), 4)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit FAISS to one thread: sums of floats depend on the order of addition."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


class _Digest:
    """The digest of a layer's vectors, computed while they are read; equal to that of `hdf5.dataset_digests`."""

    def __init__(self, store: Store, layer: str) -> None:
        shape = store.vectors(layer)[0].shape
        self._hash = hashlib.blake2b(f"<f2{shape}".encode(), digest_size=digests.DIGEST_BYTES)

    def add(self, block: NDArray[np.float16]) -> None:
        self._hash.update(np.ascontiguousarray(block, "<f2").data)

    @property
    def value(self) -> str:
        return self._hash.hexdigest()


def blocks(store: Store, layer: str, digest: _Digest | None = None) -> Iterator[tuple[int, Codes]]:
    """All vectors of a layer, normalized to length 1, block by block, each with its first row."""
    vectors, _, _ = store.vectors(layer)
    for row in range(0, len(vectors), _BLOCK):
        block = vectors[row : row + _BLOCK]
        if digest is not None:
            digest.add(block)
        codes = np.empty_like(block)
        for part in range(0, len(block), _PART):
            codes[part : part + _PART] = normalized(block[part : part + _PART].astype(np.float32))
        yield row, codes


def normalized(vectors: Float32) -> Float32:
    """Each row normalized to length 1. Non-finite values count as 0, and a row without other values stays 0.

    Values beyond float16 count as its largest one, as in the vectors that an index keeps.
    """
    most = np.float32(np.finfo(np.float16).max)
    finite = vectors
    if not (vectors.size and vectors.min() >= -most and vectors.max() <= most):  # NaN compares false
        finite = np.where(np.isfinite(vectors), np.clip(vectors, -most, most), np.float32(0))
    length = np.sqrt(np.add.reduce(finite * finite, axis=1, keepdims=True))  # half the time of np.linalg.norm
    return (finite / np.maximum(length, 1e-12)).astype(np.float32)


def _picked(store: Store, layer: str, rows: Int64) -> Float32:
    """These vectors, normalized to length 1, in ascending order of their rows."""
    wanted = np.sort(rows)
    found = []
    for start, codes in blocks(store, layer):
        first, last = np.searchsorted(wanted, [start, start + len(codes)])
        found.append(codes[wanted[first:last] - start].astype(np.float32))
    return np.concatenate(found)


def scan(
    parts: Iterable[tuple[int, Codes, Int64 | None]], queries: Float32, wanted: int
) -> tuple[Int64, NDArray[np.float32]]:
    """The `wanted` rows nearest to each query, best first, and their cosines, both (queries, found).

    Each part of the codes comes with its first row, or with the row of each code.
    """
    import faiss

    channels = queries.shape[1]
    index = faiss.IndexScalarQuantizer(channels, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    rows = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for start, codes, numbers in parts:
        if not len(codes):
            continue
        index.reset()
        index.add_sa_codes(codes.view(np.uint8))
        score, label = index.search(queries, min(wanted, len(codes)))
        places = np.maximum(label, 0)  # an empty result has the label -1
        found = start + places if numbers is None else numbers[places]
        rows = np.concatenate([rows, found], axis=1)
        scores = np.concatenate([scores, np.where(label < 0, -np.inf, score)], axis=1)
        best = np.lexsort((rows, -scores), axis=1)[:, :wanted]
        rows, scores = np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)
    return rows, scores
