"""An index in a bucket: which of its files every command needs, and which are fetched when a command asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchmine.buckets.urls import url_of

if TYPE_CHECKING:
    from patchmine.buckets.copy import Copy


def copy_of(path: str | Path) -> Copy | None:
    """The copy of the index at this path, if that is the URL of a bucket. Asks and writes nothing yet."""
    url = url_of(path)
    if url is None:
        return None
    from patchmine.buckets.copy import Copy  # few indexes lie in a bucket
    from patchmine.kept import findings, scores, tight_crops
    from patchmine.store import reading as store

    needed = {store.MANIFEST, store.ACTIVATIONS, store.NAMES, scores.FILE, tight_crops.FOLDER, findings.FOLDER}
    unfinished = {store.SHARDS, store.RELEVANCE_SHARDS}  # `patchmine index` alone delivers shards
    return Copy(url, needed, unfinished, store.MANIFEST)


def here(path: str | Path, everything: bool = False) -> Path:
    """The directory of an index; if it lies in a bucket, that of its copy on this machine, brought up to date.

    Raises StoreError if the bucket cannot be reached.
    """
    copy = copy_of(path)
    if copy is None:
        return Path(path)
    copy.refresh()
    if everything:
        copy.bring_all()
    return copy.directory
