"""Digests of bytes, files and JSON documents, which detect any change."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashlib import blake2b

DIGEST_BYTES = 16
_BLOCK = 1 << 20


def begun(data: bytes = b"") -> blake2b:
    """A 16-byte blake2b digest of the data so far."""
    import hashlib  # loads OpenSSL, and few queries compute a digest

    return hashlib.blake2b(data, digest_size=DIGEST_BYTES)


def of_bytes(data: bytes) -> str:
    """The 16-byte blake2b digest of the data, as 32 hexadecimal digits."""
    return begun(data).hexdigest()


def of_file(path: Path) -> str:
    """`of_bytes` of a file's content, read block by block. Raises OSError."""
    digest = begun()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def of_json(document: Any) -> str:
    """`of_bytes` of a document's canonical JSON, so that equal documents have equal digests."""
    return of_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def described(record: Any, always: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass by name, without those that are at their defaults, unless they are in `always`.

    A field that is added with a default thus changes no document and no digest made before. A field that is a record
    itself, with `as_dict`, describes itself.
    """
    document = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name in always or value != field.default:  # a field without a default has MISSING there
            document[field.name] = value.as_dict() if hasattr(value, "as_dict") else value
    return document
