"""An index in a bucket: which of its files every command needs, and which are fetched when a command asks for them."""

from __future__ import annotations

from pathlib import Path

from patchmine.buckets.copies import Copy
from patchmine.buckets.objects import url_of
from patchmine.kept import findings, scores, tight_crops
from patchmine.store import reading as store

FIRST = {
    store.MANIFEST,
    store.ACTIVATIONS,
    store.NAMES,
    scores.FILE,
    tight_crops.FOLDER,
    findings.FOLDER,
}
"""What is fetched when the index is opened."""

SHARDS = {store.SHARDS, store.RELEVANCE_SHARDS}
"""Folders of unfinished work. `patchmine index` alone delivers shards."""


def copy_of(path: str | Path) -> Copy | None:
    """The copy of the index at this path, if that is the URL of a bucket. Asks and writes nothing yet."""
    url = url_of(path)
    return None if url is None else Copy(url, FIRST, SHARDS, store.MANIFEST)


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
