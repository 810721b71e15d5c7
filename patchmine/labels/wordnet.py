"""The WordNet nouns above ImageNet's classes, with a unique word for each, from tables in the package."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

_WORDS = {"imagenet_classes.tsv": "label", "imagenet_hypernyms.tsv": "name"}


@cache
def _nouns() -> dict[str, tuple[str, tuple[str, ...], int]]:
    """(word, parents, number of the 1,000 classes below) by WordNet id; the classes come first."""
    found = {}
    for file, column in _WORDS.items():
        text = Path(__file__).with_name("data").joinpath(file).read_text("utf-8")
        header, *rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
        for row in rows:
            cells = dict(zip(header, row, strict=True))
            parents = tuple(filter(None, cells["parents"].split(",")))
            found[cells["wnid"]] = (cells[column].replace("_", " "), parents, int(cells.get("classes", 1)))
    return found


@cache
def ancestors(wnid: str) -> frozenset[str]:
    """All WordNet ids above this one; empty for an unknown id."""
    parents = _nouns()[wnid][1] if wnid in _nouns() else ()
    return frozenset(parents).union(*(ancestors(parent) for parent in parents))


def breadth(key: str) -> int:
    """How many of ImageNet's classes a label covers: 1 for a class, even one that WordNet does not know."""
    return _nouns()[key][2] if key in _nouns() else 1


def word(key: str) -> str:
    """`great white shark`, or `crane (wading bird)` if several share a word. A key that is not an id is unchanged."""
    return _distinct().get(key, key)


@cache
def _distinct() -> dict[str, str]:
    words = {wnid: noun for wnid, (noun, _, _) in _nouns().items()}
    shared = Counter(words.values())
    # The word of the first parent tells most of them apart; the id tells the rest apart.
    longer = {
        wnid: f"{noun} ({words[_nouns()[wnid][1][0]]})" if shared[noun] > 1 else noun for wnid, noun in words.items()
    }
    still = Counter(longer.values())
    return {wnid: f"{words[wnid]} ({wnid})" if still[noun] > 1 else noun for wnid, noun in longer.items()}
