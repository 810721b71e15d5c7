"""Writes files that appear whole or not at all: temporary name, flush, fsync, rename."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, chunks: list[bytes | memoryview]) -> None:
    """Write the chunks to a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
