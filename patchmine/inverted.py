"""Inverted lists of short codes: where the nearest of many vectors probably are. Inner products, FAISS's IVF-PQ.

Each vector lies in the list of its nearest center. Its difference from that center is coded in a byte for every WIDTH
numbers (product quantization, Jegou et al. 2011): the nearest of 256 centroids of that part. FAISS trains centers and
centroids and adds up the codes; it gets arrays of the right size, and reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.ranking import Float32, Int64

WIDTH, CENTROIDS = 4, 256
SEED = 0
_ROUNDS = 10  # of k-means
_PER_CENTROID = 256  # vectors that k-means of the centroids sees for each of them

Codes = NDArray[np.uint8]


def parts_of(channels: int) -> int:
    """The bytes of the code of a vector of so many channels."""
    return -(-channels // WIDTH)


def trained(sample: Float32, lists: int) -> Coder:
    """The coder for vectors like those of `sample` (vectors, channels), of which there are at least as many as lists.

    The same sample gives the same bytes.
    """
    import faiss

    channels = sample.shape[1]
    means: Any = faiss.Clustering(channels, lists)
    means.niter, means.seed, means.min_points_per_centroid = _ROUNDS, SEED, 1
    flat: Any = faiss.IndexFlatIP(channels)
    coder: Any = faiss.ProductQuantizer(parts_of(channels) * WIDTH, parts_of(channels), 8)
    coder.cp.niter, coder.cp.seed = _ROUNDS, SEED
    coder.cp.max_points_per_centroid, coder.cp.min_points_per_centroid = _PER_CENTROID, 1
    with _one_thread():
        means.train(sample, flat)
        centers: Float32 = flat.reconstruct_n(0, lists)
        some = sample[: CENTROIDS * _PER_CENTROID]
        differences = some - centers[flat.search(some, 1)[1][:, 0]]
        coder.train(_padded(np.resize(differences, (max(CENTROIDS, len(some)), channels))))
    return Coder(centers, faiss.vector_to_array(coder.centroids).reshape(-1, CENTROIDS, WIDTH))


@dataclass(frozen=True)
class Coder:
    """Says in which list a vector lies, and its code there.

    `centers` are float32 (lists, channels), `centroids` float32 (parts, 256, WIDTH).
    """

    centers: Float32
    centroids: Float32

    def lists_of(self, vectors: Float32) -> Int64:
        """The list of each vector (n, channels)."""
        import faiss

        flat: Any = faiss.IndexFlatIP(self.centers.shape[1])
        flat.add(self.centers)
        with _one_thread():
            found: Int64 = flat.search(vectors, 1)[1][:, 0]
        return found

    def coded(self, vectors: Float32, lists: Int64) -> Codes:
        """The codes of vectors (n, channels) that lie in these lists (n,)."""
        with _one_thread():
            found: Codes = self._faiss.pq.compute_codes(_padded(vectors - self.centers[lists]))
        return found

    def decoded(self, codes: Codes, lists: Int64) -> Float32:
        """The vectors that codes (n, parts) in these lists (n,) stand for: (n, channels)."""
        differences = self._faiss.pq.decode(np.ascontiguousarray(codes))
        found: Float32 = self.centers[lists] + differences[:, : self.centers.shape[1]]
        return found

    def products(self, codes: Codes, query: Float32, wanted: int) -> tuple[Int64, Float32]:
        """The best places among the codes of one list, and the products of a query with their differences."""
        self._faiss.reset()
        self._faiss.add_sa_codes(codes)
        scores, places = self._faiss.search(_padded(query[None]), min(wanted, len(codes)))
        known = places[0] >= 0
        return places[0][known], scores[0][known]

    @cached_property
    def _faiss(self) -> Any:
        import faiss

        parts = len(self.centroids)
        index: Any = faiss.IndexPQ(parts * WIDTH, parts, 8, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.centroids, np.float32).ravel(), index.pq.centroids)
        index.is_trained = True
        return index


@dataclass(frozen=True)
class Lists:
    """Coded vectors in their lists.

    List i holds the places starts[i] to starts[i + 1], both of `rows`, the numbers of the vectors (vectors,), and of
    their codes: `read(first, last)` gets those of some places, (places, parts).
    """

    coder: Coder
    starts: Int64
    rows: Int64
    read: Callable[[int, int], Codes]

    def nearest(self, query: Float32, probes: int, wanted: int) -> tuple[Int64, Float32]:
        """The best `wanted` vectors of the lists nearest to a query (channels,), and their approximate products.

        `probes` lists are read, and more if these hold too few vectors.
        """
        products = self.coder.centers @ query
        order = np.argsort(-products, kind="stable")
        held = np.cumsum(np.diff(self.starts)[order])
        rows, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        for number in order[: max(probes, int(np.searchsorted(held, wanted)) + 1)].tolist():
            first, last = self.starts[number : number + 2].tolist()
            if first == last:
                continue
            there, found = self.coder.products(self.read(first, last), query, wanted)
            rows = np.concatenate([rows, self.rows[first + there]])
            scores = np.concatenate([scores, found + products[number]])
            best = np.lexsort((rows, -scores))[:wanted]
            rows, scores = rows[best], scores[best]
        return rows, scores


def _padded(vectors: Float32) -> Float32:
    """Vectors (n, channels) with zeros up to a multiple of WIDTH."""
    channels = vectors.shape[1]
    return np.pad(vectors, ((0, 0), (0, parts_of(channels) * WIDTH - channels)))


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
