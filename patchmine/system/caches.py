"""The folder where patchmine caches what it can make again, for all indexes of a user."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """`patchmine` in XDG_CACHE_HOME, else in ~/.cache; it may not exist, and without a home it cannot be made."""
    caches = os.environ.get("XDG_CACHE_HOME")
    if caches:
        return Path(caches) / "patchmine"
    try:
        return Path.home() / ".cache" / "patchmine"
    except RuntimeError:  # no HOME, and a user id that the system does not know, as in a container
        return Path(os.devnull) / "patchmine"
