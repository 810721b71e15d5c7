"""`--labels FILE`: the classes of photographs from a separate file, in one of three formats:

- a table (CSV, TSV or JSON lines) whose header names columns of paths and classes, or a CSV of PATH,CLASS without one;
- ImageNet's `val.txt` as distributed with Caffe: NAME INDEX, where the index is that of a network's output, 0 to 999;
- `ILSVRC2012_validation_ground_truth.txt` of ImageNet's development kit, beside its `meta.mat`: one number per
  photograph, counted from 1 in the kit's own order of classes, which is not the order of a network's outputs.

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
from patchmine.sources._tables import read_table
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
"""Raised by scipy, besides its own MatReadError, for a file that is not the kit's table."""

_NAME_INDEX = re.compile(r"([^,]*\S)\s+([0-9]+)\s*")
_NUMBERED = re.compile(r"(?:.*/)?ILSVRC2012_val_([0-9]{8})\.[^/]*", re.DOTALL)


def classified(entries: Sequence[Entry], file: Path) -> list[Entry]:
    """The entries with the classes that the file gives; an entry that it does not name keeps its class.

    Raises SourceError if the file has none of the three formats or names a photograph that is not in the source.
    """
    try:
        text = read_text(file)
    except FileNotFoundError:
        raise SourceError(f"labels file {str(file)!r} not found") from None
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

    table = read_table(str(file), text)
    if table is not None:
        if table.column is None:
            shown = ", ".join(map(repr, table.others))
            raise SourceError(
                f"{str(file)!r} has no column 'class', only {shown}: call the one with the classes 'class'"
            )
        return {path: name for path, name in table.rows if name is not None}
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise SourceError(f"{str(file)!r} is not a labels file ({error}): give {FORMS}") from None
    if not rows or any(len(row) != 2 for row in rows):
        raise SourceError(f"{str(file)!r} is not a labels file: give {FORMS}")
    return dict(rows)


def _of_indices(text: str, file: Path) -> dict[str, str]:
    wnids, classes = imagenet_wnids(), dict[str, str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        match = _NAME_INDEX.fullmatch(line)
        if match is None or len(match[2]) > 3:
            raise SourceError(f"line {number} of {str(file)!r} is not NAME INDEX with an index from 0 to 999")
        classes[match[1]] = wnids[int(match[2])]
    return classes


def _of_kit(text: str, file: Path, entries: Sequence[Entry]) -> dict[str, str]:
    """Classes by path. The number in a photograph's name is its line in the file."""
    lines = text.split()
    if not all(line.isdecimal() and len(line) < 6 for line in lines):
        raise SourceError(f"{str(file)!r} is not a labels file: give {FORMS}")
    wnids = _wnids_of_kit(file.parent / META)
    classes = {}
    for entry in entries:
        match = _NUMBERED.fullmatch(entry.path)
        if match is None:
            continue
        number = int(match[1])
        if not 1 <= number <= len(lines):
            raise SourceError(f"{entry.path!r} belongs to line {number} of {str(file)!r}, which has {len(lines)} lines")
        known = wnids.get(int(lines[number - 1]))
        if known is None:
            raise SourceError(f"line {number} of {str(file)!r} is {lines[number - 1]}, not a class in {META} beside it")
        classes[entry.path] = known
    if not classes:
        raise SourceError(
            f"{str(file)!r} is for ImageNet's validation photographs, but no file in the source is named like "
            "ILSVRC2012_val_00000001.JPEG"
        )
    return classes


def _wnids_of_kit(meta: Path) -> dict[int, str]:
    """The WordNet id of each class by its number in the kit, without the groups above the classes."""
    if not meta.is_file():
        raise SourceError(
            f"{str(meta)!r} not found, which defines the class numbers: keep the kit's two files side by side"
        )
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise SourceError(
            f"reading {str(meta)!r} requires scipy: pip install scipy, or give a CSV of PATH,CLASS"
        ) from None
    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"].ravel()
        numbers, wnids, below = (synsets[name] for name in ("ILSVRC2012_ID", "WNID", "num_children"))
        return {int(n): str(wnid) for n, wnid, count in zip(numbers, wnids, below, strict=True) if count == 0}
    except (MatReadError, *NO_TABLE):
        raise SourceError(f"{str(meta)!r} is damaged or not the kit's table: unpack the kit again") from None


def _refuse_unknown(classes: dict[str, str], entries: Sequence[Entry], file: Path) -> None:
    known = {entry.path for entry in entries}
    unknown = next((path for path in classes if path not in known), None)
    if unknown is not None:
        close = nearest(unknown, [entry.path for entry in entries[:10_000]])
        raise SourceError(f"{str(file)!r} names {unknown!r}, which is not in the source{close}")
