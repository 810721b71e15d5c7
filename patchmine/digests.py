"""Digests: what proves that bytes are those that were there before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DIGEST_BYTES = 16
_BLOCK = 1 << 20


def of_bytes(data: bytes) -> str:
    """blake2b over 16 bytes, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def of_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def of_json(document: Any) -> str:
    """The same for documents that are equal, however they are written."""
    return of_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
