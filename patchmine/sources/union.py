"""Several sources combined into one, as in an index that was merged from others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from patchmine.errors import PhotographError, SourceError
from patchmine.sources import Entry, Listed, Passed, Source, listed, open_source

PREFIX = "union:"
HELP = 'union:["A","B"] (several sources as one)'


@dataclass(frozen=True)
class Union:
    """`specs` reopen the parts; a photograph is read from the first part that has its path."""

    specs: tuple[str, ...]
    kind: str = "union"

    @property
    def spec(self) -> str:
        return PREFIX + json.dumps(self.specs)

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @cached_property
    def parts(self) -> tuple[Source, ...]:
        return tuple(open_source(spec) for spec in self.specs)

    def entries(self) -> list[Entry]:
        return self.listed().entries

    def listed(self) -> Listed:
        """The photographs of all parts, sorted by path.

        Raises SourceError if two parts have the same path, since only one of the two could be read.
        """
        first: dict[str, str] = {}
        entries: list[Entry] = []
        passed, notes = Passed(), dict[str, None]()
        for part in self.parts:
            found = listed(part)
            for entry in found.entries:
                if first.setdefault(entry.path, part.spec) != part.spec:
                    raise SourceError(
                        f"{entry.path!r} is in both {first[entry.path]!r} and {part.spec!r}: give one folder above both"
                    )
                entries.append(entry)
            passed.join(found.passed)
            notes |= dict.fromkeys(found.notes)
        return Listed(sorted(entries, key=lambda entry: entry.path), passed, tuple(notes))

    def read(self, path: str) -> bytes:
        reason = PhotographError("not in any part of the source")
        for part in self.parts:
            try:
                return part.read(path)
            except PhotographError as error:
                reason = error
        raise reason


def united(specs: Sequence[str]) -> str:
    """The spec of the union of `specs`, which may be unions themselves; a single spec is returned unchanged."""
    flat: dict[str, None] = {}
    for spec in specs:
        flat.update(dict.fromkeys(_parts(spec) if spec.startswith(PREFIX) else (spec,)))
    return next(iter(flat)) if len(flat) == 1 else Union(tuple(flat)).spec


def claim(spec: str) -> Union | None:
    if not spec.startswith(PREFIX):
        return None
    parts = _parts(spec)
    return Union(tuple(open_source(part).spec for part in parts))


def _parts(spec: str) -> tuple[str, ...]:
    try:
        parts = json.loads(spec.removeprefix(PREFIX))
    except (ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list) or len(parts) < 2 or not all(isinstance(part, str) for part in parts):
        raise SourceError(f"{spec!r} is not a list of sources: write {HELP}")
    if any(part.startswith(PREFIX) for part in parts):
        raise SourceError(f"{spec!r} nests a union in a union: list all sources in a single union")
    return tuple(parts)
