"""The file patches.faiss: all vectors of an index, as FAISS searches them.

Vectors are compared by cosine similarity. A layer of up to EXACT vectors is searched exhaustively. A larger one gets
inverted lists of short codes (`patchmine.inverted`). A query reads the `probes` lists whose centers are nearest to it,
and for every AT neighbors that are wanted compares the best `depth` vectors of these lists as the store has them: as
many as it takes to reach a recall of RECALL against an exhaustive search.

`patches.faiss` is one line of JSON, followed by plain arrays for each layer, in the order of the network. The array
sizes follow from the JSON. A layer that is searched exhaustively has only `codes` float16 (vectors, channels), of
length 1. Another one has `centres` float32 (lists, channels), `centroids` float32 (parts, 256, 4), `starts` uint64
(lists + 1), `rows` uint32 (vectors) of the store, list by list, and in the same order `codes` uint8 (vectors, parts).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log2, sqrt
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from patchmine import inverted
from patchmine.ranking import Float32, Int64
from patchmine.store.reading import PATCHES, Store
from patchmine.system import digests

EXACT = 250_000
"""The largest number of vectors of a layer for which all vectors are compared."""

AT, RECALL = 10, 0.99
"""An approximate index finds this share of the AT nearest neighbors, measured while it is built, with QUERIES vectors
that took no part in training. RECALL exceeds the promised 0.95 because these are only a sample."""

QUERIES = 256
SEED = 0
_IN_LISTS = 0.995  # of the neighbors lie in the lists that are read
_PER_LIST = 64  # vectors per list that k-means sees
_SAMPLE_BYTES = 256 << 20
_BLOCK, _PART = 8192, 128  # vectors in memory, and vectors in the processor's cache

MOST_LISTS, MOST_DEPTH = 1 << 20, 1000
"""The largest number of lists of a layer, and of vectors that are compared again for AT neighbors."""

Codes = NDArray[np.float16]


@dataclass(frozen=True)
class Plan:
    """How one layer is searched, as stored in the header. `factory` is FAISS's factory string.

    `digest` is the digest of the store's vectors, as in the manifest's checksums. A plan without lists searches all
    vectors and has a `recall` of 1. With lists, a vector has `parts` bytes, and the nearest `depth` are compared again
    for every AT that are wanted.
    """

    factory: str
    vectors: int
    channels: int
    digest: str
    lists: int = 0
    probes: int = 0
    recall: float = 1.0
    parts: int = 0
    depth: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The plan as in the header of the file: without lists, nothing about codes."""
        return {name: value for name, value in vars(self).items() if self.lists or name not in ("parts", "depth")}

    def report(self) -> dict[str, Any]:
        """What the manifest tells of a layer whose nearest vectors are found approximately."""
        names = ("vectors", "lists", "probes", "parts", "depth", "recall")
        return {name: value for name, value in vars(self).items() if name in names}

    @property
    def sizes(self) -> dict[str, int]:
        """The size in bytes of each array of the layer, in file order."""
        if not self.lists:
            return {"codes": 2 * self.vectors * self.channels}
        return {
            "centres": 4 * self.lists * self.channels,
            "centroids": 4 * self.parts * inverted.CENTROIDS * inverted.WIDTH,
            "starts": 8 * (self.lists + 1),
            "rows": 4 * self.vectors,
            "codes": self.vectors * self.parts,
        }


def build(store: Store, folder: Path, exact: int | None = None) -> dict[str, Plan]:
    """Write patches.faiss into the folder, whole or not at all, with one block of vectors in memory at a time.

    The same vectors give the same bytes. `exact` is EXACT if it is not given. Returns how each layer is searched.
    Raises OSError.
    """
    exact = EXACT if exact is None else exact
    target = folder / PATCHES
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    body = target.with_name(f".{target.name}.{os.getpid()}.body.tmp")
    plans: dict[str, Plan] = {}
    made: list[Path] = []
    try:
        # "x": an untrusted folder may hold a link of that name, which must not be followed.
        with body.open("xb+") as file:
            made.append(body)
            for layer in store.channels:
                vectors = len(store.vectors(layer)[0])
                write = _write_whole if vectors <= exact else _write_lists
                plans[layer] = write(file, store, layer)
                file.seek(0, os.SEEK_END)
        described = {layer: plan.as_dict() for layer, plan in plans.items()}
        header = json.dumps({"job": store.manifest["job_digest"], "layers": described}).encode() + b"\n"
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
    return plans


def _write_whole(file: BinaryIO, store: Store, layer: str) -> Plan:
    digest = _Digest(store, layer)
    for _, codes in blocks(store, layer, digest):
        file.write(codes.data)
    return Plan("SQfp16", len(store.vectors(layer)[0]), store.widths[layer], digest.value)


def _write_lists(file: BinaryIO, store: Store, layer: str) -> Plan:
    """Pass over the vectors four times: to sample them, to assign each to a list, to write the code of each in its
    place, and to find the nearest of some."""
    vectors, channels = len(store.vectors(layer)[0]), store.widths[layer]
    lists, parts = min(2 ** round(log2(2 * sqrt(vectors))), vectors), inverted.parts_of(channels)
    order = np.random.default_rng(SEED).permutation(vectors)
    most = max(lists, min(_PER_LIST * lists, _SAMPLE_BYTES // (4 * channels)))
    queries = np.sort(order[:QUERIES])
    sample = _picked(store, layer, order[QUERIES:][:most] if vectors - QUERIES >= lists else order)
    coder = inverted.trained(sample, lists)
    digest = _Digest(store, layer)
    lists_of = np.concatenate([coder.lists_of(codes.astype(np.float32)) for _, codes in blocks(store, layer, digest)])
    rows = np.argsort(lists_of, kind="stable")
    starts = np.searchsorted(lists_of[rows], np.arange(lists + 1))
    arrays = ((coder.centers, np.float32), (coder.centroids, np.float32), (starts, np.uint64), (rows, np.uint32))
    for array, dtype in arrays:
        file.write(np.ascontiguousarray(array, dtype).data)
    begin = file.tell()
    _place_codes(file, store, layer, coder, lists_of, rows)

    def read(first: int, last: int) -> inverted.Codes:
        file.seek(begin + first * parts)
        return np.frombuffer(file.read((last - first) * parts), np.uint8).reshape(-1, parts)

    probes, depth, recall = _effort(store, layer, inverted.Lists(coder, starts, rows, read), lists_of, queries)
    factory = f"IVF{lists},PQ{parts}"
    return Plan(factory, vectors, channels, digest.value, lists, probes, recall, parts, depth)


def _place_codes(file: BinaryIO, store: Store, layer: str, coder: inverted.Coder, lists_of: Int64, rows: Int64) -> None:
    """Write the code of every vector at the place of its list, starting at the current position of the file."""
    begin, parts = file.tell(), len(coder.centroids)
    place = np.empty_like(rows)
    place[rows] = np.arange(len(rows))
    for start, vectors in blocks(store, layer):
        here = slice(start, start + len(vectors))
        codes = coder.coded(vectors.astype(np.float32), lists_of[here])
        for code, number in zip(codes, place[here].tolist(), strict=True):
            file.seek(begin + number * parts)
            file.write(code.data)


def _effort(store: Store, layer: str, lists: inverted.Lists, lists_of: Int64, chosen: Int64) -> tuple[int, int, float]:
    """How many lists to read, how many vectors to compare again, and the share of the AT nearest neighbors found then.

    Measured with the vectors `chosen`. A vector always finds itself, so it does not count among its own neighbors.
    """
    queries = _picked(store, layer, chosen)
    found, _ = scan(((start, codes, None) for start, codes in blocks(store, layer)), queries, AT + 1)
    neighbors = [[row for row in near if row != own][:AT] for near, own in zip(found.tolist(), chosen, strict=True)]
    if not any(neighbors):
        return len(lists.coder.centers), AT, 1.0
    rank = np.argsort(np.argsort(-(queries @ lists.coder.centers.T), axis=1, kind="stable"), axis=1)
    probes = _reaching([rank[query, lists_of[row]] for query, near in enumerate(neighbors) for row in near], _IN_LISTS)
    places: list[int] = []
    for query, own, near in zip(queries, chosen, neighbors, strict=True):
        rows, _ = lists.nearest(query, probes, MOST_DEPTH + 1)
        place = {row: number for number, row in enumerate(rows[rows != own].tolist())}
        places += [place.get(row, MOST_DEPTH) for row in near]
    depth = min(_reaching(places, RECALL), MOST_DEPTH)
    return probes, max(depth, AT), round(float((np.array(places) < max(depth, AT)).mean()), 4)


def _reaching(places: Sequence[int], share: float) -> int:
    """How many one has to look at to meet this share of what lies at these places, counted from 0."""
    ordered = np.sort(places)
    return int(ordered[max(0, int(np.ceil(share * len(ordered))) - 1)]) + 1


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
