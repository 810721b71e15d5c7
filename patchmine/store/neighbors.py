"""Finds the stored vectors nearest to a vector, by cosine, in the lists of patches.faiss.

FAISS never parses bytes of the file: it gets arrays of the right size. Its results are compared again with the store's
own vectors, so an untrusted file can hide a neighbor but cannot invent one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from stat import S_ISREG
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchmine.buckets.copies import bring
from patchmine.inverted import CENTROIDS, WIDTH, Coder, Lists, parts_of
from patchmine.ranking import Float32, Int64
from patchmine.store.patches_faiss import AT, MOST_DEPTH, MOST_LISTS, Codes, Plan, blocks, build, normalized, scan
from patchmine.store.reading import PATCHES, Store
from patchmine.system.regular_files import withheld
from patchmine.system.untrusted_json import TEXT, Misfit, Part, parse

ROUNDING = 1e-3
"""Cosines that differ by more than this keep their order when float16 rounds them: each is off by up to 2**-11."""

_SCAN_BYTES = 64 << 20
_HEADER_BYTES = 8 << 20
_SPOT = 16
_NEAR = 2e-3  # a vector of length 1 and its float16 copy are closer than this

Note = Callable[[str], None]


class Neighbors:
    """The patches.faiss of an index, open for queries.

    A missing file, or one that does not match the store's vectors, is rebuilt; if it cannot be written, or the system
    withholds it, all vectors are compared. `note` receives a message in each case.
    """

    def __init__(self, store: Store, note: Note, exact: int | None = None) -> None:
        self.store = store
        self._file = store.directory / PATCHES
        self._lists: dict[str, Lists] = {}
        self._plans: Mapping[str, Plan] | None = None
        self._offsets: dict[tuple[str, str], int] = {}
        bring(self._file)
        try:
            self._open()
        except (Misfit, OSError) as error:
            if unread := withheld(self._file, error):
                note(f"{unread}; comparing all vectors instead")
                return
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be used ({_line(error)})"
            note(f"{self._file} {reason}; building it again")
            try:
                build(store, store.directory, exact)
                self._open()
            except (Misfit, OSError) as failure:
                self._plans = None
                note(f"{self._file} cannot be written ({_line(failure)}); comparing all vectors instead")

    def plan(self, layer: str) -> Plan | None:
        """How the layer is searched, or None if the file is not available."""
        return None if self._plans is None else self._plans[layer]

    def nearest(self, layer: str, vector: Float32, wanted: int) -> tuple[Int64, Float32]:
        """The `wanted` rows of the store's vectors nearest to a vector (channels,), best first, with approximate
        cosines: both (found,), fewer if the store has fewer. `cosines` gives exact ones.

        Of codes in lists, the best are compared with the store's vectors, and their cosines are exact.
        """
        query = normalized(vector[None])
        if self._plans is None:
            everything = ((start, codes, None) for start, codes in blocks(self.store, layer))
            rows, scores = scan(everything, query, wanted)
        elif not self._plans[layer].lists:
            rows, scores = scan(self._codes(layer, 0, self._plans[layer].vectors), query, wanted)
        else:
            plan = self._plans[layer]
            near, _ = self._lists[layer].nearest(query[0], plan.probes, max(wanted, wanted * plan.depth // AT))
            cosines = self.cosines(layer, vector, near)
            best = np.lexsort((near, -cosines))[:wanted]
            return near[best], cosines[best]
        return rows[0], scores[0]

    def cosines(self, layer: str, vector: Float32, rows: Int64) -> Float32:
        """The cosines between a vector (channels,) and these rows of the store: (rows,)."""
        order = np.argsort(rows)
        vectors = np.empty((len(rows), self.store.widths[layer]), np.float32)
        vectors[order] = self.store.vectors(layer)[0][rows[order]]
        found: Float32 = normalized(vectors) @ normalized(vector[None])[0]
        return found

    def _codes(self, layer: str, first: int, last: int) -> Iterator[tuple[int, Codes, None]]:
        """The codes [first, last) of a layer from the file, block by block."""
        channels = self.store.widths[layer]
        size = max(1, _SCAN_BYTES // (2 * channels))
        for start in range(first, last, size):
            count = min(size, last - start)
            codes = self._read(layer, "codes", "<f2", count * channels, 2 * start * channels)
            yield start, codes.reshape(count, channels), None

    def _read(self, layer: str, name: str, dtype: str, count: int, skip: int = 0) -> NDArray[Any]:
        with self._file.open("rb") as file:
            file.seek(self._offsets[layer, name] + skip)
            found = np.fromfile(file, dtype, count)
        if len(found) != count:
            raise Misfit(f"the {name} of {layer} are cut short")
        return found

    def _open(self) -> None:
        """Read and check the header and the small arrays. Raises Misfit or OSError."""
        status = self._file.stat()
        if not S_ISREG(status.st_mode):
            raise Misfit("it is not a regular file")
        with self._file.open("rb") as file:
            header = file.readline(_HEADER_BYTES)
        document = parse(header)
        document.word("job", (self.store.manifest["job_digest"],))
        layers = document.part("layers")
        plans = {layer: self._checked(layer, layers.part(layer)) for layer in self.store.channels}
        offset = len(header)
        for layer, plan in plans.items():
            for name, size in plan.sizes.items():
                self._offsets[layer, name] = offset
                offset += size
        if offset != status.st_size:
            raise Misfit(f"it has {status.st_size} bytes, but its first line describes {offset}")
        for layer, plan in plans.items():
            if plan.lists:
                self._lists[layer] = self._checked_lists(layer, plan)
            self._check_codes(layer, plan)
        self._plans = plans

    def _checked(self, layer: str, part: Part) -> Plan:
        vectors, channels = self.store.vectors(layer)[0].shape
        lists = part.whole("lists", 0, min(MOST_LISTS, max(vectors, 1)))
        parts = parts_of(channels)
        plan = Plan(
            factory=part.word("factory", (f"IVF{lists},PQ{parts}" if lists else "SQfp16",)),
            vectors=part.whole("vectors", vectors, vectors),
            channels=part.whole("channels", channels, channels),
            digest=part.text("digest", TEXT),
            lists=lists,
            probes=part.whole("probes", 0, MOST_LISTS),
            recall=float(part.number("recall", 0, 1)),
            parts=part.whole("parts", parts, parts) if lists else 0,
            depth=part.whole("depth", 1, MOST_DEPTH) if lists else 0,
        )
        # The manifest's value has not been checked, and an index that is being built has none yet.
        with suppress(AttributeError, KeyError, TypeError):
            recorded = self.store.manifest["checksums"]["datasets"][f"layers/{layer}/vectors"]
            if plan.digest != recorded:
                raise Misfit(f"it was built from other vectors of {layer}")
        return plan

    def _checked_lists(self, layer: str, plan: Plan) -> Lists:
        """The lists of a layer, checked so that every vector of the store is in exactly one of them."""
        centers = self._read(layer, "centres", "<f4", plan.lists * plan.channels).reshape(plan.lists, plan.channels)
        centroids = self._read(layer, "centroids", "<f4", plan.parts * CENTROIDS * WIDTH)
        starts = self._read(layer, "starts", "<u8", plan.lists + 1).astype(np.int64)
        rows = self._read(layer, "rows", "<u4", plan.vectors).astype(np.int64)
        if not (np.isfinite(centers).all() and np.isfinite(centroids).all()):
            raise Misfit(f"a center of {layer} is not finite")
        if starts[0] != 0 or starts[-1] != plan.vectors or (np.diff(starts) < 0).any():
            raise Misfit(f"the lists of {layer} do not hold its {plan.vectors} vectors")
        seen = np.zeros(plan.vectors, bool)
        seen[rows[rows < plan.vectors]] = True
        if not seen.all():
            raise Misfit(f"the lists of {layer} do not hold each of its vectors once")

        def read(first: int, last: int) -> NDArray[np.uint8]:
            found = self._read(layer, "codes", "|u1", (last - first) * plan.parts, first * plan.parts)
            return found.reshape(-1, plan.parts)

        return Lists(Coder(centers, centroids.reshape(plan.parts, CENTROIDS, WIDTH)), starts, rows, read)

    def _check_codes(self, layer: str, plan: Plan) -> None:
        """Compare a few vectors with those of the store."""
        vectors, _, _ = self.store.vectors(layer)
        places = np.unique(np.linspace(0, plan.vectors - 1, min(_SPOT, plan.vectors)).astype(np.int64))
        for place in places.tolist():
            row = int(self._lists[layer].rows[place]) if plan.lists else place
            vector = normalized(vectors[row : row + 1].astype(np.float32))
            if plan.lists:
                right = _stands_for(self._lists[layer], place, vector)
            else:
                (code,) = [codes for _, codes, _ in self._codes(layer, place, place + 1)]
                right = np.allclose(code, vector, atol=_NEAR)
            if not right:
                raise Misfit(f"vector {row} of {layer} differs from the one in the index")


def _stands_for(lists: Lists, place: int, vector: Float32) -> bool:
    """Whether the code at a place is as near to its vector (1, channels) as the code that the vector would get."""
    number = np.searchsorted(lists.starts, [place], side="right") - 1
    codes = (lists.read(place, place + 1), lists.coder.coded(vector, number))
    distance, least = (np.linalg.norm(lists.coder.decoded(code, number) - vector) for code in codes)
    return bool(distance <= least + _NEAR)


def _line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())
