"""A folder in a bucket: recursive, sorted by path, the first level of folders is the class, as in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchmine.buckets import objects
from patchmine.buckets.urls import is_url
from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, Listed, Passed, class_in_path, is_hidden, suffixes
from patchmine.sources._fetching import Part, ahead

HELP = "s3://, gs:// or hf:// (a folder, a .tar or a list in a bucket)"


@dataclass(frozen=True)
class Remote:
    """`spec` is the URL of the folder, without a slash at its end."""

    spec: str
    kind: str = "remote"

    remote = True

    @property
    def name(self) -> str:
        return self.spec.rpartition("/")[2]

    def entries(self) -> list[Entry]:
        return self.listed().entries

    def listed(self) -> Listed:
        passed, known, found = Passed(), suffixes(), list[Entry]()
        for path in sorted(objects.find(self.spec)):
            if any(map(is_hidden, path.split("/"))):
                continue
            if path.lower().endswith(known):
                found.append(Entry(path, class_in_path(path)))
            else:
                passed.add(path)
        if not found:
            raise SourceError(f"no images in {self.spec!r}: looked for {' '.join(known)}, recursively{passed.clause()}")
        return Listed(found, passed)

    def expect(self, paths: Sequence[str]) -> None:
        """Begin to fetch the photographs that will be read next."""
        ahead(self.spec).expect(self._part(path) for path in paths)

    def read(self, path: str) -> bytes:
        if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
            raise PhotographError("its path leads out of the folder")
        return ahead(self.spec).read(self._part(path))

    def _part(self, path: str) -> Part:
        return Part(path, f"{self.spec}/{path}")


def claim(spec: str) -> Remote | None:
    if not is_url(spec) or spec.lower().endswith((".tar", ".txt", ".csv", ".tsv", ".jsonl")):
        return None
    if spec.lower().endswith(".zip"):
        raise SourceError(f"{spec!r} is a zip in a bucket, which cannot be read in place: unpack it, or make it a .tar")
    return Remote(spec.rstrip("/"))
