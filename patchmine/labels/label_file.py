"""`--labels FILE`: the classes of photographs from a file of their own, in one of three forms.

- a CSV of PATH,CLASS, with or without that header;
- ImageNet's `val.txt` as Caffe has it: NAME INDEX, the index being that of a network's output, 0 to 999;
- `ILSVRC2012_validation_ground_truth.txt` of ImageNet's development kit, beside its `meta.mat`: one number per
  photograph, which counts from 1 in an order of the kit's own; taken for a network's output, all would be wrong.

ImageNet's classes become WordNet ids, as if the photographs lay in class folders.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from patchmine.errors import SourceError, nearest
from patchmine.labels.imagenet import imagenet_wnids
from patchmine.sources import Entry
from patchmine.system.regular_files import read_text

FORMS = "PATH,CLASS on each line, ImageNet's val.txt, or the kit's ILSVRC2012_validation_ground_truth.txt"

META = "meta.mat"

NO_TABLE = (
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    NotImplementedError,
)
"""What scipy raises on files that are no table of the kit, besides an error of its own."""

_NAME_INDEX = re.compile(r"([^,]*\S)\s+([0-9]+)\s*")
_NUMBERED = re.compile(r"(?:.*/)?ILSVRC2012_val_([0-9]{8})\.[^/]*", re.DOTALL)


def classified(entries: Sequence[Entry], file: Path) -> list[Entry]:
    """The entries with the classes that the file says; one that it does not name keeps the class that it has.

    Raises SourceError where the file is in none of the forms, or names a photograph that is not there.
    """
    try:
        text = read_text(file)
    except FileNotFoundError:
        raise SourceError(f"there is no labels file {str(file)!r}") from None
    except OSError as error:
        raise SourceError(f"the labels file {str(file)!r} cannot be read: {error.strerror}") from None
    first = text.lstrip().partition("\n")[0].strip()
    if first.isdecimal():
        classes = _of_kit(text, file, entries)
    elif _NAME_INDEX.fullmatch(first):
        classes = _of_indices(text, file)
    else:
        classes = _of_csv(text, file)
    _refuse_unknown(classes, entries, file)
    return [Entry(entry.path, classes.get(entry.path, entry.class_name)) for entry in entries]


def _of_csv(text: str, file: Path) -> dict[str, str]:
    import csv
    import io

    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise SourceError(f"{str(file)!r} is no labels file ({error}): give {FORMS}") from None
    if not rows or any(len(row) != 2 for row in rows):
        raise SourceError(f"{str(file)!r} is no labels file: give {FORMS}")
    return {path: name for path, name in rows if [path, name] != ["path", "class"]}


def _of_indices(text: str, file: Path) -> dict[str, str]:
    wnids, classes = imagenet_wnids(), dict[str, str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        match = _NAME_INDEX.fullmatch(line)
        if match is None or len(match[2]) > 3:
            raise SourceError(f"line {number} of {str(file)!r} is not NAME INDEX, with an index of 0 to 999")
        classes[match[1]] = wnids[int(match[2])]
    return classes


def _of_kit(text: str, file: Path, entries: Sequence[Entry]) -> dict[str, str]:
    """The number in a photograph's name is that of its line."""
    lines = text.split()
    if not all(line.isdecimal() and len(line) < 6 for line in lines):
        raise SourceError(f"{str(file)!r} is no labels file: give {FORMS}")
    wnids = _wnids_of_kit(file.parent / META)
    classes = {}
    for entry in entries:
        match = _NUMBERED.fullmatch(entry.path)
        if match is None:
            continue
        number = int(match[1])
        if not 1 <= number <= len(lines):
            raise SourceError(f"{entry.path!r} would be on line {number} of {str(file)!r}, which has {len(lines)}")
        known = wnids.get(int(lines[number - 1]))
        if known is None:
            raise SourceError(f"line {number} of {str(file)!r} is {lines[number - 1]}, no class of {META} beside it")
        classes[entry.path] = known
    if not classes:
        raise SourceError(
            f"{str(file)!r} numbers ImageNet's validation photographs, and none in the source is called like "
            "ILSVRC2012_val_00000001.JPEG"
        )
    return classes


def _wnids_of_kit(meta: Path) -> dict[int, str]:
    """The WordNet id of each class by its number in the kit, without the groups that stand above them."""
    if not meta.is_file():
        raise SourceError(
            f"there is no {str(meta)!r}, which says what the numbers mean: leave the kit's two files side by side"
        )
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise SourceError(
            f"{str(meta)!r} can only be read with scipy: pip install scipy, or give a CSV of PATH,CLASS"
        ) from None
    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"].ravel()
        numbers, wnids, below = (synsets[name] for name in ("ILSVRC2012_ID", "WNID", "num_children"))
        return {int(n): str(wnid) for n, wnid, count in zip(numbers, wnids, below, strict=True) if count == 0}
    except (MatReadError, *NO_TABLE):
        raise SourceError(f"{str(meta)!r} is not the kit's table, or damaged: unpack the kit again") from None


def _refuse_unknown(classes: dict[str, str], entries: Sequence[Entry], file: Path) -> None:
    known = {entry.path for entry in entries}
    unknown = next((path for path in classes if path not in known), None)
    if unknown is not None:
        close = nearest(unknown, [entry.path for entry in entries[:10_000]])
        raise SourceError(f"{str(file)!r} names {unknown!r}, which is not in the source{close}")
