"""Photographs in tars: WebDataset shards, or a folder of photographs packed into one tar.

Members are read in place; nothing is unpacked. The path of a photograph is its member's name, as in a folder. With
several tars, the tar's name comes first: `val-000012.tar/00000007.jpg`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from patchmine.buckets.urls import is_url
from patchmine.errors import PhotographError, SourceError
from patchmine.sources import (
    HEIF,
    SUFFIXES,
    Entry,
    Listed,
    Passed,
    absolute,
    beside,
    class_in_path,
    not_found,
    packed_path,
    suffixes,
)
from patchmine.sources._fetching import Part, ahead
from patchmine.sources._files import File, is_there, opened, remembered, there, warmed
from patchmine.sources._tables import class_in_record
from patchmine.sources._tar_headers import FOLDER, WHY_NOT_COMPRESSED, Member, members
from patchmine.system.regular_files import LIMIT, TOO_LARGE, is_folder

HELP = "a .tar (several: NAME-{000000..000063}.tar)"

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")

LABELS = ("cls", "cls.txt", "json")
"""Extensions (after the first dot of a name) of members that may give a sample's class; the first that does counts."""

LARGEST_LABEL = 1 << 20
"""Maximum size in bytes of a member that gives a class."""

MOST_TARS = 100_000

CACHED_TARS = 32
"""Tables of contents kept in memory: more than the threads of a run, or the photographs of a sheet, use at once."""

_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Tar:
    """`spec` is the absolute path of a tar, or of several with the braces as typed."""

    spec: str
    kind: str = "tar"

    @property
    def name(self) -> str:
        stem = re.sub(r"\.tar$", "", Path(self.spec).name, flags=re.IGNORECASE)
        if _is_pattern(self.spec):
            stem = stem.partition("{")[0].rstrip("-_.")
        return stem or "photographs"

    def entries(self) -> list[Entry]:
        return self.listed().entries

    def listed(self) -> Listed:
        tars = _tars(self.spec)
        found_tars = there(tars.values())
        missing = {name: tar for name, tar in tars.items() if tar not in found_tars}
        if missing:
            raise SourceError(
                f"{len(missing)} of the {len(tars)} tars {self.spec!r} are missing, first {next(iter(missing))!r}; "
                f"found: {_enumerated([name for name in tars if name not in missing])}"
            )
        warmed(_table, tars.values())
        known, passed, keys, found = suffixes(), Passed(), Counter[str](), list[Entry]()
        for name, tar in tars.items():
            prefix, part = f"{name}/" if name else "", Passed()
            found += _entries(tar, prefix, known, part, keys)
            passed.join(part, prefix)
        if not found:
            raise SourceError(
                f"no images in {self.spec!r}: looked for members ending in {' '.join(known)}{passed.clause()}"
            )
        return Listed(sorted(found, key=lambda entry: entry.path), passed, _notes(found, keys))

    @property
    def remote(self) -> bool:
        return is_url(self.spec)

    def expect(self, paths: Sequence[str]) -> None:
        """Begin to fetch the photographs that will be read next, if they lie in a bucket."""
        if self.remote:
            ahead(self.spec).expect(self._parts(paths))

    def read(self, path: str) -> bytes:
        """The bytes of one member. Opens no other tar."""
        if self.remote:
            return ahead(self.spec).read(self._part(path))
        tar, member_path = self._place(path)
        try:
            with opened(tar) as file:
                return _bytes(file, _member(tar, file, member_path))
        except PhotographError:
            raise
        except SourceError as error:
            raise PhotographError(str(error)) from None
        except OSError as error:
            raise PhotographError(f"{tar!r} cannot be read: {error.strerror}") from None

    def _place(self, path: str) -> tuple[str, str]:
        """The tar of a photograph, and its path in it. Raises PhotographError."""
        tars = _tars(self.spec)
        name, _, member_path = ("", "", path) if "" in tars else path.partition("/")
        if name not in tars:
            raise PhotographError(f"not in any of the tars {self.spec!r}")
        return tars[name], member_path

    def _parts(self, paths: Iterable[str]) -> Iterator[Part]:
        for path in paths:
            with suppress(PhotographError):  # `read` reports it
                yield self._part(path)

    def _part(self, path: str) -> Part:
        """Where a photograph lies in a bucket. Raises PhotographError, and SourceError if nothing is in reach."""
        tar, member_path = self._place(path)
        with opened(tar) as file:
            member = _member(tar, file, member_path)
        _refuse(member)
        return Part(path, tar, member.offset, member.offset + member.size)


def claim(spec: str) -> Tar | None:
    path = Path(spec).expanduser()
    if not spec.lower().endswith((".tar", *COMPRESSED)) or is_folder(path):
        return None
    if spec.lower().endswith(COMPRESSED):
        raise SourceError(f"{spec!r} is a compressed tar, which {WHY_NOT_COMPRESSED}")
    source = Tar(spec if is_url(spec) else absolute(path))
    # One existing tar is enough, so that a sheet can be drawn while a tar that it does not need is missing.
    if not any(is_there(tar) for tar in _tars(source.spec).values()):
        if _is_pattern(source.spec):
            raise SourceError(f"none of the tars {spec!r} exists{beside(path, ('.tar',))}")
        raise SourceError(not_found("tar", spec, (".tar",)))
    return source


def _bytes(file: File, member: Member) -> bytes:
    _refuse(member)
    return file.read(member.size, member.offset)


def _refuse(member: Member) -> None:
    if member.unlike:
        raise PhotographError(f"{member.unlike} in the tar, not a regular file")
    if member.size > LIMIT:
        raise PhotographError(TOO_LARGE)


def _member(tar: str, file: File, path: str) -> Member:
    table = _photographs(tar, file.version, file.size)
    if path not in table:
        raise PhotographError(f"not in {tar!r}")
    return table[path]


def _entries(tar: str, prefix: str, known: tuple[str, ...], passed: Passed, keys: Counter[str]) -> Iterator[Entry]:
    """The photographs of one tar, in tar order. Adds to `passed`, and to `keys` those of JSON without a class.

    Raises SourceError.
    """
    photographs: dict[str, Member] = {}
    labels: dict[str, dict[str, Member]] = {}
    others: list[str] = []
    try:
        with opened(tar) as file:
            for path, member in _files(file, tar):
                lowered = path.lower()
                if lowered.endswith(known):
                    photographs[path] = member
                elif member.unlike:
                    passed.left_out[path] = f"{member.unlike} in the tar"
                elif _is_label(path) and member.size <= LARGEST_LABEL:
                    sample, extension = _key(path)
                    labels.setdefault(sample, {})[extension.lower()] = member
                else:
                    others.append(path)
            for path in photographs:
                found = labels.get(_key(path)[0], {})
                believed = (found[extension] for extension in LABELS if extension in found)
                said = (_class_in(label, _label(file, label), keys) for label in believed)
                yield Entry(prefix + path, next(filter(None, said), None) or class_in_path(path))
    except OSError as error:
        raise SourceError(f"{tar!r} cannot be read: {error.strerror}") from None
    samples = {_key(path)[0] for path in photographs}
    alone = (member.name for sample in labels.keys() - samples for member in labels[sample].values())
    for path in (*others, *alone):
        passed.add(path)


@lru_cache(CACHED_TARS)
def _photographs(tar: str, _version: str, _size: int) -> dict[str, Member]:
    """The photographs of a tar by path, cached until the file changes."""
    known = (*SUFFIXES, *HEIF)
    with opened(tar) as file:
        return {path: member for path, member in _files(file, tar) if path.lower().endswith(known)}


def _files(file: File, tar: str) -> Iterator[tuple[str, Member]]:
    """(path, member) of each member that a folder would show. The later of two with one path counts, as if unpacked."""
    for member in _members(file, tar):
        path = packed_path(member.name, tar)
        if path is not None and member.unlike != FOLDER:
            yield path, member


def _members(file: File, tar: str) -> Iterable[Member]:
    """All members. The table of a tar in a bucket is cached with its labels, because it costs a reading of the tar."""
    if not file.remote:
        return members(file.read, file.size, tar)

    def walked() -> list[list[Any]]:
        rows: list[list[Any]] = []
        for member in members(file.read, file.size, tar):
            rows.append(list(member))
            if _is_label(member.name) and member.size <= LARGEST_LABEL and not member.unlike:
                file.kept[member.offset] = file.read(member.size, member.offset)
        return rows

    return [Member(*row) for row in remembered(tar, file, walked)]


def _table(tar: str) -> None:
    """Read the table of a tar in a bucket, so that it is in the cache."""
    with opened(tar) as file:
        _members(file, tar)


def _label(file: File, member: Member) -> bytes:
    kept = file.kept.get(member.offset)
    return file.read(member.size, member.offset) if kept is None else kept


def _is_label(path: str) -> bool:
    return path.lower().endswith(LABELS)


def _key(path: str) -> tuple[str, str]:
    """The sample's key and the extension, split by WebDataset's rule: at the first dot of the file name."""
    folder, slash, name = path.rpartition("/")
    stem, _, extension = name.partition(".")
    return folder + slash + stem, extension


def _class_in(label: Member, data: bytes, keys: Counter[str]) -> str | None:
    """The class that a member of a sample gives, as written there, or None. Counts the `keys` of JSON without one."""
    text = data.decode("utf-8", "surrogateescape").strip()
    if not label.name.lower().endswith(".json"):
        return text or None
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = class_in_record(said) if isinstance(said, dict) else None
    if found is None and isinstance(said, dict):
        keys.update(key for key in said if not key.startswith("_"))
    return found


def _notes(found: Sequence[Entry], keys: Counter[str]) -> tuple[str, ...]:
    """What to say about JSON that gives no class, if nothing else gives one."""
    if not keys or any(entry.class_name for entry in found):
        return ()
    shown = ", ".join(repr(key) for key, _ in keys.most_common(6))
    return (f"the samples' JSON names no class: its keys are {shown}; call the one with the classes 'class'",)


def _is_pattern(spec: str) -> bool:
    return any(_words(inside) for inside in _BRACES.findall(spec))


@lru_cache(8)
def _tars(spec: str) -> dict[str, str]:
    """The paths of the tars by name, whether they exist or not; a single tar has the name ''."""
    if not _is_pattern(spec):
        return {"": spec}
    pieces = _BRACES.split(spec)  # the odd pieces were inside braces
    choices = [(_words(piece) or [f"{{{piece}}}"]) if place % 2 else [piece] for place, piece in enumerate(pieces)]
    if prod(map(len, choices)) > MOST_TARS:
        raise SourceError(f"{spec!r} expands to more than {MOST_TARS:,} tars")
    tars: dict[str, str] = {}
    for words in product(*choices):
        tar = "".join(words)
        name = Path(tar).name
        if tars.setdefault(name, tar) != tar:
            raise SourceError(f"{spec!r} includes two tars named {name!r}: rename one, since names tell tars apart")
    return tars


def _words(inside: str) -> Sequence[str]:
    """The words that the inside of braces expands to, as in a shell: '000..063' or 'a,b'; empty for other text."""
    numbers = re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", inside)
    if numbers is None:
        return inside.split(",") if "," in inside else ()
    first, last = int(numbers[1]), int(numbers[2])
    if abs(last - first) >= MOST_TARS:
        raise SourceError(f"{{{inside}}} expands to more than {MOST_TARS:,} tars")
    padded = any(len(number) > 1 and number.startswith("0") for number in numbers.groups())
    width = max(map(len, numbers.groups())) if padded else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _enumerated(names: Sequence[str]) -> str:
    return ", ".join(names if len(names) <= 6 else [*names[:3], "...", names[-1]]) or "none"
