"""The job: everything that can change a byte of an index. Settings that must not change one live in `defaults.Run`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any, NamedTuple

from patchmine.photographs.placement import Preprocessing
from patchmine.system import digests

WHICH = ("photographs", "listing")
"""The fields that identify the photographs of the source."""


@dataclass(frozen=True)
class Job:
    """What is computed. Every shard carries its digest, and a run resumes another only if their digests are equal.

    The fields below are those of format 1 and have no defaults. A field added later must have one: at its default it
    is left out of the document and of the digest, so that indexes made before it stay readable and resumable.
    """

    source: str
    """The word that reopens the source: an absolute folder, `shapes:200`, ..."""
    photographs: int
    listing: str
    """Digest over the paths and classes of all photographs, in order."""
    model: str
    weights: str
    """Digest of the network's parameters and buffers."""
    layers: tuple[str, ...]
    preprocessing: Preprocessing
    decoder: str
    executor: str
    runtime: str
    """The library that computes, with its version: another version may round differently."""
    device: str
    precision: str
    batch_size: int
    threads: int
    """Threads for one batch: the kernels that torch picks depend on this number."""
    shard_size: int
    keep: int
    table: bool
    field: str
    """`local` or `full`: whether receptive fields include what gates see."""
    code: str | None = None
    """Digest of the user's own code that made the network; None for a network that a name alone identifies."""
    position_embedding: str | None = None
    """How a transformer's position embedding was resampled for the size of the input; None if it was not."""
    directions: tuple[tuple[str, str], ...] = ()
    """Virtual layers, each with the digest of its readout."""

    @property
    def digest(self) -> str:
        return digests.of_json(self.as_dict() | {"model": self.called})

    @property
    def called(self) -> str:
        """The model, by which jobs are compared: of a file with a digest the function alone, wherever the file lies."""
        return self.model if self.code is None else function_of(self.model)

    @property
    def network(self) -> str:
        """What identifies the network beside its weights."""
        named = self.called if self.code is None else f"{self.called} {self.code}"
        return " ".join([named, *(digest for _, digest in self.directions)])

    def as_dict(self) -> dict[str, Any]:
        """The job as JSON holds it, without the optional fields that are at their defaults."""
        # Through JSON, so that a freshly planned job and one read back are equal.
        data: dict[str, Any] = json.loads(json.dumps(digests.described(self)))
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Job:
        """Raise KeyError or TypeError if a required field is missing: the caller knows which file it came from."""
        values = {field.name: data[field.name] for field in fields(cls) if _given(field.name, field.default, data)}
        values["layers"] = tuple(values["layers"])
        values["directions"] = tuple((layer, digest) for layer, digest in values.get("directions", ()))
        values["preprocessing"] = Preprocessing.from_dict(values["preprocessing"])
        return cls(**values)

    def first_difference(self, other: Job, but: Collection[str] = ()) -> tuple[str, Any, Any] | None:
        """The first field in which the jobs differ, with both values. Fields named in `but` are ignored."""
        mine, theirs = self.as_dict(), other.as_dict()
        for field in fields(self):
            name = field.name
            one, another = mine.get(name, field.default), theirs.get(name, field.default)
            same = self.called == other.called if name == "model" else one == another
            if name not in but and not same:
                return name, one, another
        return None

    @property
    def shards(self) -> tuple[Shard, ...]:
        return tuple(
            Shard(number, start, min(start + self.shard_size, self.photographs))
            for number, start in enumerate(range(0, self.photographs, self.shard_size))
        )


def function_of(model: str) -> str:
    """The function that the word `path/to/file.py:function` names."""
    return model.rpartition(":")[2]


def _given(name: str, default: Any, data: dict[str, Any]) -> bool:
    """Whether a field is to be read: one without a default always is, so that its absence raises KeyError."""
    return default is MISSING or name in data


def listing_digest(photographs: Iterable[tuple[str, str | None]]) -> str:
    """The digest over the paths and classes of all photographs, in order."""
    digest = digests.begun()
    for path, class_name in photographs:
        digest.update(f"{path}\0{class_name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class Shard(NamedTuple):
    """A contiguous range [start, stop) of the source's photographs: the unit of work, of commit, and of resume."""

    number: int
    start: int
    stop: int
