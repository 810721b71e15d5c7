"""The folder where patchmine caches what it can make again, for all indexes of a user."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """`patchmine` in XDG_CACHE_HOME, else in ~/.cache; it may not exist."""
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "patchmine"
