"""What `index` says about the classes that it found, and about classes that are there in another shape."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from patchmine.sources import HEIF, Entry, Listed, Source

SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "holdout"}
"""Folders, in lower case, that are parts of a data set rather than classes."""

CAMERAS = {"img", "image", "dsc", "dscn", "dscf", "dcim", "pxl", "photo", "picture", "mvi", "p", "frame", "screenshot"}
"""Beginnings of names, in lower case, that cameras and programs give."""

_KIT = re.compile(r"(?:.*/)?ILSVRC2012_val_[0-9]{8}\.[^/]*", re.DOTALL)
_NUMBERED = re.compile(r"(.*[^\W\d_])[\W\d_]+")
_CLASS_TABLE = re.compile(r"label|class|meta|annot|categor|synset|truth|solution|train|val|test", re.IGNORECASE)


def census(entries: Sequence[Entry]) -> str:
    """The number of classes in words: `in 20 classes`, `in 2 classes (5 without a class)`, `without classes`."""
    classes = len({entry.class_name for entry in entries} - {None})
    bare = sum(entry.class_name is None for entry in entries)
    if not classes:
        return "without classes"
    return f"in {classes} class{'' if classes == 1 else 'es'}" + (f" ({bare} without a class)" if bare else "")


def hints(source: Source, listed: Listed) -> list[str]:
    """A line for each sign that photographs or classes are there in a shape that was not taken."""
    found = list(listed.notes)
    if any(listed.passed.others[suffix] for suffix in HEIF):
        found.append("to read HEIC and AVIF: pip install 'patchmine[heif]'")
    classes = Counter(entry.class_name for entry in listed.entries if entry.class_name is not None)
    if not classes:
        found += _of_none(source, listed)
    elif source.kind in ("folder", "tar", "zip"):
        found += _of_parts(source, listed.entries, sorted(classes))
    if len(classes) > 1 and all(name.isdecimal() for name in classes):
        found.append("the classes are numbers: to name units in words, give --labels a CSV of PATH,CLASS")
    return found


def _of_none(source: Source, listed: Listed) -> list[str]:
    """Where the classes of photographs without any may be."""
    entries, passed = listed.entries, listed.passed
    if all(_KIT.fullmatch(entry.path) for entry in entries):
        return [
            "these are ImageNet's validation photographs: name their classes with --labels val.txt, or with the kit's "
            "--labels ILSVRC2012_validation_ground_truth.txt"
        ]
    found = []
    table = next((path for path in passed.tables if _CLASS_TABLE.search(PurePosixPath(path).name)), None)
    if table is not None:
        shown = str(Path(source.spec, table)) if source.kind == "folder" else table
        found.append(f"{shown!r} may hold classes: give it with --labels if it is a table of paths and classes")
    beside = next((suffix for suffix in (".cls", ".json") if passed.others[suffix] * 2 > len(entries)), None)
    if beside is not None and source.kind in ("folder", "zip"):
        found.append(f"the {beside} files may hold classes: pack all into a tar, where they give each sample its class")
    folders = sorted({PurePosixPath(entry.path).parent.name for entry in entries} - {""})
    if source.kind == "listing" and len(folders) > 1:
        found.append(f"a list says no classes by folder: if {_some(folders)} are classes, write a .csv of path,class")
    begun = sorted(_beginnings(entries)) if not found else []
    if len(begun) > 1:
        found.append(f"if the beginnings {_some(begun)} of the names are classes, give --labels a CSV of PATH,CLASS")
    return found


def _of_parts(source: Source, entries: Sequence[Entry], classes: Sequence[str]) -> list[str]:
    """A line if the classes are parts of a data set, or one folder around the folders that may be classes."""
    inside, split = _below(entries), {name.lower() for name in classes} <= SPLITS
    if not split and (len(classes) > 1 or not inside):
        return []
    if set(classes) != {entry.path.partition("/")[0] for entry in entries}:  # JSON, say, gave them
        return []
    what = "is the only class" if len(classes) == 1 else "are the classes"
    if not inside:
        return [f"{_some(classes)} {what}, by the folders: for others, give --labels a CSV of PATH,CLASS"]
    take = f"index {str(Path(source.spec, classes[0]))!r}" if source.kind == "folder" else "pack one folder deeper"
    return [f"{_some(classes)} {what}: if the folders below are classes ({_some(inside)}), {take}"]


def _below(entries: Sequence[Entry]) -> list[str]:
    """The names of the second level of folders; empty unless there are several and each photograph lies in one."""
    parts = [entry.path.split("/") for entry in entries]
    names = {part[1] for part in parts if len(part) > 2}
    return sorted(names) if len(names) > 1 and all(len(part) > 2 for part in parts) else []


def _beginnings(entries: Sequence[Entry]) -> set[str]:
    """The beginnings of the file names before their numbers, if each has several photographs."""
    matches = [_NUMBERED.fullmatch(PurePosixPath(entry.path).stem) for entry in entries]
    counts = Counter(match[1] for match in matches if match)
    if None in matches or min(counts.values(), default=0) < 2 or any(name.lower() in CAMERAS for name in counts):
        return set()
    return set(counts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
