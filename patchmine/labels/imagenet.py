"""The 1,000 ImageNet classes by index, WordNet id and label, from a table in the package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path


@cache
def _rows() -> tuple[tuple[str, str], ...]:
    """(WordNet id, label) in the order of the class index."""
    text = Path(__file__).with_name("data").joinpath("imagenet_classes.tsv").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    header, *rows = (line.split("\t") for line in lines)
    wnid, label = header.index("wnid"), header.index("label")
    return tuple((row[wnid], row[label]) for row in rows)


@cache
def _labels_by_wnid() -> dict[str, str]:
    return dict(_rows())


def imagenet_labels() -> tuple[str, ...]:
    """The label of each class, in the order of a network's outputs."""
    return tuple(label for _, label in _rows())


def imagenet_wnids() -> tuple[str, ...]:
    """The WordNet id of each class, in the order of a network's outputs, which is also their sorted order."""
    return tuple(wnid for wnid, _ in _rows())


def class_label(name: str) -> str:
    """`goldfish` for `n01443537`; any other class name is its own label."""
    return _labels_by_wnid().get(name, name)


def class_keys(names: Sequence[str]) -> tuple[str, ...]:
    """The classes of a network's outputs, as an index names them: WordNet ids if the names are those of ImageNet's
    1,000 classes, spelling differences aside; else the names."""
    labels = imagenet_labels()
    same = sum(one.lower() == other.lower() for one, other in zip(names, labels, strict=False))
    return imagenet_wnids() if len(names) == len(labels) and same > len(labels) / 2 else tuple(names)
