"""The URLs of buckets."""

from __future__ import annotations

from pathlib import Path

SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "memory": "fsspec"}
"""What a URL may begin with, and the package that opens it."""


def is_url(spec: str) -> bool:
    """Whether the spec is the URL of a bucket."""
    scheme, mark, rest = spec.partition("://")
    return scheme in SCHEMES and mark != "" and rest != ""


def url_of(path: str | Path) -> str | None:
    """The URL that the path of an index means, without a slash at its end; None for a path of this machine.

    `Path` leaves one slash of the two.
    """
    scheme, mark, rest = str(path).partition(":/")
    rest = rest.strip("/")
    return f"{scheme}://{rest}" if scheme in SCHEMES and mark and rest else None
