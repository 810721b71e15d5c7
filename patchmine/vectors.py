"""Nearest patches: FAISS, built from the store's vectors. The only file that knows faiss.

`patches.faiss` is a line of JSON (job, and for each layer the offset and size of its index), then the indexes as
FAISS writes them. Vectors are compared by the cosine of their angle and held as float16, as the store holds them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from patchmine.store import PATCHES, Store

_BLOCK = 8192


def build(store: Store, folder: Path) -> None:
    """Write patches.faiss in the folder, whole or not at all; one layer in memory at a time."""
    import faiss

    target = folder / PATCHES
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    body = target.with_name(f".{target.name}.{os.getpid()}.body.tmp")
    places: dict[str, tuple[int, int]] = {}
    try:
        with body.open("wb") as file:
            for layer, channels in store.channels.items():
                start = file.tell()
                index = faiss.IndexScalarQuantizer(channels, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
                vectors, _, _ = store.vectors(layer)
                for row in range(0, len(vectors), _BLOCK):
                    block = vectors[row : row + _BLOCK].astype(np.float32)
                    index.add(block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12))
                faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]
                places[layer] = (start, file.tell() - start)
        header = json.dumps({"job": store.manifest["job_digest"], "layers": places}).encode() + b"\n"
        with temporary.open("wb") as file, body.open("rb") as source:
            file.write(header)
            while block := source.read(1 << 22):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        Path(temporary).unlink(missing_ok=True)
        Path(body).unlink(missing_ok=True)
